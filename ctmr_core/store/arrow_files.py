"""Parquet files in an object store, for Arrow: every read is a GET of exactly the bytes asked for.

The store's own client does the reading, so that credentials, time-outs and retries are the same as everywhere else. What the
store does not give is a ``StoreError``, which Arrow hands on as it is: an ``OSError`` would be taken for a damaged file.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import obstore
import pyarrow as pa
from obstore.exceptions import BaseError, NotFoundError
from pyarrow import fs

from ctmr_core.errors import StoreError
from ctmr_core.store.answers import whole

#: (name of an object, what went wrong) -> the error that says what to do.
Failed = Callable[[str, Exception], StoreError]


def arrow_filesystem(objects: Any, failed: Failed) -> fs.FileSystem:
    """The obstore store ``objects`` as a read-only Arrow file system; paths are the names of its objects."""
    return fs.PyFileSystem(_Objects(objects, failed))


class _RangeReader(io.RawIOBase):
    """A seekable file over one object."""

    def __init__(self, objects: Any, failed: Failed, name: str, size: int) -> None:
        self._objects, self._failed, self._name, self._size, self._position = objects, failed, name, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(start + offset, 0)
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        left = max(self._size - self._position, 0)
        length = left if size is None or size < 0 else min(size, left)
        if not length:
            return b""
        try:
            data = bytes(whole(lambda: obstore.get_range(self._objects, self._name, start=self._position, length=length)))
        except (NotFoundError, FileNotFoundError):
            raise FileNotFoundError(self._name) from None
        except BaseError as error:
            raise self._failed(self._name, error) from None
        self._position += len(data)
        return data


class _Objects(fs.FileSystemHandler):
    """What Arrow asks of a file system, for reading files whose names are known."""

    def __init__(self, objects: Any, failed: Failed) -> None:
        self._objects, self._failed = objects, failed

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Objects) and self._objects is other._objects

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None  # type: ignore[assignment]

    def get_type_name(self) -> str:
        return "ctmr-objects"

    def normalize_path(self, path: str) -> str:
        return path

    def get_file_info(self, paths: Sequence[str]) -> list[fs.FileInfo]:
        return [self._info(path) for path in paths]

    def open_input_file(self, path: str) -> pa.NativeFile:
        info = self._info(path)
        if info.type != fs.FileType.File:
            raise FileNotFoundError(path)
        return pa.PythonFile(_RangeReader(self._objects, self._failed, path, info.size), mode="r")

    def open_input_stream(self, path: str) -> pa.NativeFile:
        return self.open_input_file(path)

    def _info(self, path: str) -> fs.FileInfo:
        try:
            meta = obstore.head(self._objects, path)
        except (NotFoundError, FileNotFoundError):
            return fs.FileInfo(path, fs.FileType.NotFound)
        except BaseError as error:
            raise self._failed(path, error) from None
        return fs.FileInfo(path, fs.FileType.File, size=int(meta["size"]), mtime=meta["last_modified"])

    def _read_only(self, *args: Any, **settings: Any) -> NoReturn:
        raise NotImplementedError("this file system reads files whose names are known, nothing else")

    get_file_info_selector = _read_only
    create_dir = delete_dir = delete_dir_contents = delete_root_dir_contents = _read_only
    delete_file = move = copy_file = open_output_stream = open_append_stream = _read_only
