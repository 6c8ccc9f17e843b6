"""Items in the order of training: sharded over ranks and workers, and resumable."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from typing import Any

import torch

from ctmr_core.errors import LearningError
from ctmr_core.learning.datasets.epochs import EpochDataset


class PatchStream(torch.utils.data.IterableDataset[Any]):
    """One epoch of ``source`` each time it is iterated; then the next epoch.

    Batch b of rank r of w ranks is items ``(b * w + r) * batch_size`` and following: the batches of all ranks together are the
    same for any number of ranks whose batches together are as large, and each rank's the same for any number of workers (batch b
    comes from worker b modulo workers, and PyTorch collects from them in turn). What does not fill a batch on every rank is
    left out. Give the ``DataLoader`` the same ``batch_size``; :func:`~ctmr_core.learning.datasets.loader` does.

    rank, ranks: default those of ``torch.distributed`` (or RANK and WORLD_SIZE of the environment), else one.
    """

    def __init__(self, source: EpochDataset, batch_size: int = 1, *, rank: int | None = None, ranks: int | None = None) -> None:
        here, several = _place(rank, ranks)
        if batch_size < 1 or several < 1 or not 0 <= here < several:
            raise LearningError("no such share of the items", found=f"rank {here} of {several}, batches of {batch_size}")
        self.source = source
        self.batch_size = batch_size
        self.rank = here
        self.ranks = several
        if not self.batches:
            raise LearningError(
                "an epoch has fewer items than one batch of every rank",
                found=len(source),
                allowed=f"{batch_size * several} or more",
                fix="give the dataset more items an epoch, or make the batches smaller",
            )
        self._next = (0, 0)
        self._begin = torch.zeros(2, dtype=torch.int64).share_memory_()  # where workers that stay begin, see begin_here

    @property
    def batches(self) -> int:
        """Batches an epoch on every rank."""
        return len(self.source) // (self.batch_size * self.ranks)

    def __len__(self) -> int:
        return self.batches * self.batch_size

    @property
    def position(self) -> tuple[int, int]:
        """(epoch, batch) that comes next."""
        return self._next

    def begin_here(self) -> tuple[int, int]:
        """Let the workers begin at :attr:`position`, which moves on with the training while they are still starting."""
        self._begin[0], self._begin[1] = self._next
        return self._next

    def move_to(self, epoch: int, batch: int) -> None:
        """Go on from there; batches behind the last of an epoch are the next epoch's first."""
        self._next = (epoch + 1, 0) if batch >= self.batches else (epoch, batch)
        self.source.set_epoch(self._next[0])

    def __iter__(self) -> Iterator[Any]:
        worker = torch.utils.data.get_worker_info()
        workers, number = (1, 0) if worker is None else (worker.num_workers, worker.id)
        epoch, first = self.position if worker is None else self._begin.tolist()
        for batch in range(first + number, self.batches, workers):
            if worker is None:
                self.move_to(epoch, batch + 1)  # a stream read without workers keeps its own place
            yield from self.source.chosen(epoch, self._items_of(batch))

    def _items_of(self, batch: int) -> range:
        start = (batch * self.ranks + self.rank) * self.batch_size
        return range(start, start + self.batch_size)

    def state_dict(self) -> dict[str, Any]:
        """Where the stream is: whole batches handed out. With workers ask the loader: they run ahead of the training."""
        epoch, batch = self.position
        return {
            "epoch": epoch,
            "batch": batch,
            "batch_size": self.batch_size * self.ranks,
            "source": hashlib.sha256(self.source.identity.encode()).hexdigest(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where ``state_dict`` was called, with any number of workers, and of ranks whose batches together are as large.

        ``LearningError`` when the items would be others: other cases, patch size, labels, seed, ratios ...
        """
        mine = self.state_dict()
        for name, what in (
            ("source", "the data or how it is drawn has changed"),
            ("batch_size", "the batches have another size"),
        ):
            if state[name] != mine[name]:
                raise LearningError(
                    f"{what} since the state was saved, so that a resumed epoch would not be the same",
                    found=mine[name],
                    allowed=str(state[name]),
                    fix="open the same snapshot with the same settings, or begin another epoch with `move_to(epoch, 0)`",
                )
        self.move_to(int(state["epoch"]), int(state["batch"]))


def _place(rank: int | None, ranks: int | None) -> tuple[int, int]:
    if rank is not None or ranks is not None:
        if rank is None or ranks is None:
            raise LearningError("rank and ranks are given together", found=(rank, ranks))
        return rank, ranks
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
