"""Tissues of a template: what every voxel of a label map is made of.

A template names structures; images are made of tissues. ``with_tissues`` fills ``LabelMap.tissues`` from geometry alone:
skin, fat and muscle inside the body envelope, cortical shells, walls and contents of hollow organs, cortex and medulla
of the kidneys, myocardium and blood, discs between vertebrae. A label map that already has tissues is left as it is.

Cortical bone: a shell is written only where it is at least about half a voxel thick. On coarser grids a full voxel of
cortical bone would be far too bright, so bones stay trabecular there; an engine that finds a bone without a single
cortical voxel has to mix the partial shell into the bone's outermost voxels itself.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ctmr_core.anatomy.label_map import LabelMap
from ctmr_core.anatomy.tissue_map.bones import paint as paint_bones
from ctmr_core.anatomy.tissue_map.bones import paint_discs
from ctmr_core.anatomy.tissue_map.canvas import Canvas
from ctmr_core.anatomy.tissue_map.envelope import paint as paint_envelope
from ctmr_core.anatomy.tissue_map.head import paint as paint_head
from ctmr_core.anatomy.tissue_map.hollow_organs import paint as paint_hollow_organs
from ctmr_core.anatomy.tissue_map.organs import paint as paint_organs
from ctmr_core.anatomy.tissue_map.sulci import paint as paint_sulci
from ctmr_core.errors import AnatomyError

__all__ = ["with_tissues"]

_PAINTERS = {
    "maisi": (paint_envelope, paint_bones, paint_discs, paint_hollow_organs, paint_organs),
    "brain": (paint_head, paint_sulci),
}


def with_tissues(label_map: LabelMap, rng: np.random.Generator | None = None) -> LabelMap:
    """The same label map with ``tissues``: uint8 tissue ids (``anatomy.tissues``) [x, y, z].

    rng: decides what no label tells, such as gas in the bowel; None draws the same for every label map.
    Run it on the grid that is rendered: walls and shells are then as fine as the voxels allow.
    """
    if label_map.tissues is not None:
        return label_map
    painters = _PAINTERS.get(label_map.vocabulary.name)
    if painters is None:
        raise AnatomyError(
            "tissues can be derived for the built-in vocabularies only",
            found=label_map.vocabulary.name,
            allowed=sorted(_PAINTERS),
            fix="map the labels to one of them on import",
        )
    canvas = Canvas(label_map, rng if rng is not None else np.random.Generator(np.random.Philox(0)))
    for paint in painters:
        paint(canvas)
    return replace(label_map, tissues=canvas.tissues)
