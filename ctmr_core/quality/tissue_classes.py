"""Voxels of tissue classes, cheaply: on a thinned grid where that is enough, eroded in a crop where edges matter."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ctmr_core.anatomy.tissues import tissue_id, tissues
from ctmr_core.quality.base import Candidate
from ctmr_core.quality.label_values import Box, box_of

AIR_HU = -500.0  # halfway between air and water: above it is something
SMALLEST_BACKGROUND = 0.01  # share of the volume that must be background for its surroundings to be judged
_SAMPLES_PER_AXIS = 128
_SLICES = 48
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


def interior_of(candidate: Candidate, names: tuple[str, ...], labels: tuple[int, ...]) -> tuple[Box, np.ndarray] | None:
    """Where the tissues ``names`` in ``labels`` are, without their outermost voxel: a box and a bool mask in it.

    At most the middle 48 slices (z) of the labels are looked at: enough for a median, and cheap at any size. Classes too
    thin to be eroded (cortex at coarse spacing) are used whole. None where the labels are not in view.
    """
    box = box_of(candidate, labels)
    if box is None:
        return None
    x, y, z = box
    spare = max(z.stop - z.start - _SLICES, 0) // 2
    box = (x, y, slice(z.start + spare, z.stop - spare))
    tissue = np.zeros(256, bool)
    tissue[[tissue_id(name) for name in names]] = True
    wanted = np.zeros(max(candidate.label_map.vocabulary.by_id) + 1, bool)
    wanted[list(labels)] = True
    mask = tissue[tissue_codes(candidate, box)]
    mask &= wanted[candidate.label_map.voxels[box]]
    inner = ndimage.binary_erosion(mask, _FACES)
    return box, inner if np.count_nonzero(inner) >= _INTERIOR else mask
