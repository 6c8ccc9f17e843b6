"""Volumes of a set one after the other: a few at a time in memory, however many there are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol, TypeVar

import dask
import numpy as np
import pyarrow as pa

from ctmr_core.anatomy.vocabulary import Vocabulary
from ctmr_core.store import Dataset, Volume

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class Loaded:
    """One volume in memory. images: sequence -> [x, y, z], RAS+ (CT in HU). labels: label map on the same grid, or None.

    spacing: mm per voxel along [x, y, z].
    """

    name: str
    images: dict[str, np.ndarray]
    labels: np.ndarray | None
    vocabulary: Vocabulary | None
    spacing: tuple[float, float, float]


class Volumes(Protocol):
    """A set of volumes that can be had by name: a dataset, or a folder of reference volumes."""

    @property
    def names(self) -> Sequence[str]:
        """What can be loaded, in a fixed order that is random as regards what is in the volumes."""
        ...

    def load(self, name: str, sequences: Sequence[str] | None = None, labels: bool = True) -> Loaded:
        """One volume, with all its sequences or those given that it has."""
        ...


class DatasetVolumes:
    """The accepted cases of a dataset, or the first ``sample`` of them in the order of their case keys (SHA-256: random)."""

    def __init__(self, dataset: Dataset, sample: int | None = None) -> None:
        self.dataset = dataset
        self._names = in_key_order(dataset, sample)

    @property
    def names(self) -> Sequence[str]:
        return self._names

    def load(self, name: str, sequences: Sequence[str] | None = None, labels: bool = True) -> Loaded:
        volume: Volume = self.dataset[name]
        wanted = [sequence for sequence in volume.sequences if sequences is None or sequence in sequences]
        images = {sequence: np.asarray(volume.images[sequence]) for sequence in wanted}
        return Loaded(name, images, np.asarray(volume.labels) if labels else None, volume.vocabulary, volume.spacing)


def in_key_order(dataset: Dataset, sample: int | None = None) -> list[str]:
    """Ids of the accepted cases by case key, the first ``sample`` of them."""
    index = dataset.index
    seen = np.flatnonzero(index.accepted & index.current)
    order = seen[np.lexsort(index.keys[seen].T[::-1])]
    chosen = order if sample is None else order[:sample]
    return list(index.ids.take(pa.array(chosen)).to_pylist())


def mapped(function: Callable[[Item], Result], items: Iterable[Item], workers: int = 2) -> Iterator[Result]:
    """``function`` of every item, in their order; at most ``workers`` are worked on, and as many results wait, at any time."""
    rest = iter(items)
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        while window := list(islice(rest, max(workers, 1))):
            tasks = [dask.delayed(function, pure=False, traverse=False)(item) for item in window]
            results: tuple[Any, ...] = dask.compute(*tasks, scheduler="threads", pool=pool, optimize_graph=False)
            yield from results
