"""Where the field of view of a case lies in a label map.

The field of view keeps the direction cosines of the label map, so a new grid on the same axes is fully described by
its size, its spacing and the place of its centre. Index coordinates are continuous: (0, 0, 0) is the centre of the
first voxel of the label map.
"""

from __future__ import annotations

import numpy as np

from ctmr_core.anatomy.label_map import LabelMap
from ctmr_core.errors import AnatomyError

Triple = tuple[float, float, float]


def bounding_box(mask: np.ndarray) -> tuple[slice, slice, slice] | None:
    """The smallest box [x, y, z] that holds every true voxel of a bool mask; None when there is none."""
    box = []
    for axis in range(3):
        seen = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        if seen.size == 0:
            return None
        box.append(slice(int(seen[0]), int(seen[-1]) + 1))
    return box[0], box[1], box[2]


def center_of(label_map: LabelMap, labels: tuple[int, ...] = ()) -> Triple:
    """Index coordinates of the middle of the box around ``labels`` (all of them together).

    labels: label ids; empty means everything that is not background.
    Raises ``AnatomyError`` when the label map holds none of them.
    """
    voxels = label_map.voxels
    if labels:
        wanted = np.zeros(max(int(voxels.max(initial=0)), *labels) + 1, bool)
        wanted[list(labels)] = True
        mask = wanted[voxels]
    else:
        mask = voxels != 0
    box = bounding_box(mask)
    if box is None:
        names = [label_map.vocabulary.label(label).name for label in labels]
        present = np.flatnonzero(np.bincount(voxels.ravel()))[1:]
        raise AnatomyError(
            "the field of view cannot be centred on structures the label map does not hold",
            found=names or "an empty label map",
            allowed=[label_map.vocabulary.by_id[i].name for i in present.tolist() if i in label_map.vocabulary],
            fix="choose another center, or a template that shows it",
        )
    x, y, z = ((part.start + part.stop - 1) / 2 for part in box)
    return (x, y, z)


def output_affine(label_map: LabelMap, size: tuple[int, int, int], spacing: Triple, center_index: Triple) -> np.ndarray:
    """4x4 float64 affine, voxel index -> RAS+ mm, of a field of view on the axes of ``label_map``.

    size: voxels per axis. spacing: mm per voxel along the axes of the label map.
    center_index: index coordinates, in ``label_map``, of the middle of the new field of view.
    """
    directions = label_map.affine[:3, :3] / np.asarray(label_map.spacing)
    affine = np.eye(4)
    affine[:3, :3] = directions * np.asarray(spacing, float)
    middle = label_map.affine[:3, :3] @ np.asarray(center_index, float) + label_map.affine[:3, 3]
    affine[:3, 3] = middle - affine[:3, :3] @ ((np.asarray(size, float) - 1) / 2)
    return affine
