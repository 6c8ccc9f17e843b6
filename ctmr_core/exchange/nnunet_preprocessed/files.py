"""The three files of a preprocessed case: ``<case>.b2nd``, ``<case>_seg.b2nd`` and ``<case>.pkl``."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ctmr_core.exchange.registry import needs

BLOCK_BYTES = 128 * 1024  # nnU-Net's limits: what is decompressed at once fits into a core's cache
CHUNK_BYTES = 6 * 1024**2
_BEYOND_PATCH = 1.5  # a chunk is no longer along any axis than this times the patch
_LEVEL = 5
_PICKLE = 4  # the protocol every Python 3.8 and later writes and reads

Location = tuple[int, int, int, int]


def write_array(path: Path, array: np.ndarray, patch: Sequence[int]) -> None:
    """Write [channel, z, y, x] as Blosc2 (LZ4HC, level 5, shuffled if that is smaller), cut for patches of [z, y, x]."""
    try:
        import blosc2
    except ImportError as error:
        raise needs("blosc2") from error
    path.parent.mkdir(parents=True, exist_ok=True)
    blocks, chunks = block_and_chunk(array.shape, patch, array.itemsize)
    codec = {"codec": blosc2.Codec.LZ4HC, "clevel": _LEVEL, "nthreads": 1}
    middle = tuple(slice((size - edge) // 2, (size - edge) // 2 + edge) for size, edge in zip(array.shape, chunks, strict=True))
    sample = np.ascontiguousarray(array[middle])

    def size_of(which: Any) -> int:
        packed = blosc2.asarray(sample, chunks=sample.shape, blocks=blocks, cparams={**codec, "filters": [which]})
        return int(packed.schunk.cbytes)

    best = min((blosc2.Filter.NOFILTER, blosc2.Filter.SHUFFLE), key=size_of)
    blosc2.asarray(
        np.ascontiguousarray(array), urlpath=str(path), chunks=chunks, blocks=blocks, cparams={**codec, "filters": [best]}
    )


def block_and_chunk(shape: Sequence[int], patch: Sequence[int], item_bytes: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Blocks of powers of two, as near to cubes as the limit allows, and chunks of whole blocks about as large as a patch.

    Both within ``shape`` [channel, z, y, x] and one channel deep.
    """
    limit = [max(1, min(size, int(_BEYOND_PATCH * edge))) for size, edge in zip(shape[1:], patch, strict=True)]
    block = [1, 1, 1]
    while True:
        grown = [axis for axis in range(3) if 2 * block[axis] <= limit[axis]]
        axis = min(grown, key=lambda one: (block[one], -one), default=None)
        if axis is None or 2 * int(np.prod(block)) * item_bytes > BLOCK_BYTES:
            break
        block[axis] *= 2
    chunk = list(block)
    while True:
        grown = [
            axis
            for axis in range(3)
            if chunk[axis] + block[axis] <= limit[axis]
            and int(np.prod(chunk)) // chunk[axis] * (chunk[axis] + block[axis]) * item_bytes <= CHUNK_BYTES
        ]
        if not grown:
            break
        axis = min(grown, key=lambda one: (chunk[one] / limit[one], -one))
        chunk[axis] += block[axis]
    return (1, *block), (1, *chunk)


def class_locations(
    labels: np.ndarray, classes: Iterable[int | tuple[int, ...]], most: int, rng: np.random.Generator
) -> dict[Any, list[Location]]:
    """Class or region -> places (0, z, y, x) of up to ``most`` of its voxels in the label map [z, y, x], none twice."""
    flat = labels.ravel()
    foreground = np.flatnonzero(flat > 0)
    ordered = foreground[np.argsort(flat[foreground], kind="stable")]
    ends = np.cumsum(np.bincount(flat[foreground], minlength=int(labels.max(initial=0)) + 1))
    found: dict[Any, list[Location]] = {}
    for wanted in classes:
        members = wanted if isinstance(wanted, tuple) else (wanted,)
        places = np.concatenate([ordered[ends[one - 1] : ends[one]] if one < len(ends) else ordered[:0] for one in members])
        if places.size > most:
            places = places[np.sort(rng.choice(places.size, most, replace=False, shuffle=False))]
        z, y, x = (axis.tolist() for axis in np.unravel_index(places, labels.shape))
        found[wanted] = [(0, *place) for place in zip(z, y, x, strict=True)]
    return found


def write_properties(path: Path, properties: Mapping[str, Any]) -> None:
    """Write the pickle that nnU-Net reads: dictionaries, lists, tuples, numbers and text only, so no code runs on reading."""
    path.write_bytes(pickle.dumps(dict(properties), protocol=_PICKLE))
