"""Voxels of tissue classes, cheaply: on a thinned grid where that is enough, eroded in a crop where edges matter."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ctmr_core.anatomy.tissues import tissue_id, tissues
from ctmr_core.quality.base import Candidate
from ctmr_core.quality.label_values import box_of

_SAMPLES_PER_AXIS = 128
_INTERIOR = 200  # voxels an eroded class must keep to be used in place of the whole class
_FACES = ndimage.generate_binary_structure(3, 1)


def thinned(candidate: Candidate) -> tuple[slice, slice, slice]:
    """Strides that leave at most 128 samples per axis."""
    x, y, z = (slice(None, None, -(-n // _SAMPLES_PER_AXIS)) for n in candidate.label_map.size)
    return x, y, z


def tissue_codes(candidate: Candidate, region: tuple[slice, slice, slice]) -> np.ndarray:
    """Tissue ids (uint8) of ``region``: of the tissue map where there is one, otherwise by label."""
    label_map = candidate.label_map
    if label_map.tissues is not None:
        return label_map.tissues[region]
    return label_map.vocabulary.tissue_table[label_map.voxels[region]]


def kinds_table(*kinds: str) -> np.ndarray:
    """bool table, index = tissue id: is it of one of these kinds."""
    table = np.zeros(256, bool)
    table[[tissue.id for tissue in tissues() if tissue.kind in kinds]] = True
    return table


def interior_of(candidate: Candidate, image: np.ndarray, names: tuple[str, ...], labels: tuple[int, ...]) -> np.ndarray:
    """Image values (1-D) of the voxels of ``labels`` made of the tissues ``names``, without their outermost voxel.

    Classes too thin to be eroded (cortex at coarse spacing) are used whole.
    """
    box = box_of(candidate, labels)
    if box is None:
        return np.empty(0, image.dtype)
    table = np.zeros(256, bool)
    table[[tissue_id(name) for name in names]] = True
    mask = table[tissue_codes(candidate, box)]
    if len(labels) < 100:  # few enough that only they count; "everything" needs no second look
        mask &= np.isin(candidate.label_map.voxels[box], labels)
    inner = ndimage.binary_erosion(mask, _FACES)
    return image[box][inner if np.count_nonzero(inner) >= _INTERIOR else mask]
