"""Random numbers of training that depend on (seed, epoch, item) and nothing else: not on workers, ranks or order."""

from __future__ import annotations

from typing import Any

import numpy as np

_MASK = (1 << 64) - 1


def item_rng(seed: int, epoch: int, item: int, stream: int = 0) -> np.random.Generator:
    """The generator of one item of one epoch: counter-based (Philox 4x64), so that making it costs microseconds.

    stream: another, independent generator for the same item.
    """
    key = np.array([seed & _MASK, 0x63746D72], np.uint64)
    # the lowest word counts the draws; what is above it are the coordinates of the item
    counter = np.array([0, item & _MASK, epoch & _MASK, stream & _MASK], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


def seed_transform(transform: Any, rng: np.random.Generator) -> None:
    """Make the random transforms of MONAI (``Randomizable``, ``Compose``) draw what ``rng`` says; others are left alone."""
    set_state = getattr(transform, "set_random_state", None)
    if callable(set_state):
        set_state(seed=int(rng.integers(0, 2**32)))
