"""The joint code of label and tissue: one gather gives every voxel any value that depends on both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from ctmr_core.anatomy.tissues import tissues
from ctmr_core.anatomy.vocabulary import Vocabulary


@dataclass(frozen=True, eq=False)
class TissueCode:
    """code = label id x number of tissues + tissue id.

    index: int32 [x, y, z] on the device. rows: label ids the vocabulary can hold (0..max). columns: number of tissues.
    """

    index: torch.Tensor
    rows: int
    columns: int

    @classmethod
    def of(cls, labels: torch.Tensor, tissue_map: torch.Tensor, vocabulary: Vocabulary) -> TissueCode:
        """The code of every voxel. labels: integer [x, y, z] ids of ``vocabulary``; tissue_map: uint8 [x, y, z]."""
        columns = len(tissues())
        index = labels.to(torch.int32).mul_(columns).add_(tissue_map)
        return cls(index, max(vocabulary.by_id) + 1, columns)

    def table(self, by_tissue: np.ndarray, by_label: Mapping[int, float] | None = None) -> np.ndarray:
        """float32 [rows, columns]: ``by_tissue[tissue]``, and ``by_label[label]`` for every tissue of the labels it names."""
        table = np.broadcast_to(np.asarray(by_tissue, np.float32), (self.rows, self.columns)).copy()
        for label, value in (by_label or {}).items():
            table[label] = value
        return table

    def gather(self, table: np.ndarray) -> torch.Tensor:
        """``table`` [rows, columns] looked up for every voxel: float32 [x, y, z] on the device of the code."""
        flat = torch.from_numpy(np.ascontiguousarray(table, np.float32).reshape(-1)).to(self.index.device)
        return torch.index_select(flat, 0, self.index.view(-1)).view(self.index.shape)
