"""Comparing case keys by the million.

A case key is a SHA-256 in 64 hex digits. Four unsigned 64-bit numbers in its place are matched several times as fast as strings.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ctmr_core.errors import StoreError

_WORDS = 4


def key_numbers(keys: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """uint64 [keys, 4]: every key as four numbers. ``StoreError`` when one isn't 64 hex digits."""
    lengths = pc.unique(pc.binary_length(keys)).to_pylist()
    try:
        if lengths not in ([], [16 * _WORDS]):
            raise ValueError
        chunks = keys.chunks if isinstance(keys, pa.ChunkedArray) else [keys]
        raw = b"".join(bytes.fromhex(_characters(chunk)) for chunk in chunks)
        return np.frombuffer(raw, ">u8").astype(np.uint64).reshape(-1, _WORDS)
    except ValueError:
        bad = pc.filter(keys, pc.invert(pc.match_substring_regex(keys, "^[0-9a-f]{64}$").fill_null(False)))
        raise StoreError("a case key is a SHA-256", found=bad[0].as_py(), allowed="64 lower-case hex digits") from None


def key_texts(keys: np.ndarray) -> pa.Array:
    """The keys (from :func:`key_numbers`) as 64 hex digits each."""
    text = np.ascontiguousarray(keys, ">u8").tobytes().hex()
    return pa.array([text[i : i + 16 * _WORDS] for i in range(0, len(text), 16 * _WORDS)], pa.string())


def first_words(digits: Iterable[str]) -> np.ndarray:
    """uint64: the first number of each key, from its first 16 hex digits. ``ValueError`` when they are something else."""
    raw = bytes.fromhex("".join(digits))
    return np.frombuffer(raw, ">u8").astype(np.uint64)


def find_keys(wanted: np.ndarray, among: np.ndarray) -> np.ndarray:
    """int64 [wanted]: where each key first stands in ``among`` (both from :func:`key_numbers`), -1 where it does not."""
    place = pc.index_in(pa.array(wanted[:, 0]), value_set=pa.array(among[:, 0])).fill_null(-1)
    found = np.asarray(place).astype(np.int64)
    hits = np.flatnonzero(found >= 0)
    same = (wanted[hits] == among[found[hits]]).all(axis=1)
    found[hits[~same]] = -1
    return found


def all_distinct(keys: np.ndarray) -> bool:
    """Whether no two keys (from :func:`key_numbers`) are equal."""
    ordered = np.sort(keys[:, 0])
    return not (ordered[1:] == ordered[:-1]).any()


def _characters(chunk: pa.Array) -> str:
    if chunk.null_count:
        raise ValueError("null")
    offsets = np.frombuffer(chunk.buffers()[1], np.int32)[chunk.offset : chunk.offset + len(chunk) + 1]
    data = chunk.buffers()[2]
    return str(memoryview(data)[offsets[0] : offsets[-1]], "ascii") if data is not None and len(chunk) else ""
