"""Inner structure of solid organs: kidneys, heart, spinal canal."""

from __future__ import annotations

import numpy as np

from ctmr_core.anatomy.tissue_map.canvas import Canvas, Structure, distance_outside
from ctmr_core.anatomy.tissues import tissue_id

_RIGHT_KIDNEY, _LEFT_KIDNEY, _HEART, _SPINAL_CORD, _BODY = 5, 14, 115, 121, 200
_KIDNEY_ML = 160.0  # ICRP 89 reference man: 310 g for both
_HEART_ML = 700.0  # heart and its blood, about 330 g + 370 mL (ICRP 89)
_CORTEX_MM = 7.0  # renal cortex, 6-10 mm (Beland et al., AJR 2010)
_BELOW_CORD = (33, 34, 35, 36)  # L5 to L2: the cord ends at the disc above L2 (Saifuddin et al., Spine 1998)
_CORD_CSF_MM = 2.5  # subarachnoid space between cord and dura
_CANAL_MM = 5.0  # from the labelled cord to the vertebral arch; the canal is 15-25 mm wide
_LEFT_WALL_MM = 10.0  # left ventricle 6-12 mm, right ventricle 2-5 mm (Lang et al., J Am Soc Echocardiogr 2015)
_RIGHT_WALL_MM = 3.0


def paint(canvas: Canvas) -> None:
    """Split the organs that are there."""
    for kidney in canvas.structures((_RIGHT_KIDNEY, _LEFT_KIDNEY)):
        _paint_kidney(kidney, medial=-1.0 if kidney.label == _RIGHT_KIDNEY else 1.0)
    for heart in canvas.structures((_HEART,)):
        _paint_heart(heart)
    _paint_spinal_canal(canvas)


def _paint_spinal_canal(canvas: Canvas) -> None:
    """Cord, the CSF around it and below its end, and epidural fat between the dura and the vertebral arches."""
    for cord in canvas.structures((_SPINAL_CORD,)):
        if np.sort(canvas.spacing)[1] <= 2.0:
            cord.paint(cord.depth < _CORD_CSF_MM, "csf_spinal")
        lumbar = canvas.box(_BELOW_CORD)
        if lumbar is not None:
            heights = np.arange(canvas.size[2])[cord.box[2]]
            cord.paint((heights < lumbar[2].stop)[None, None, :], "csf_spinal")
    box = canvas.box((_SPINAL_CORD,), _CANAL_MM)
    if box is None:
        return
    away = distance_outside(canvas.voxels[box] == _SPINAL_CORD, canvas.spacing)
    unlabelled = canvas.voxels[box] == _BODY
    canvas.tissues[box][unlabelled & (away < _CANAL_MM)] = tissue_id("visceral_fat")
    canvas.tissues[box][unlabelled & (away < _CANAL_MM / 3)] = tissue_id("csf_spinal")


def _paint_kidney(kidney: Structure, medial: float) -> None:
    """Cortex outside, pyramids of medulla between columns of cortex, sinus fat and pelvis towards the hilum.

    medial: sign of the x direction (RAS+, +x is the patient's right side) that points to the spine.
    """
    scale = (kidney.volume_ml / _KIDNEY_ML) ** (1 / 3)
    if scale < 0.3:
        return
    column = kidney.noise(11.0, "columns")
    kidney.paint(kidney.depth + 2.0 * column > _CORTEX_MM * scale, "kidney_medulla")
    x, y, z = kidney.axes_mm
    if kidney.touches_edge():
        return
    sinus = ((x - medial * 13 * scale) / 15) ** 2 + (y / 9) ** 2 + (z / 25) ** 2
    sinus = sinus / scale**2 + 0.25 * kidney.noise(9.0, "sinus")
    kidney.paint(sinus < 1, "visceral_fat")
    kidney.paint(sinus < 0.22, "renal_pelvis")


def _paint_heart(heart: Structure) -> None:
    """Myocardium around blood: a thick ring for the left ventricle, a septum, thin walls elsewhere.

    The long axis points to the left (-x), to the front and down; ventricles fill its lower two thirds.
    """
    thin = heart.depth < _RIGHT_WALL_MM
    if heart.touches_edge() and heart.volume_ml < _HEART_ML / 2:
        heart.paint(thin, "myocardium")
        return
    scale = (heart.volume_ml / _HEART_ML) ** (1 / 3)
    axis = np.array([-0.62, 0.50, -0.60], np.float32)
    axis /= np.linalg.norm(axis)
    x, y, z = heart.axes_mm
    # the left ventricle lies to the left and behind the long axis through the centroid
    x, y, z = x + 14 * scale, y + 8 * scale, z + 6 * scale
    along = (axis[0] * x + axis[1] * y + axis[2] * z) / scale
    across = np.sqrt(np.maximum((x * x + y * y + z * z) / scale**2 - along * along, 0))
    outer = ((along - 12) / 52) ** 2 + (across / 34) ** 2
    wall = _LEFT_WALL_MM
    inner = ((along - 10) / (52 - wall)) ** 2 + (across / (34 - wall)) ** 2
    ventricle = (outer < 1) & (along > -22)
    heart.paint(thin | (ventricle & (inner >= 1)), "myocardium")
