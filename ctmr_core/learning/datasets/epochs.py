"""The base of what is trained on: items that depend on (seed, epoch, item), whoever asks for them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch

from ctmr_core.errors import LearningError
from ctmr_core.learning.datasets.draws import item_rng, seed_transform
from ctmr_core.learning.datasets.processes import Process

Item = dict[str, Any]
_TRANSFORM_STREAM = 1


class EpochDataset(torch.utils.data.Dataset[Any]):
    """Map-style dataset of ``items`` items an epoch; ``dataset[i]`` is item i of the current epoch (:meth:`set_epoch`).

    transform: called with every item, for example a ``monai.transforms.Compose`` of dictionary transforms; random ones of MONAI
    draw by (seed, epoch, item) as well.
    """

    def __init__(self, items: int, seed: int, transform: Callable[[Item], Any] | None) -> None:
        if items < 1:
            raise LearningError("an epoch has at least one item", found=items)
        self.items = items
        self.seed = seed
        self.transform = transform
        self._process = Process()
        self._epoch = torch.zeros(1, dtype=torch.int64).share_memory_()  # workers that stay see the next epoch begin

    @property
    def epoch(self) -> int:
        """The current epoch, from 0."""
        return int(self._epoch[0])

    def set_epoch(self, epoch: int) -> None:
        """Go to an epoch, in this process and in the workers that have this dataset."""
        self._epoch[0] = epoch

    @property
    @abstractmethod
    def identity(self) -> str:
        """What the items depend on, as text: a run is only resumed with the same."""

    @abstractmethod
    def begin(self, epoch: int, item: int) -> Callable[[], Item]:
        """Start making an item (before its transform); what is returned waits for it."""

    def item(self, epoch: int, item: int) -> Any:
        """Item ``item`` (from 0) of an epoch."""
        return self.chosen(epoch, [item])[0]

    def chosen(self, epoch: int, items: Sequence[int]) -> list[Any]:
        """Some items of an epoch, read side by side."""
        self._process.refuse_fork()
        begun = [self.begin_transformed(epoch, item) for item in items]
        return [wait() for wait in begun]

    def begin_transformed(self, epoch: int, item: int) -> Callable[[], Any]:
        """Like :meth:`begin`, with the transform at the end."""
        wait = self.begin(epoch, item)
        if self.transform is None:
            return wait
        transform = self.transform

        def transformed() -> Any:
            value = wait()
            seed_transform(transform, item_rng(self.seed, epoch, item, _TRANSFORM_STREAM))
            return transform(value)

        return transformed

    def __len__(self) -> int:
        return self.items

    def __getitem__(self, item: int) -> Any:
        return self.__getitems__([item])[0]

    def __getitems__(self, items: list[int]) -> list[Any]:
        for item in items:
            if not 0 <= item < self.items:
                raise IndexError(f"item {item} of an epoch of {self.items}")
        return self.chosen(self.epoch, items)
