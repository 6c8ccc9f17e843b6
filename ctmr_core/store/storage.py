"""Where a dataset lives: one interface over a POSIX folder and an object store.

Records, catalog parts and volumes all pass through the few operations of :class:`Storage`. ``obstore`` does the listing,
reading and, on object stores, the conditional put (``If-None-Match: *``). On a POSIX file system the writes are done
here, because obstore's ``LocalStore`` links a finished file into place but never calls ``fsync``: a power cut could
leave a committed record without content. Names are '/'-separated and relative; anything else is refused.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError
from pyarrow import fs as arrow_fs

from ctmr_core.errors import IntegrityError, StoreError
from ctmr_core.store.drills import halves

SCRATCH = ".tmp"
PROBES = "probe"  # short-lived objects that find out what an object store can do and what its clock says
_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._=-]*")
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL
_OPEN_FILES = 256  # objects written before they are flushed together: far below the usual limit of 1024 open files
_FLUSHERS = 8
_FULL_DISK = {errno.ENOSPC, errno.EDQUOT}


@dataclass(frozen=True)
class StoredName:
    """An object of the storage: its name, size in bytes and last change."""

    name: str
    bytes: int
    modified: datetime


def checked_name(*parts: str) -> str:
    """The parts joined with '/', each refused (``StoreError``) unless it is made of plain path segments.

    Allowed in a segment: letters, digits, ``_ - = .``, not beginning with a dot or hyphen. So no ``..``, no absolute path, no
    hidden file, no backslash and no control character can come out of a case id or a catalog row.
    """
    name = "/".join(parts)
    for segment in name.split("/"):
        if not _SEGMENT.fullmatch(segment):
            raise StoreError(
                "a name inside a dataset is made of plain segments",
                found=name,
                allowed="letters, digits, '_', '-', '=', '.', segments separated by single '/', none beginning with '.' or '-'",
            )
    return name


class Storage:
    """A dataset's root in an object store. ``uri`` identifies it; ``objects`` is the obstore store behind it."""

    def __init__(self, uri: str, objects: Any) -> None:
        self.uri = uri
        self.objects = objects

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.uri!r})"

    def create(self, name: str, data: bytes) -> bool:
        """Write ``data`` unless the name is taken, atomically and durably. False: it was there already."""
        try:
            obstore.put(self.objects, checked_name(name), data, mode="create")
        except AlreadyExistsError:
            return False
        except BaseError as error:
            raise self._failed("write", name, error) from error
        return True

    def write(self, name: str, data: bytes) -> None:
        """Write or replace the whole object, atomically and durably."""
        try:
            obstore.put(self.objects, checked_name(name), data)
        except BaseError as error:
            raise self._failed("write", name, error) from error

    def write_all(self, objects: list[tuple[str, bytes]]) -> None:
        """Write new objects in the order given; all of them are durable on return. Not atomic as a group."""
        for name, data in objects:
            self.write(name, data)

    def read(self, name: str) -> bytes:
        """The object's bytes; ``FileNotFoundError`` when there is none."""
        try:
            return bytes(obstore.get(self.objects, checked_name(name)).bytes())
        except (NotFoundError, FileNotFoundError) as error:
            raise FileNotFoundError(f"{self.uri}/{name}") from error
        except BaseError as error:
            raise self._failed("read", name, error) from error

    def stat(self, name: str) -> StoredName | None:
        """Size and time of the object, None when there is none."""
        try:
            meta = obstore.head(self.objects, checked_name(name))
        except (NotFoundError, FileNotFoundError):
            return None
        except BaseError as error:
            raise self._failed("read", name, error) from error
        return StoredName(name, int(meta["size"]), meta["last_modified"])

    def list(self, prefix: str) -> Iterator[StoredName]:
        """Every object below the folder ``prefix``, sorted by name."""
        found: list[StoredName] = []
        try:
            for batch in obstore.list(self.objects, prefix=checked_name(prefix)):
                found.extend(StoredName(meta["path"], int(meta["size"]), meta["last_modified"]) for meta in batch)
        except (NotFoundError, FileNotFoundError):
            return iter(())
        except BaseError as error:
            raise self._failed("list", prefix, error) from error
        return iter(sorted(found, key=lambda entry: entry.name))

    def scan(self, prefix: str) -> Iterator[StoredName]:
        """Every object below the folder ``prefix`` as it is found, in no order: for listings that must not fill the memory."""
        try:
            for batch in obstore.list(self.objects, prefix=checked_name(prefix)):
                yield from (StoredName(meta["path"], int(meta["size"]), meta["last_modified"]) for meta in batch)
        except (NotFoundError, FileNotFoundError):
            return
        except BaseError as error:
            raise self._failed("list", prefix, error) from None

    def entries(self, prefix: str) -> Iterator[str]:
        """``<fan-out>/<entry>`` of every file and folder two levels below ``prefix``, in no order."""
        try:
            fans = obstore.list_with_delimiter(self.objects, prefix=checked_name(prefix))["common_prefixes"]
            for fan in fans:
                found = obstore.list_with_delimiter(self.objects, prefix=fan)
                for path in (*found["common_prefixes"], *(meta["path"] for meta in found["objects"])):
                    yield "/".join(str(path).rstrip("/").split("/")[-2:])
        except (NotFoundError, FileNotFoundError):
            return
        except BaseError as error:
            raise self._failed("list", prefix, error) from error

    def delete(self, name: str) -> None:
        """Remove the object if it is there."""
        try:
            obstore.delete(self.objects, checked_name(name))
        except (NotFoundError, FileNotFoundError):
            return
        except BaseError as error:
            raise self._failed("delete", name, error) from error

    def delete_tree(self, prefix: str) -> None:
        """Remove everything below the folder ``prefix``."""
        for entry in self.list(prefix):
            self.delete(entry.name)

    def touch(self, name: str) -> None:
        """Move the object's last change to now."""
        self.write(name, self.read(name))

    def clock(self) -> datetime:
        """The time on the clock that dates the objects; it may differ from this machine's."""
        name = f"{PROBES}/{uuid.uuid4().hex}"
        self.write(name, b"")
        try:
            entry = self.stat(name)
        finally:
            self.delete(name)
        return entry.modified if entry is not None else datetime.now(UTC)

    def arrow_files(self, names: Sequence[str]) -> tuple[arrow_fs.FileSystem, Sequence[str]]:
        """The Arrow file system behind the storage and the paths on it of ``names``: columns and filters are pushed down."""
        from ctmr_core.store.arrow_files import arrow_filesystem

        return arrow_filesystem(self.objects), [checked_name(name) for name in names]

    def local_path(self, name: str) -> Path | None:
        """The file behind the name, None unless this storage is a folder."""
        checked_name(name)
        return None

    def kvstore(self, name: str) -> dict[str, Any]:
        """The tensorstore key-value store spec of the folder ``name``."""
        raise StoreError(
            "voxels can not be read from this kind of storage yet",
            found=f"{self.uri}/{checked_name(name)}",
            allowed="a local folder",
        )

    def kvstore_context(self) -> dict[str, Any]:
        """tensorstore's context spec for :meth:`kvstore`; storages with equal ones share connections and caches."""
        return {}

    def kvstore_failed(self, name: str, error: Exception) -> StoreError | None:
        """What to raise for an ``error`` of tensorstore; None when it means missing or damaged bytes."""
        del name, error
        return None

    def scratch(self) -> Iterator[StoredName]:
        """What interrupted writes left behind, or writes of this moment are made of."""
        return self.scan(PROBES)

    def discard_scratch(self, entry: StoredName) -> None:
        """Remove one entry of :meth:`scratch`."""
        self.delete(entry.name)

    def clear_scratch(self) -> None:
        """Remove all of :meth:`scratch`. Only when nobody writes."""
        for entry in self.scratch():
            self.discard_scratch(entry)

    def _failed(self, deed: str, name: str, error: Exception) -> StoreError:
        return StoreError(
            f"storage could not {deed} an object",
            where=f"{self.uri}/{name}",
            found=str(error).splitlines()[0],
            fix="check that the storage is reachable and writable, then run the same command again: it resumes",
        )


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
        target = self._target(name)
        scratch = self._scratch(name, data)
        try:
            try:
                os.link(scratch, target)
            except OSError as error:
                if scratch.stat().st_nlink == 2:  # the link was made, its answer was lost (link(2), BUGS)
                    pass
                elif error.errno == errno.EEXIST:
                    return False
                else:
                    raise self._failed("write", name, error) from error
            _sync_folder(target.parent)
        finally:
            scratch.unlink(missing_ok=True)
        return True

    def write(self, name: str, data: bytes) -> None:
        target = self._target(name)
        scratch = self._scratch(name, data)
        try:
            scratch.replace(target)
            _sync_folder(target.parent)
        except OSError as error:
            scratch.unlink(missing_ok=True)
            raise self._failed("write", name, error) from error

    def write_all(self, objects: list[tuple[str, bytes]]) -> None:
        for start in range(0, len(objects), _OPEN_FILES):
            self._write_some(objects[start : start + _OPEN_FILES])

    def _write_some(self, objects: list[tuple[str, bytes]]) -> None:
        """Write all, then flush all at once: a file system merges flushes that wait together into one journal commit, so that
        the 28 flushes of a small volume take the time of a few.
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
            flushes = [_flushers(os.getpid()).submit(os.fsync, handle) for handle in handles]
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
            status = (self.root / checked_name(name)).stat()
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
            (self.root / checked_name(name)).unlink(missing_ok=True)
        except NotADirectoryError:
            return
        except OSError as error:
            raise self._failed("delete", name, error) from error

    def delete_tree(self, prefix: str) -> None:
        with suppress(FileNotFoundError):
            shutil.rmtree(self.root / checked_name(prefix))

    def touch(self, name: str) -> None:
        os.utime(self.root / checked_name(name))

    def clock(self) -> datetime:
        scratch = self._scratch("clock", b"")  # on NFS the server dates the file
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

    def _target(self, name: str) -> Path:
        target = self.root / checked_name(name)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._failed("write", name, error) from error
        return target

    def _scratch(self, name: str, data: bytes) -> Path:
        scratch = self.root / SCRATCH / uuid.uuid4().hex
        try:
            scratch.parent.mkdir(exist_ok=True)
            _write_synced(scratch, data, name)
        except OSError as error:
            scratch.unlink(missing_ok=True)
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


def open_storage(uri: str | os.PathLike[str], *, make: bool = False) -> Storage:
    """The storage at a local path, ``file://`` or ``s3://bucket/prefix`` URI.

    make: to write a dataset here. A folder is created (else a missing one is a ``StoreError``); an object store must prove that
    it can create an object only if there is none, and is refused with a ``StoreError`` otherwise.
    """
    text = os.fspath(uri)
    parts = urlparse(text)
    if parts.scheme == "s3":
        from ctmr_core.store.objects import ObjectStorage

        storage = ObjectStorage(text)
        if make:
            storage.prove()
        return storage
    if parts.scheme == "file":
        text = unquote(parts.path)
    elif "://" in text:
        raise StoreError(
            "this kind of storage is not supported yet", found=text, allowed="a local path, file://, s3://bucket/prefix"
        )
    root = Path(text).expanduser().absolute()
    if make:
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError("the dataset's folder can not be made", where=str(root), found=str(error)) from error
    if not root.is_dir():
        raise StoreError("there is no dataset folder here", found=str(root), fix="check the path; `ctmr generate` makes datasets")
    return LocalStorage(root)


def read_json(storage: Storage, name: str) -> Any:
    """The JSON document ``name``; ``IntegrityError`` that names the file when it is cut short or not JSON."""
    import json

    data = storage.read(name)
    try:
        return json.loads(data)
    except ValueError as error:
        raise IntegrityError(
            "the document is not complete JSON",
            where=f"{storage.uri}/{name}",
            found=f"{len(data)} bytes, {error}",
            fix="restore the file, or delete it so that the case is made again",
        ) from error


def json_bytes(document: Any) -> bytes:
    """Canonical JSON: sorted keys, UTF-8, a newline at the end. Equal documents are equal bytes."""
    import json

    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _write_synced(path: Path, data: bytes, name: str) -> None:
    handle = os.open(path, _NEW_FILE, 0o666)
    try:
        _write_whole(handle, data, name)
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_whole(handle: int, data: bytes, name: str) -> None:
    for part in halves(data, name):
        view = part
        while view:
            view = view[os.write(handle, view) :]


@cache
def _flushers(process: int) -> ThreadPoolExecutor:  # noqa: ARG001 - threads do not survive a fork
    return ThreadPoolExecutor(_FLUSHERS, thread_name_prefix="fsync")


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
