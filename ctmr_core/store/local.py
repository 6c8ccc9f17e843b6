"""A dataset in a folder of a POSIX file system.

The writes are done here, because obstore's ``LocalStore`` links a finished file into place but never calls ``fsync``: a power
cut could leave a committed record without content.
"""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import obstore
from pyarrow import fs as arrow_fs

from ctmr_core.errors import StoreError
from ctmr_core.store.drills import halves
from ctmr_core.store.storage import Storage, StoredName, checked_name

T = TypeVar("T")
SCRATCH = ".tmp"
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL
_OPEN_FILES = 256  # objects written before they are flushed together: far below the usual limit of 1024 open files
_FLUSHERS = 8
_FULL_DISK = {errno.ENOSPC, errno.EDQUOT}


class LocalStorage(Storage):
    """A dataset in a folder of a POSIX file system: every write is on the disk (``fsync``) before it has a name.

    ``create`` makes a temporary file and gives it its name with ``link(2)``, which fails if the name is taken and works
    on NFS too. The reply to ``link`` can be lost on NFS, so a failure is checked against the temporary file's link count.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        super().__init__(str(root), obstore.store.LocalStore(root))

    def __reduce__(self) -> tuple[type[LocalStorage], tuple[Path]]:
        return (LocalStorage, (self.root,))

    def create(self, name: str, data: bytes) -> bool:
        scratch = self._scratch(name, data)
        try:
            created = self._link(scratch, self._path(name))
        except OSError as error:
            raise self._failed("write", name, error) from error
        finally:
            with suppress(FileNotFoundError):
                os.unlink(scratch)  # noqa: PTH108 - see _path
        return created

    def write(self, name: str, data: bytes) -> None:
        scratch = self._scratch(name, data)
        target = self._path(name)
        try:
            _in_folder(target, lambda: os.replace(scratch, target))  # noqa: PTH105 - see _path
            _sync_folder(target)
        except OSError as error:
            with suppress(FileNotFoundError):
                os.unlink(scratch)  # noqa: PTH108 - see _path
            raise self._failed("write", name, error) from error

    def write_all(self, objects: Sequence[tuple[str, bytes]]) -> None:
        for start in range(0, len(objects), _OPEN_FILES):
            self._write_some(objects[start : start + _OPEN_FILES])

    def _write_some(self, objects: Sequence[tuple[str, bytes]]) -> None:
        """Write all, then flush all at once: a file system merges flushes that wait together into one journal commit, so that
        the 20 flushes of a small volume take the time of a few.
        """
        folders: set[str] = set()
        handles: list[int] = []
        name = ""
        try:
            for name, data in objects:
                checked_name(name)
                self._make_folders(name, folders)
                handles.append(os.open(f"{self.root}/{name}", _NEW_FILE, 0o666))
                _write_whole(handles[-1], data, name)
            handles.extend(os.open(f"{self.root}/{folder}", os.O_RDONLY | os.O_DIRECTORY) for folder in folders)
            waiting = iter(handles)  # shared: each thread takes the next one
            flushes = [_flushers(os.getpid()).submit(_flush, waiting) for _ in range(min(_FLUSHERS, len(handles)))]
            wait(flushes)  # all of them, so that none is left with a closed handle when one fails
            for flush in flushes:
                flush.result()
        except OSError as error:
            raise self._failed("write", name, error) from error
        finally:
            for handle in handles:
                os.close(handle)

    def _make_folders(self, name: str, known: set[str]) -> None:
        """Make the folders of ``name`` that are not ``known``, and add them, the root ("") included."""
        folder, _, _ = name.rpartition("/")
        if folder in known:
            return
        os.makedirs(f"{self.root}/{folder}", exist_ok=True)  # noqa: PTH103 - half of the time of a small volume was pathlib's
        while folder not in known:
            known.add(folder)
            folder, _, _ = folder.rpartition("/")

    def read(self, name: str) -> bytes:
        try:
            return (self.root / checked_name(name)).read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            raise FileNotFoundError(f"{self.uri}/{name}") from error
        except OSError as error:
            raise self._failed("read", name, error) from error

    def stat(self, name: str) -> StoredName | None:
        try:
            status = os.stat(self._path(name))  # noqa: PTH116 - see _path
        except (FileNotFoundError, NotADirectoryError):
            return None
        return StoredName(name, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))

    def entries(self, prefix: str) -> Iterator[str]:
        with suppress(FileNotFoundError), os.scandir(self.root / checked_name(prefix)) as folders:
            for folder in folders:
                if folder.is_dir():
                    # names only, no stat: a million of them in about a second
                    yield from (f"{folder.name}/{name}" for name in os.listdir(folder.path))  # noqa: PTH208

    def delete(self, name: str) -> None:
        try:
            os.unlink(self._path(name))  # noqa: PTH108 - see _path
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise self._failed("delete", name, error) from error

    def delete_tree(self, prefix: str) -> None:
        with suppress(FileNotFoundError):
            shutil.rmtree(self.root / checked_name(prefix))

    def touch(self, name: str) -> None:
        os.utime(self.root / checked_name(name))

    def clock(self) -> datetime:
        scratch = Path(self._scratch("clock", b""))  # on NFS the server dates the file
        try:
            return datetime.fromtimestamp(scratch.stat().st_mtime, UTC)
        finally:
            scratch.unlink(missing_ok=True)

    def arrow_files(self, names: Sequence[str]) -> tuple[arrow_fs.FileSystem, Sequence[str]]:
        return arrow_fs.LocalFileSystem(), [str(self.local_path(name)) for name in names]

    def local_path(self, name: str) -> Path:
        return self.root / checked_name(name)

    def kvstore(self, name: str) -> dict[str, Any]:
        return {"driver": "file", "path": f"{self.local_path(name)}/"}

    def scratch(self) -> Iterator[StoredName]:
        with suppress(FileNotFoundError), os.scandir(self.root / SCRATCH) as files:
            for file in files:
                with suppress(FileNotFoundError):
                    status = file.stat()
                    yield StoredName(f"{SCRATCH}/{file.name}", status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))

    def discard_scratch(self, entry: StoredName) -> None:
        (self.root / SCRATCH / Path(entry.name).name).unlink(missing_ok=True)

    def clear_scratch(self) -> None:
        shutil.rmtree(self.root / SCRATCH, ignore_errors=True)

    def _path(self, name: str) -> str:
        """The file of ``name`` as text: with pathlib, a commit took twice the processor time."""
        return f"{self.root}/{checked_name(name)}"

    def _link(self, scratch: str, target: str) -> bool:
        """Give the temporary file its name, durably; False when the name is taken."""
        try:
            _in_folder(target, lambda: os.link(scratch, target))
        except OSError as error:
            if os.stat(scratch).st_nlink == 2:  # noqa: PTH116 - the link was made, its answer was lost (link(2), BUGS)
                pass
            elif error.errno == errno.EEXIST:
                return False
            else:
                raise
        _sync_folder(target)
        return True

    def _scratch(self, name: str, data: bytes) -> str:
        """A temporary file with ``data``, on the disk."""
        scratch = f"{self.root}/{SCRATCH}/{uuid.uuid4().hex}"
        try:
            handle = _in_folder(scratch, lambda: os.open(scratch, _NEW_FILE, 0o666))
            try:
                _write_whole(handle, data, name)
                os.fsync(handle)
            finally:
                os.close(handle)
        except OSError as error:
            with suppress(OSError):
                os.unlink(scratch)  # noqa: PTH108 - see _path
            raise self._failed("write", name, error) from error
        return scratch

    def _failed(self, deed: str, name: str, error: Exception) -> StoreError:
        if isinstance(error, OSError) and error.errno in _FULL_DISK:
            return StoreError(
                "the disk is full",
                where=f"{self.uri}/{name}",
                found=f"{shutil.disk_usage(self.root).free} bytes free",
                fix="make room, then run the same command again: what is committed stays, the rest is made",
            )
        return super()._failed(deed, name, error)


def _write_whole(handle: int, data: bytes, name: str) -> None:
    for part in halves(data, name):
        view = part
        while view:
            view = view[os.write(handle, view) :]


def _flush(handles: Iterator[int]) -> None:
    for handle in handles:
        os.fsync(handle)


@cache
def _flushers(process: int) -> ThreadPoolExecutor:  # noqa: ARG001 - threads do not survive a fork
    return ThreadPoolExecutor(_FLUSHERS, thread_name_prefix="fsync")


def _in_folder(path: str, deed: Callable[[], T]) -> T:
    """Do what makes the file ``path``; its folder is made, durably, when it turns out to be missing."""
    try:
        return deed()
    except FileNotFoundError:
        _make_folder(path.rpartition("/")[0])
        return deed()


def _make_folder(folder: str) -> None:
    """Make it and those above it, and flush their names; another process may be doing the same."""
    try:
        os.mkdir(folder)  # noqa: PTH102 - see LocalStorage._path
    except FileExistsError:
        pass
    except FileNotFoundError:
        _make_folder(folder.rpartition("/")[0])
        _make_folder(folder)
        return
    _sync_folder(folder)


def _sync_folder(path: str) -> None:
    """Flush the folder that ``path`` lies in."""
    handle = os.open(path.rpartition("/")[0], os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
