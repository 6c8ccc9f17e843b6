"""Reading one volume: lazy arrays [x, y, z] over the stored voxels.

tensorstore does the reading: it fetches and decodes just the chunks a slice touches, checks their CRC, and raises when
a shard or chunk is missing. tensorstore does not survive ``fork``: loader workers must be spawned.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import cache, cached_property
from typing import Any, Literal

import numpy as np
import tensorstore as ts

from ctmr_core.anatomy.vocabulary import Vocabulary, load_vocabulary
from ctmr_core.errors import IntegrityError, StoreError
from ctmr_core.store.axes import turned
from ctmr_core.store.boxes import damaged_voxels
from ctmr_core.store.storage import Storage, read_json
from ctmr_core.store.volumes import ATTRIBUTES, refuse_fork

#: In object stores documents and shard indices are fetched once per process, not for every read; volumes never change.
_CACHED = {"metadata_cache_pool": "cache_pool#documents", "recheck_cached_metadata": False, "recheck_cached_data": False}
_CACHE_BYTES = 32 << 20


class LazyArray:
    """A stored array [x, y, z], RAS+, that reads what is sliced: ``array[10:74, :, 5]``, ``np.asarray(array)``.

    Slicing follows numpy (integers, slices, ``...``, negative numbers) and gives a numpy array whose memory runs as on disk, x
    fastest (Fortran order): a third of the time of turning it round. Raises ``IntegrityError`` when stored bytes are missing or
    damaged. Can be pickled; opened on first use. cache_bytes: decoded chunks kept in memory by all arrays of the process that
    were given the same number.
    """

    def __init__(self, storage: Storage, path: str, cache_bytes: int = 0) -> None:
        self._storage = storage
        self.path = path
        self._cache_bytes = cache_bytes

    def __repr__(self) -> str:
        return f"LazyArray({self._storage.uri}/{self.path}, {self.shape}, {self.dtype})"

    def __getstate__(self) -> dict[str, Any]:
        return {"_storage": self._storage, "path": self.path, "_cache_bytes": self._cache_bytes}

    @cached_property
    def _array(self) -> ts.TensorStore:
        refuse_fork()
        spec = {
            "driver": "zarr3",
            "kvstore": self._storage.kvstore(self.path),
            "fill_missing_data_reads": False,  # a lost shard must not read as air
        }
        shared = self._storage.kvstore_context()
        if self._cache_bytes:
            spec |= {"cache_pool": "cache_pool#voxels", "recheck_cached_data": False}
        context = _context(json.dumps(shared), self._cache_bytes) if shared or self._cache_bytes else None
        try:
            return ts.open((_CACHED if shared else {}) | spec, open=True, read=True, context=context).result().T
        except ValueError as error:
            raise self._damaged(error) from error

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along [x, y, z]."""
        x, y, z = self._array.shape
        return (x, y, z)

    @property
    def dtype(self) -> np.dtype:
        """dtype of the voxels."""
        return np.dtype(self._array.dtype.numpy_dtype)

    @property
    def ndim(self) -> int:
        return 3

    @property
    def size(self) -> int:
        """Number of voxels."""
        return int(np.prod(self.shape))

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[x] for x in range(len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("a stored array can not be had without a copy")
        voxels = self[...]
        return voxels if dtype is None else voxels.astype(dtype, copy=False)

    def __getitem__(self, index: Any) -> np.ndarray:
        return self.read(index)

    def read(self, index: Any = ..., order: Literal["C", "F"] = "F") -> np.ndarray:
        """``self[index]`` in the memory order asked for; "F" is how it is stored, "C" costs a copy."""
        return self.begin(index, order)()

    def begin(self, index: Any = ..., order: Literal["C", "F"] = "F") -> Callable[[], np.ndarray]:
        """Start reading ``self[index]`` and go on: what is returned waits for the voxels when it is called. Many reads that were
        begun run side by side.
        """
        forward, flips = _normalised(index, self.shape)
        refuse_fork()
        reading = self._array[forward].read(order="F")
        return lambda: self._finished(reading, flips, order)

    def _finished(self, reading: ts.Future, flips: tuple[slice, ...], order: Literal["C", "F"]) -> np.ndarray:
        try:
            voxels: np.ndarray = reading.result()
        except ValueError as error:
            raise self._damaged(error) from error
        if any(step.step == -1 for step in flips):
            voxels = voxels[flips].copy(order="F")
        if order == "F" or voxels.flags.c_contiguous:
            return voxels
        return turned(voxels.T) if voxels.ndim == 3 else np.ascontiguousarray(voxels)

    def _damaged(self, error: Exception) -> StoreError:
        return self._storage.kvstore_failed(self.path, error) or damaged_voxels(
            f"{self._storage.uri}/{self.path}", str(error).split(" [source", maxsplit=1)[0]
        )


@cache
def _context(shared: str, cache_bytes: int) -> ts.Context:
    """Connections, credentials and caches (documents of object stores; decoded chunks if asked for), shared by a process."""
    pools = {_CACHED["metadata_cache_pool"]: _CACHE_BYTES, "cache_pool#voxels": cache_bytes}
    return ts.Context({**json.loads(shared), **{name: {"total_bytes_limit": limit} for name, limit in pools.items()}})


class Images(Mapping[str, LazyArray]):
    """sequence -> lazy int16 image [x, y, z] (CT in HU, MR in arbitrary units)."""

    def __init__(self, storage: Storage, path: str, sequences: tuple[str, ...]) -> None:
        self._storage = storage
        self._path = path
        self._sequences = sequences

    def __getitem__(self, sequence: str) -> LazyArray:
        if sequence not in self._sequences:
            raise KeyError(f"{sequence!r} is not a sequence of this volume; it has {', '.join(self._sequences)}")
        return LazyArray(self._storage, f"{self._path}/{sequence}/0")

    def __iter__(self) -> Iterator[str]:
        return iter(self._sequences)

    def __len__(self) -> int:
        return len(self._sequences)


class Volume:
    """One case's images and label map.

    case_id: which case. path: folder of the volume below the dataset.
    """

    def __init__(self, storage: Storage, case_id: str, path: str) -> None:
        self._storage = storage
        self.case_id = case_id
        self.path = path

    def __repr__(self) -> str:
        return f"Volume({self.case_id!r}, sequences={self.sequences}, size={self.labels.shape}, spacing={self.spacing})"

    @cached_property
    def attributes(self) -> dict[str, Any]:
        """What was stored with the volume (``ctmr`` of its root group)."""
        try:
            document = read_json(self._storage, f"{self.path}/zarr.json")
            return dict(document["attributes"][ATTRIBUTES])
        except (FileNotFoundError, KeyError) as error:
            raise IntegrityError(
                "the volume's root document is missing or incomplete",
                where=f"case {self.case_id}, {self._storage.uri}/{self.path}/zarr.json",
                fix="run `ctmr verify` on the dataset; it names every damaged case",
            ) from error

    @property
    def images(self) -> Images:
        """sequence -> lazy image."""
        return Images(self._storage, self.path, self.sequences)

    @property
    def labels(self) -> LazyArray:
        """The label map: lazy [x, y, z], ids of ``vocabulary``."""
        return LazyArray(self._storage, f"{self.path}/labels/{self.attributes['vocabulary']}/0")

    @property
    def sequences(self) -> tuple[str, ...]:
        """The sequences it has, in the order of the manifest."""
        return tuple(self.attributes["sequences"])

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """What the label ids mean."""
        return load_vocabulary(self.attributes["vocabulary"])

    @property
    def spacing(self) -> tuple[float, float, float]:
        """mm per voxel along [x, y, z]."""
        x, y, z = self.attributes["spacing"]
        return (x, y, z)

    @property
    def affine(self) -> np.ndarray:
        """4x4 float64, voxel index -> RAS+ mm."""
        return np.asarray(self.attributes["affine"], np.float64)

    @property
    def url(self) -> str:
        """Where it is, for zarr, napari and others."""
        return f"{self._storage.uri}/{self.path}"

    def arrays(self) -> dict[str, LazyArray]:
        """Array path below the volume -> lazy array, of every image and the label map."""
        found = {f"{sequence}/0": self.images[sequence] for sequence in self.sequences}
        found[f"labels/{self.attributes['vocabulary']}/0"] = self.labels
        return found


def _normalised(index: Any, shape: tuple[int, ...]) -> tuple[tuple[Any, ...], tuple[slice, ...]]:
    """A numpy basic index as one tensorstore takes (no negative numbers), and flips for what was sliced backwards."""
    items = index if isinstance(index, tuple) else (index,)
    if sum(item is Ellipsis for item in items) > 1:
        raise IndexError("an index can only have one ellipsis")
    given = len(items) - (Ellipsis in [item for item in items if item is Ellipsis])
    if given > len(shape):
        raise IndexError(f"too many indices: the array has {len(shape)} axes, {given} were given")
    if not any(item is Ellipsis for item in items):
        items = (*items, Ellipsis)
    where = next(i for i, item in enumerate(items) if item is Ellipsis)
    items = (*items[:where], *[slice(None)] * (len(shape) - given), *items[where + 1 :])
    forward: list[Any] = []
    flips: list[slice] = []
    for item, n in zip(items, shape, strict=True):
        if isinstance(item, slice):
            start, stop, step = item.indices(n)
            count = len(range(start, stop, step))
            if count == 0:
                start, step = 0, 1
            elif step < 0:
                start, step = start + (count - 1) * step, -step
                flips.append(slice(None, None, -1))
                forward.append(slice(start, start + (count - 1) * step + 1, step))
                continue
            forward.append(slice(start, start + (count - 1) * step + 1 if count else start, step))
            flips.append(slice(None))
        elif isinstance(item, (int, np.integer)) and not isinstance(item, bool):
            if not -n <= item < n:
                raise IndexError(f"index {item} is out of bounds for an axis of {n}")
            forward.append(int(item) % n)
        else:
            raise IndexError(f"a stored array takes integers, slices and '...'; convert with np.asarray first, got {item!r}")
    return tuple(forward), tuple(flips)
