"""The ``DataLoader``: workers that are spawned and stay, the order of a stream, and a place to resume from."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from typing import Any

import torch

from ctmr_core.learning.datasets.epochs import EpochDataset
from ctmr_core.learning.datasets.stream import PatchStream

#: What the fork server imports once for all workers. It reads nothing, so it has no reading threads that a fork could lose.
_PRELOADED = ["ctmr_core.learning.datasets.patch_dataset", "monai.data"]


class PatchLoader(torch.utils.data.DataLoader[Any]):
    """A ``DataLoader`` over a :class:`PatchStream` that knows which batches the training has had.

    Each iteration is one epoch; after ``load_state_dict`` the first is what was left of the epoch.
    """

    dataset: PatchStream

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        stream = self.dataset
        epoch, first = stream.begin_here()
        for number, batch in enumerate(super().__iter__(), start=first + 1):
            stream.move_to(epoch, number)
            yield batch

    def __len__(self) -> int:
        return self.dataset.batches

    def state_dict(self) -> dict[str, Any]:
        """After which batch of which epoch the training is; small and JSON-able: put it into the checkpoint of the model."""
        return self.dataset.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on there; see :meth:`PatchStream.load_state_dict`. Before iterating, not during."""
        self.dataset.load_state_dict(state)


def loader(
    source: EpochDataset,
    batch_size: int = 2,
    workers: int = 2,
    *,
    rank: int | None = None,
    ranks: int | None = None,
    start_method: str = "spawn",
    prefetch: int = 2,
    pin_memory: bool = False,
    collate: Callable[[list[Any]], Any] | None = None,
    worker_init: Callable[[int], None] | None = None,
    timeout: float = 0,
) -> PatchLoader:
    """A loader of batches of ``source`` (``PatchDataset``, ``OnlineDataset``, ``Mixed``), the same for any number of workers.

    workers: processes that read, kept from epoch to epoch; 0 reads in this one. start_method: "spawn", or "forkserver" which
    imports PyTorch and MONAI once for all workers (``multiprocessing.set_forkserver_preload``), so that many start fast.
    prefetch: batches every worker is ahead. rank, ranks: see :class:`PatchStream`. collate: default MONAI's
    ``list_data_collate``, which keeps ``MetaTensor`` and flattens transforms that return several items. worker_init: called in
    every worker with its number. timeout: seconds to wait for a batch, 0 for ever.
    """
    if collate is None:
        from monai.data import list_data_collate

        collate = list_data_collate
    if start_method == "forkserver":
        multiprocessing.set_forkserver_preload(_PRELOADED)
    several: dict[str, Any] = (
        {
            "multiprocessing_context": start_method,
            "persistent_workers": True,
            "prefetch_factor": prefetch,
            "worker_init_fn": worker_init,
        }
        if workers
        else {}
    )
    return PatchLoader(
        PatchStream(source, batch_size, rank=rank, ranks=ranks),
        batch_size=batch_size,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=pin_memory,
        timeout=timeout,
        **several,
    )
