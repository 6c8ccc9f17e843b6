"""Boxes of stored voxels, read from the shards of a folder in the calling thread.

For loaders of training data, which read small boxes of many volumes in many processes: no other thread takes part, and every
chunk is decoded into a buffer that stays in the processor's cache. What is read is what :mod:`~ctmr_core.store.volumes` writes:
shards (Zarr v3 codec ``sharding_indexed``) of Blosc chunks with a CRC-32C each.
"""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from ctmr_core.errors import IntegrityError
from ctmr_core.store.axes import buffer, turn_into
from ctmr_core.store.storage import Storage

_DTYPES: dict[str, np.dtype] = {"uint8": np.dtype("u1"), "uint16": np.dtype("<u2"), "int16": np.dtype("<i2")}
_CODECS, _INDEX_CODECS = ["bytes", "blosc", "crc32c"], ["bytes", "crc32c"]
_CRC = 4  # bytes
#: CRC-32C of anything with its own CRC-32C behind it: the inverse of CRC-32/ISCSI's residue in the RevEng catalogue, 0xb798b438.
_RESIDUE = 0x48674BC7
_ABSENT = (1 << 64) - 1  # offset of a chunk that was never written (specification of sharding_indexed)
_BLOSC_HEADER = 16  # bytes; those from 4 to 8 are the size of what was compressed (Blosc 1 format)

Index = tuple[int, ...]


@dataclass(frozen=True)
class _Grid:
    """How an array is cut up, all [z, y, x]. per_shard: chunks of a shard. separator: between the indices in its name."""

    shape: Index
    dtype: np.dtype
    chunk: Index
    per_shard: Index
    separator: str


@dataclass(frozen=True)
class _Piece:
    """A stored chunk. file: of its shard. place: index of the chunk in the array."""

    file: Path
    offset: int
    length: int
    place: Index


