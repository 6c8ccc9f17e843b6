"""Which labels touch which: faces between voxels of different labels, counted in one pass per axis."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

_SLAB_VOXELS = 1 << 22


@dataclass(frozen=True, eq=False)
class Contacts:
    """faces: int64 [label, label], symmetric, zero diagonal; row i belongs to label ids[i]."""

    ids: tuple[int, ...]
    faces: np.ndarray

    def between(self, a: Iterable[int], b: Iterable[int]) -> int:
        """Faces between any label of ``a`` and any of ``b``."""
        rows, columns = ([self.ids.index(label) for label in labels if label in self.ids] for labels in (a, b))
        return int(self.faces[np.ix_(rows, columns)].sum())

    def surface(self, label: int) -> int:
        """Faces of ``label`` towards anything else inside the volume."""
        return int(self.faces[self.ids.index(label)].sum()) if label in self.ids else 0


def count_contacts(voxels: np.ndarray, ids: Iterable[int]) -> Contacts:
    """The contacts of a label map [x, y, z] whose labels (background among them, if it occurs) are ``ids``."""
    names = tuple(sorted(set(ids) | {0}))
    index = np.zeros(names[-1] + 1, np.intp)
    index[list(names)] = np.arange(len(names))
    faces = np.zeros(len(names) ** 2, np.int64)
    along = 2 if voxels.flags.f_contiguous else 0
    thickness = max(1, _SLAB_VOXELS // max(voxels.size // voxels.shape[along], 1))
    for start in range(0, voxels.shape[along], thickness):
        slab = np.moveaxis(voxels, along, 0)[start : start + thickness + 1]  # one slice more: the faces to the next slab
        inner = slab[:thickness]
        for near, far in ((slab[:-1], slab[1:]), (inner[:, :-1], inner[:, 1:]), (inner[:, :, :-1], inner[:, :, 1:])):
            differ = near != far
            pairs = index[near[differ]] * len(names) + index[far[differ]]
            faces += np.bincount(pairs, minlength=faces.size)
    square = faces.reshape(len(names), len(names))
    return Contacts(names, square + square.T)
