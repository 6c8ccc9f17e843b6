"""Batches of items of equal size, the same for any number of workers and ranks, resumable after any batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, default_collate

from ctmr_core.errors import LearningError
from ctmr_core.learning.training import TrainingSettings, ranks

Key = tuple[int, int]
"""Epoch and index of an item: what a dataset of :class:`SizedBatches` is asked for."""


class Items(Dataset[dict[str, Any]], ABC):
    """Items of one size can be stacked. Asked for ``(epoch, index)``, so that random changes differ between epochs."""

    sizes: Sequence[Hashable]

    @abstractmethod
    def __getitem__(self, key: Key) -> dict[str, Any]: ...

    def __len__(self) -> int:
        return len(self.sizes)


class SizedBatches:
    """Batches of items whose sizes agree; a batch that would stay short is filled up with items of its size from the beginning.

    Every epoch has all items, in an order that depends on seed and epoch alone. ``batch_size`` of the settings is shared by ranks
    and parts of an update; :class:`ctmr_core.learning.training.Batches`.
    """

    def __init__(self, items: Items, settings: TrainingSettings, seed: int) -> None:
        shares = settings.accumulate * ranks.ranks()
        if settings.batch_size % shares:
            raise LearningError(
                "a batch can't be shared evenly",
                where="field training.batch_size",
                found=settings.batch_size,
                allowed=f"multiples of {shares} (accumulate x ranks)",
            )
        self._items = items
        self._together = settings.batch_size // settings.accumulate
        self._workers = settings.workers
        self._seed = seed
        self._epoch = self._done = 0

    def __iter__(self) -> Iterator[Any]:
        plan = [batch[ranks.rank() :: ranks.ranks()] for batch in self.plan(self._epoch)[self._done :]]
        several: dict[str, Any] = {"multiprocessing_context": "spawn"} if self._workers else {}
        loader = DataLoader(self._items, batch_sampler=plan, num_workers=self._workers, collate_fn=default_collate, **several)
        for batch in loader:
            self._done += 1
            yield batch
        self._epoch, self._done = self._epoch + 1, 0

    def plan(self, epoch: int) -> list[list[Key]]:
        """The batches of an epoch, over all ranks."""
        rng = np.random.Generator(np.random.Philox(key=[self._seed, epoch]))
        order = rng.permutation(len(self._items)).tolist()
        waiting: dict[Hashable, list[Key]] = {}
        first: dict[Hashable, list[Key]] = {}
        batches = []
        for index in order:
            size = self._items.sizes[index]
            key = (epoch, index)
            first.setdefault(size, []).append(key)
            waiting.setdefault(size, []).append(key)
            if len(waiting[size]) == self._together:
                batches.append(waiting.pop(size))
        for size, batch in waiting.items():
            missing = self._together - len(batch)
            batches.append(batch + [first[size][place % len(first[size])] for place in range(missing)])
        return batches

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self._epoch, "done": self._done, "items": len(self._items), "together": self._together}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        here = self.state_dict()
        for name in ("items", "together"):
            if state[name] != here[name]:
                raise LearningError(f"the training had other batches ({name})", found=here[name], allowed=str(state[name]))
        self._epoch, self._done = int(state["epoch"]), int(state["done"])


def to_device(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Tensors on the device, everything else as it is."""
    return {name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in batch.items()}
