"""Where a dataset lives: one interface over a POSIX folder and an object store.

Records, catalog parts and volumes all pass through the few operations of :class:`Storage`. Names are '/'-separated and
relative; anything else is refused.
"""

from __future__ import annotations

import os
import re
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import obstore
from obstore.exceptions import BaseError, NotFoundError
from pyarrow import fs as arrow_fs

from ctmr_core.errors import IntegrityError, StoreError

PROBES = "probe"  # short-lived objects that find out what an object store can do and what its clock says
_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._=-]*")


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


class Storage(ABC):
    """A dataset's root. ``uri`` identifies it; ``objects`` is the obstore store behind it.

    A folder is a :class:`~ctmr_core.store.local.LocalStorage`, a bucket an :class:`~ctmr_core.store.objects.ObjectStorage`.
    """

    def __init__(self, uri: str, objects: Any) -> None:
        self.uri = uri
        self.objects = objects

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.uri!r})"

    @abstractmethod
    def create(self, name: str, data: bytes) -> bool:
        """Write ``data`` unless the name is taken, atomically and durably. False: it was there already."""

    @abstractmethod
    def write(self, name: str, data: bytes) -> None:
        """Write or replace the whole object, atomically and durably."""

    @abstractmethod
    def write_all(self, objects: Sequence[tuple[str, bytes]]) -> None:
        """Write new objects; all of them are durable on return. Not atomic as a group."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """The object's bytes; ``FileNotFoundError`` when there is none."""

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
            for batch in self._pages(checked_name(prefix)):
                found.extend(StoredName(meta["path"], int(meta["size"]), meta["last_modified"]) for meta in batch)
        except (NotFoundError, FileNotFoundError):
            return iter(())
        except BaseError as error:
            raise self._failed("list", prefix, error) from error
        return iter(sorted(found, key=lambda entry: entry.name))

    def scan(self, prefix: str) -> Iterator[StoredName]:
        """Every object below the folder ``prefix`` as it is found, in no order: for listings that must not fill the memory."""
        try:
            for batch in self._pages(checked_name(prefix)):
                yield from (StoredName(meta["path"], int(meta["size"]), meta["last_modified"]) for meta in batch)
        except (NotFoundError, FileNotFoundError):
            return
        except BaseError as error:
            raise self._failed("list", prefix, error) from None

    def _pages(self, prefix: str) -> Iterator[Sequence[Any]]:
        """What obstore knows of the objects below ``prefix``, some at a time."""
        return iter(obstore.list(self.objects, prefix=prefix))

    @abstractmethod
    def entries(self, prefix: str) -> Iterator[str]:
        """``<fan-out>/<entry>`` of every file and folder two levels below ``prefix``, in no order."""

    @abstractmethod
    def delete(self, name: str) -> None:
        """Remove the object if it is there."""

    @abstractmethod
    def delete_tree(self, prefix: str) -> None:
        """Remove everything below the folder ``prefix``."""

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

        filesystem = arrow_filesystem(self.objects, partial(self._failed, "read"))
        return filesystem, [checked_name(name) for name in names]

    def local_path(self, name: str) -> Path | None:
        """The file behind the name, None unless this storage is a folder."""
        checked_name(name)
        return None

    @abstractmethod
    def kvstore(self, name: str) -> dict[str, Any]:
        """The tensorstore key-value store spec of the folder ``name``."""

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
    from ctmr_core.store.local import LocalStorage

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
