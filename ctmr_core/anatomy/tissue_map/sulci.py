"""Fluid around a brain that stands alone, as FreeSurfer's maps have it: the sulci are unlabelled, not empty.

A skull-stripped scan keeps the fluid in its sulci and a thin film on the convexity. Maps that label fluid or the head
around the brain are left as they are.
"""

from __future__ import annotations

import numpy as np

from ctmr_core.anatomy.tissue_map.canvas import Canvas, CoarseGrid, distance_inside, distance_outside, expand
from ctmr_core.anatomy.tissues import tissue_id

_CORTEX = (3, 42)
_AROUND_THE_BRAIN = (*range(506, 531), 165, 258)
_COARSE_MM = 2.0
_MARGIN_MM = 16.0
_WIDEST_SULCUS_MM = 12.0  # the Sylvian fissure of old brains; others are below 5 mm (Jin et al., Front Aging Neurosci 2018)
_FILM_MM = 1.0
_SLAB = 1 << 22


def paint(canvas: Canvas) -> None:
    """Give unlabelled voxels between the gyri of a lone brain the tissue of subarachnoid fluid."""
    if not canvas.present(_CORTEX) or canvas.present(_AROUND_THE_BRAIN):
        return
    coarse = CoarseGrid(canvas, _COARSE_MM, _MARGIN_MM)
    radius = np.float32(_WIDEST_SULCUS_MM / 2)
    hull = distance_outside(coarse.voxels != 0, coarse.spacing) <= radius
    inside = distance_inside(hull, coarse.spacing) - radius + np.float32(_FILM_MM)
    fluid = tissue_id("csf_subarachnoid")
    y, z = coarse.matrix(1), coarse.matrix(2)
    planes = max(1, _SLAB // (canvas.size[1] * canvas.size[2]))
    for begin in range(0, canvas.size[0], planes):
        part = slice(begin, begin + planes)
        between = expand(inside, coarse.matrix(0, part), y, z) > 0
        between &= canvas.voxels[part] == 0
        canvas.tissues[part][between] = fluid
