"""Whole volumes, for validation."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow.dataset as pads
import torch

from ctmr_core.learning.datasets.case_table import read_case_table
from ctmr_core.learning.datasets.classes import Classes
from ctmr_core.learning.datasets.epochs import Item
from ctmr_core.learning.datasets.items import make_item
from ctmr_core.learning.datasets.patch_dataset import classes_of
from ctmr_core.learning.datasets.processes import Process
from ctmr_core.store.dataset import Dataset
from ctmr_core.store.lazy import LazyArray


class VolumeDataset(torch.utils.data.Dataset[Any]):
    """Map-style: the cases of a dataset or snapshot by id, each whole, as items like those of ``PatchDataset``.

    For a ``DataLoader`` with workers give ``multiprocessing_context="spawn"``.
    """

    def __init__(
        self,
        dataset: Dataset | str | os.PathLike[str],
        sequences: Sequence[str] = ("ct",),
        labels: Classes | Mapping[str, str | Sequence[str]] | Sequence[str] | None = None,
        *,
        splits: Sequence[str] | None = ("val",),
        filter: pads.Expression | None = None,  # noqa: A002
        transform: Callable[[Item], Any] | None = None,
    ) -> None:
        dataset = dataset if isinstance(dataset, Dataset) else Dataset.open(dataset)
        self.sequences = (sequences,) if isinstance(sequences, str) else tuple(sequences)
        self.classes = classes_of(labels)
        self.table = read_case_table(dataset, self.sequences, self.classes, splits=splits, filter=filter)
        self.transform = transform
        self._storage = dataset.storage
        self._process = Process()

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, number: int) -> Any:
        if not 0 <= number < len(self):
            raise IndexError(f"case {number} of {len(self)}")
        self._process.refuse_fork()
        case_id, path = self.table.name(number)
        vocabulary = self.table.vocabulary(number)
        waiting = [LazyArray(self._storage, f"{path}/{sequence}/0").begin() for sequence in self.sequences]
        labels = LazyArray(self._storage, f"{path}/labels/{vocabulary}/0").read()
        item = make_item(
            [wait() for wait in waiting],
            labels,
            self.table.affine(number),
            self.classes.table(vocabulary),
            {"case_id": case_id},
        )
        return item if self.transform is None else self.transform(item)
