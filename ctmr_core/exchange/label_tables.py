"""Which labels an export has, and by which numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ctmr_core.anatomy.vocabulary import BACKGROUND, Vocabulary
from ctmr_core.errors import ExchangeError

Numbering = Literal["true", "contiguous"]


@dataclass(frozen=True)
class LabelTable:
    """Names and numbers of the labels of an export.

    numbers: true id -> number in the export; ids that are not listed become background. dtype: of the exported label maps.
    """

    vocabulary: Vocabulary
    numbers: Mapping[int, int]
    dtype: np.dtype

    @property
    def names(self) -> dict[str, int]:
        """Name -> number, background first, by number."""
        named = {self.vocabulary.label(label).name: number for label, number in self.numbers.items()}
        return {"background": BACKGROUND, **dict(sorted(named.items(), key=lambda item: item[1]))}

    def apply(self, voxels: np.ndarray) -> np.ndarray:
        """The label map in the numbers of the export: same shape and memory order; ids are looked up, not searched."""
        if all(label == number for label, number in self.numbers.items()) and len(self.numbers) == len(self.vocabulary.labels):
            return voxels.astype(self.dtype, copy=False)
        table = np.zeros(np.iinfo(self.vocabulary.dtype).max + 1, self.dtype)
        for label, number in self.numbers.items():
            table[label] = number
        out: np.ndarray = table[voxels]
        return out


def label_table(vocabulary: Vocabulary, ids: Iterable[int], numbering: Numbering, wanted: Iterable[str] = ()) -> LabelTable:
    """The table of ``ids``, ascending; ``true``: every label of the vocabulary keeps its id; ``contiguous``: 1, 2, 3 ...

    wanted: names of labels or groups (``organ``, ``bone`` ...) to keep; the others become background.
    """
    chosen = label_ids(vocabulary, wanted)
    if numbering == "true":
        kept = [label.id for label in vocabulary if not chosen or label.id in chosen]
        return LabelTable(vocabulary, {label: label for label in kept}, vocabulary.dtype)
    kept = sorted(label for label in ids if not chosen or label in chosen)
    if not kept:
        raise ExchangeError("no case has one of these labels", found=sorted(wanted) or "unlabelled cases")
    numbers = {label: number for number, label in enumerate(kept, start=1)}
    return LabelTable(vocabulary, numbers, np.dtype(np.uint8 if len(kept) < 256 else np.uint16))


def label_ids(vocabulary: Vocabulary, names: Iterable[str]) -> set[int]:
    """The ids that names of labels and groups stand for."""
    groups = {label.group for label in vocabulary}
    found: set[int] = set()
    for name in names:
        found.update(vocabulary.ids(name) if name in groups and name not in vocabulary else (vocabulary.label(name).id,))
    return found
