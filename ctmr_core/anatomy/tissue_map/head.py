"""Soft tissue of the head (label 507 of the ``brain`` vocabulary): fat under the skin and in the orbits, muscle below.

Bone needs no splitting here: the vocabulary tells tables (515) from diploe (516).
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ctmr_core.anatomy.tissue_map.canvas import Canvas, CoarseGrid, distance_inside, distance_outside, expand, smooth_noise
from ctmr_core.anatomy.tissues import tissue_id

_SOFT, _SKIN = 507, 511
_EYES = (506, 508, 530)
_BONE = (515, 516)
_INTRACRANIAL = (2, 3, 7, 8, 16, 24, 41, 42, 46, 47, 520)
_COARSE_MM = 2.5
_MARGIN_MM = 15.0
_SCALP_FAT_MM = 4.5  # hypodermis of the scalp, 4-7 mm with the skin (Hori et al., Acta Otolaryngol 1972)
_FACE_FAT_MM = 3.5  # cheeks and neck have about twice as much
_THIN_SCALP_MM = 10.0
_ORBIT_MM = 9.0
_SLAB = 1 << 22


def paint(canvas: Canvas) -> None:
    """Give every voxel of label 507 its tissue."""
    if not canvas.present((_SOFT,)):
        return
    coarse = CoarseGrid(canvas, _COARSE_MM, _MARGIN_MM)
    spacing = coarse.spacing
    depth = distance_inside(coarse.voxels != 0, spacing)
    from_skin = np.where(canvas.present((_SKIN,)), distance_outside(coarse.mask((_SKIN,)), spacing), depth - 2.0)
    rng = canvas.rng("head fat")
    uneven = smooth_noise(coarse.voxels.shape, spacing, 30.0, rng)
    streaks = smooth_noise(coarse.voxels.shape, spacing, 8.0, rng)
    patches = smooth_noise(coarse.voxels.shape, spacing, 35.0, rng)
    from_skin = np.minimum(from_skin, depth)
    below = np.clip((distance_outside(coarse.mask(_INTRACRANIAL), spacing) - 25) / 30, 0, 1)  # 0 scalp, 1 face and neck
    fat = _SCALP_FAT_MM + _FACE_FAT_MM * below + (1.2 + 2.5 * below) * uneven - from_skin
    # a scalp too thin for muscle is fat and galea down to the bone
    fat = np.maximum(fat, _THIN_SCALP_MM - from_skin - distance_outside(coarse.mask(_BONE), spacing))
    fat = np.maximum(fat, _ORBIT_MM - distance_outside(coarse.mask(_EYES), spacing))
    fat = ndimage.gaussian_filter(np.clip(fat, -20, 20), 1.5 / spacing)
    inside = _deep_to_skull(coarse)
    y, z = coarse.matrix(1), coarse.matrix(2)
    muscle, under_skin, dura = tissue_id("muscle"), tissue_id("subcutaneous_fat"), tissue_id("dura")
    planes = max(1, _SLAB // (canvas.size[1] * canvas.size[2]))
    for begin in range(0, canvas.size[0], planes):
        part = slice(begin, begin + planes)
        soft = canvas.voxels[part] == _SOFT
        if not soft.any():
            continue
        x = coarse.matrix(0, part)
        painted = np.where(expand(fat, x, y, z)[soft] > 0, np.uint8(under_skin), np.uint8(muscle))
        sheet = np.abs(expand(streaks, x, y, z)[soft]) < np.maximum(expand(patches, x, y, z)[soft] + 0.6, 0) * 0.12
        painted[sheet] = under_skin
        painted[expand(inside, x, y, z)[soft] > 0.5] = dura
        canvas.tissues[part][soft] = painted


def _deep_to_skull(coarse: CoarseGrid) -> np.ndarray:
    """float32 0..1: soft tissue nearer to brain and CSF than 4 mm, with no path outwards but through bone: meninges."""
    spacing = coarse.spacing
    brain = distance_outside(coarse.mask(_INTRACRANIAL), spacing)
    skin = distance_outside(coarse.voxels == 0, spacing)
    return ((brain < 4) & (skin > 12)).astype(np.float32)
