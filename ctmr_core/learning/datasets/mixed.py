"""Several datasets as one, by ratio: real with synthetic cases, bodies with heads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from ctmr_core.errors import LearningError
from ctmr_core.learning.datasets.draws import item_rng
from ctmr_core.learning.datasets.epochs import EpochDataset, Item

_CHOICE_STREAM = 4  # not that of the sources: with the same seed, their first draw would always be that of the choice


class Mixed(EpochDataset):
    """Each item comes from one of ``sources``, drawn by their ratios and (seed, epoch, item).

    sources: (dataset, ratio) pairs; a dataset is an ``EpochDataset`` (``PatchDataset``, ``OnlineDataset``) or any other map-style
    dataset, for example ``monai.data.Dataset`` over real scans, of which a random item is taken. ratios need not add up to 1.
    items: an epoch, default so that every source has been drawn from as often as it has items, on average.
    """

    def __init__(
        self,
        sources: Sequence[tuple[torch.utils.data.Dataset[Any], float]],
        *,
        items: int | None = None,
        seed: int = 0,
        transform: Callable[[Item], Any] | None = None,
    ) -> None:
        ratios = np.array([ratio for _, ratio in sources], np.float64)
        if not len(ratios) or not np.isfinite(ratios).all() or (ratios < 0).any() or not ratios.sum():
            raise LearningError("ratios are numbers of 0 or more, one of them above 0", found=ratios.tolist())
        self.sources = [source for source, _ in sources]
        self.ratios = ratios / ratios.sum()
        self._ends = np.cumsum(self.ratios) / np.cumsum(self.ratios)[-1]
        lengths = [len(source) for source in self.sources]  # type: ignore[arg-type]
        empty = [number for number, (n, ratio) in enumerate(zip(lengths, ratios, strict=True)) if ratio and not n]
        if empty:
            raise LearningError("a dataset to mix is empty", where=f"sources[{empty[0]}]")
        needed = [n / ratio for n, ratio in zip(lengths, self.ratios, strict=True) if ratio]
        super().__init__(items if items is not None else int(np.ceil(max(needed))), seed, transform)

    @property
    def identity(self) -> str:
        parts = [
            source.identity if isinstance(source, EpochDataset) else f"{len(source)} items"  # type: ignore[arg-type]
            for source in self.sources
        ]
        return f"seed {self.seed}, {self.items} items of {list(zip(parts, self.ratios.tolist(), strict=True))}"

    def source_of(self, epoch: int, item: int) -> int:
        """Which source an item comes from."""
        return self._drawn(epoch, item)[0]

    def begin(self, epoch: int, item: int) -> Callable[[], Item]:
        number, rng = self._drawn(epoch, item)
        source = self.sources[number]
        if isinstance(source, EpochDataset):
            return source.begin_transformed(epoch, item)
        place = int(rng.integers(len(source)))  # type: ignore[arg-type]
        return lambda: source[place]

    def _drawn(self, epoch: int, item: int) -> tuple[int, np.random.Generator]:
        rng = item_rng(self.seed, epoch, item, _CHOICE_STREAM)
        number = int(np.searchsorted(self._ends, rng.random(), "right"))
        return min(number, len(self.sources) - 1), rng