class BoxReader:
    """Reads boxes of an array in a folder. Every read opens the files it needs, so that a reader costs nothing to keep."""

    def __init__(self, storage: Storage, path: str, folder: Path, grid: _Grid) -> None:
        self._where = f"{storage.uri}/{path}"
        self._folder = folder
        self._grid = grid

    @classmethod
    def of(cls, storage: Storage, path: str) -> BoxReader | None:
        """A reader of the array ``path`` of a dataset; None when it is not in a folder, or not stored as volumes are today.

        Raises ``IntegrityError`` when its document can't be read.
        """
        folder = storage.local_path(path)
        if folder is None:
            return None
        try:
            grid = _grid((folder / "zarr.json").read_bytes())
        except (OSError, ValueError) as error:
            raise damaged_voxels(f"{storage.uri}/{path}", f"zarr.json: {error}") from error
        return None if grid is None else cls(storage, path, folder, grid)

    def begin(self, box: tuple[slice, slice, slice]) -> Callable[[np.ndarray], None]:
        """Tell the file system which bytes of a box will be wanted; what is returned reads them into an array.

        box: slices [x, y, z] with start and stop within the array, steps of 1. The array is [x, y, z], of any dtype and memory
        order. Raises ``IntegrityError`` when stored bytes are missing or damaged, here or then.
        """
        cut = tuple((part.start, part.stop) for part in reversed(box))
        pieces = self._pieces(cut)
        return lambda out: turn_into(out, self._read(cut, pieces))

    def _pieces(self, cut: tuple[tuple[int, int], ...]) -> list[_Piece]:
        """The chunks that a box touches."""
        grid = self._grid
        if any(stop <= start for start, stop in cut):
            return []
        shards: dict[Index, list[Index]] = {}
        for place in itertools.product(*(range(a // n, (b - 1) // n + 1) for (a, b), n in zip(cut, grid.chunk, strict=True))):
            shards.setdefault(tuple(i // n for i, n in zip(place, grid.per_shard, strict=True)), []).append(place)
        return [piece for shard, places in shards.items() for piece in self._pieces_of(shard, places)]

    def _pieces_of(self, shard: Index, places: list[Index]) -> list[_Piece]:
        """Where the chunks ``places`` lie in their shard."""
        file = self._folder / self._grid.separator.join(("c", *map(str, shard)))
        per_shard = self._grid.per_shard
        try:
            handle = os.open(file, os.O_RDONLY)
        except OSError as error:
            raise damaged_voxels(self._where, f"{file.name}: {error.strerror}") from error
        try:
            index = self._index(handle, file)
            pieces = []
            for place in places:
                entry = index[np.ravel_multi_index(tuple(i % n for i, n in zip(place, per_shard, strict=True)), per_shard)]
                offset, length = int(entry[0]), int(entry[1])
                if offset == _ABSENT:
                    raise damaged_voxels(self._where, f"{file.name}: chunk {place} [z, y, x] is missing")
                pieces.append(_Piece(file, offset, length, place))
            _will_need(handle, pieces)
        finally:
            os.close(handle)
        return pieces

    def _index(self, handle: int, file: Path) -> np.ndarray:
        """uint64 [chunks, 2]: offset and length of every chunk of a shard."""
        length = 16 * math.prod(self._grid.per_shard) + _CRC
        size = os.fstat(handle).st_size
        data = os.pread(handle, length, max(size - length, 0))
        self._refuse_damage(data, length, f"{file.name}: index")
        return np.frombuffer(data, "<u8", count=(length - _CRC) // 8).reshape(-1, 2)

    def _read(self, cut: tuple[tuple[int, int], ...], pieces: list[_Piece]) -> np.ndarray:
        """The voxels of a box [z, y, x], in memory that the next read of this thread uses again."""
        grid = self._grid
        shape = [stop - start for start, stop in cut]
        voxels = buffer("box", math.prod(shape) * grid.dtype.itemsize).view(grid.dtype).reshape(shape)
        chunk = buffer("chunk", math.prod(grid.chunk) * grid.dtype.itemsize)
        decoded = chunk.view(grid.dtype).reshape(grid.chunk)
        for file, mine in itertools.groupby(pieces, key=lambda piece: piece.file):
            try:
                handle = os.open(file, os.O_RDONLY)
            except OSError as error:
                raise damaged_voxels(self._where, f"{file.name}: {error.strerror}") from error
            try:
                for piece in mine:
                    self._decode(handle, piece, chunk)
                    target, source = _overlap(cut, piece.place, grid.chunk)
                    voxels[target] = decoded[source]
            finally:
                os.close(handle)
        return voxels

    def _decode(self, handle: int, piece: _Piece, out: np.ndarray) -> None:
        """Decode a chunk into ``out`` (uint8, as long as the chunk)."""
        from numcodecs import blosc

        data = os.pread(handle, piece.length, piece.offset)
        what = f"{piece.file.name}: chunk {piece.place} [z, y, x]"
        self._refuse_damage(data, max(piece.length, _BLOSC_HEADER + _CRC), what)
        if int.from_bytes(data[4:8], "little") != len(out):
            raise damaged_voxels(self._where, f"{what} has another size")
        try:
            blosc.decompress(memoryview(data)[:-_CRC], out)
        except (RuntimeError, ValueError) as error:
            raise damaged_voxels(self._where, f"{what}: {error}") from error

    def _refuse_damage(self, data: bytes, length: int, what: str) -> None:
        """Unless ``data`` is as long as it should be and ends with its own CRC-32C."""
        import google_crc32c

        if len(data) != length:
            raise damaged_voxels(self._where, f"{what} ends after {len(data)} of {length} bytes")
        if google_crc32c.value(data) != _RESIDUE:
            raise damaged_voxels(self._where, f"{what} has another CRC-32C than it was stored with")


def damaged_voxels(where: str, found: str) -> IntegrityError:
    """What readers raise for missing or damaged voxels. where: URI of the array."""
    return IntegrityError(
        "stored voxels are missing or damaged",
        where=where,
        found=found,
        fix="run `ctmr verify` on the dataset; it names every damaged case",
    )


@lru_cache(maxsize=256)
def _grid(document: bytes) -> _Grid | None:
    """What ``zarr.json`` says, None if the array is coded in another way; arrays of one size share their document."""
    array = json.loads(document)
    try:
        (shards,) = array["codecs"]
        coding = shards["configuration"]
        names = [[codec["name"] for codec in coding[key]] for key in ("codecs", "index_codecs")]
        known = (
            shards["name"] == "sharding_indexed"
            and names == [_CODECS, _INDEX_CODECS]
            and coding.get("index_location", "end") == "end"
            and array["chunk_key_encoding"]["name"] == "default"
            and coding["codecs"][0].get("configuration", {}).get("endian", "little") == "little"
        )
        if not known or array["data_type"] not in _DTYPES:
            return None
        chunk = tuple(coding["chunk_shape"])
        shard = array["chunk_grid"]["configuration"]["chunk_shape"]
        separator = array["chunk_key_encoding"].get("configuration", {}).get("separator", "/")
        return _Grid(
            tuple(array["shape"]),
            _DTYPES[array["data_type"]],
            chunk,
            tuple(a // b for a, b in zip(shard, chunk, strict=True)),
            separator,
        )
    except (KeyError, TypeError, ValueError):
        return None


def _overlap(cut: Sequence[tuple[int, int]], place: Index, chunk: Index) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Where a chunk lies in a box, and which part of the chunk that is."""
    target, source = [], []
    for (start, stop), i, n in zip(cut, place, chunk, strict=True):
        low, high = max(start, i * n), min(stop, (i + 1) * n)
        target.append(slice(low - start, high - start))
        source.append(slice(low - i * n, high - i * n))
    return tuple(target), tuple(source)


def _will_need(handle: int, pieces: list[_Piece]) -> None:
    """Let the kernel fetch just these bytes while this process does something else; macOS has no such call."""
    advise = getattr(os, "posix_fadvise", None)
    if advise is None:
        return
    for piece in pieces:
        advise(handle, piece.offset, piece.length, os.POSIX_FADV_WILLNEED)
