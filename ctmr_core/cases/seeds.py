"""Random numbers that depend on the case and nothing else.

Every draw comes from a counter-based generator (Philox 4x64) whose key is a hash of (case_key, attempt, stream name).
Streams are independent, so adding a draw to one part of the factory never moves the draws of another, and neither the
number of workers nor their order nor the number of threads can change a byte.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np

_SLAB = 1 << 20  # voxels per independently keyed slab: small enough to share between threads, large enough to be cheap


def _generator(identity: str) -> np.random.Generator:
    key = int.from_bytes(hashlib.sha256(identity.encode()).digest()[:16], "little")
    return np.random.Generator(np.random.Philox(key=key))


def case_rng(case_key: str, attempt: int, stream: str) -> np.random.Generator:
    """The generator of one stream (``"lesions"``, ``"noise/ct"``, ...) of one attempt at a case. Attempt counts from 0."""
    return _generator(f"case|{case_key}|{attempt}|{stream}")


def body_rng(body: str, body_seed: int, stream: str) -> np.random.Generator:
    """The generator of one stream of a parametric person: the same body and body_seed are the same person everywhere."""
    return _generator(f"body|{body}|{body_seed}|{stream}")


def recipe_rng(seed: int, group: str, field: str) -> np.random.Generator:
    """The generator of one field of one group of a recipe: editing one field or group leaves the draws of the others."""
    return _generator(f"recipe|{seed}|{group}|{field}")


def normal_noise(size: tuple[int, ...], case_key: str, attempt: int, stream: str, threads: int = 1) -> np.ndarray:
    """Standard normal noise, float32, C order, of shape ``size``; the same values for any number of ``threads``."""
    noise = np.empty(int(np.prod(size)), np.float32)
    starts = range(0, noise.size, _SLAB)

    def fill(start: int) -> None:
        rng = case_rng(case_key, attempt, f"{stream}#{start}")
        rng.standard_normal(out=noise[start : start + _SLAB], dtype=np.float32)

    if threads > 1 and len(starts) > 1:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(fill, starts))
    else:
        for start in starts:
            fill(start)
    return noise.reshape(size)
