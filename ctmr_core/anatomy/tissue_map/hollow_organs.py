"""Hollow organs: walls, contents, and gas that rises to the front of a patient who lies on the back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ctmr_core.anatomy.tissue_map.canvas import Canvas, Structure, expand, interpolation_matrix


@dataclass(frozen=True)
class _Wall:
    """A wall of ``mm`` made of ``tissue`` around label ``label``, drawn when voxels are at most ``coarsest_mm`` wide."""

    label: int
    tissue: str
    mm: float
    coarsest_mm: float = 10.0


#: Distended walls as CT and ultrasound show them: stomach and bladder 3-5 mm, small bowel 1-2 mm, colon 1-3 mm, oesophagus
#: 3-5 mm (Fernandes et al., World J Gastroenterol 2014), gallbladder up to 3 mm, trachea 1-3 mm.
_WALLS = (
    _Wall(12, "stomach_wall", 3.5),
    _Wall(13, "bowel_wall", 2.0),
    _Wall(19, "bowel_wall", 1.8),
    _Wall(62, "colon_wall", 2.0),
    _Wall(15, "bladder_wall", 3.0),
    _Wall(10, "connective_tissue", 1.5, 1.5),
    _Wall(57, "airway_wall", 1.3, 1.6),
    _Wall(132, "airway_wall", 0.8, 1.2),
)
_STOMACH, _DUODENUM, _SMALL_BOWEL, _COLON, _OESOPHAGUS = 12, 13, 19, 62, 11


def paint(canvas: Canvas) -> None:
    """Contents first, then walls over them."""
    for structure in canvas.structures((_STOMACH,)):
        _fill_stomach(structure)
    for structure in canvas.structures((_DUODENUM, _SMALL_BOWEL)):
        _fill_small_bowel(structure)
    for structure in canvas.structures((_COLON,)):
        _fill_colon(structure)
    for structure in canvas.structures((_OESOPHAGUS,)):
        _fill_oesophagus(structure)
    finest = canvas.spacing.min()
    for wall in _WALLS:
        if finest <= wall.coarsest_mm:
            for structure in canvas.structures((wall.label,)):
                structure.paint(structure.depth < wall.mm, wall.tissue)


def _fill_stomach(stomach: Structure) -> None:
    """Fluid with a flat level and gas in front of it; the share of gas is drawn between 10 and 45 %."""
    share = stomach.canvas.rng("stomach gas").uniform(0.10, 0.45)
    y = stomach.axes_mm[1]
    filled = stomach.mask.sum(axis=(0, 2))
    below = np.cumsum(filled) / filled.sum()
    level = float(y.ravel()[np.searchsorted(below, 1 - share)])
    stomach.paint(np.broadcast_to(y > level, stomach.mask.shape), "bowel_gas")


def _fill_small_bowel(bowel: Structure) -> None:
    """Loops, separated by walls where smooth noise crosses zero, with gas in few of them.

    Labels merge neighbouring loops; loops are about 25 mm wide (the usual upper limit of the calibre is 30 mm).
    """
    loops = bowel.noise(13.0, "loops")
    gas = (_height_mm(bowel, 12.0) + 3.5 * bowel.noise(30.0, "gas")) > 9.0
    bowel.paint(gas, "bowel_gas")
    if bowel.label == _SMALL_BOWEL:
        thinnest = max(0.10, 0.06 * float(bowel.canvas.spacing.min()))
        bowel.paint(np.abs(loops) < thinnest, "bowel_wall")


def _fill_colon(colon: Structure) -> None:
    """Stool with gas above a level that differs from segment to segment, and small bubbles inside the stool."""
    level = 3.0 + 9.0 * colon.noise(60.0, "level")
    gas = _height_mm(colon, 22.0) + 1.5 * colon.noise(8.0, "surface") > level
    bubbles = colon.noise(7.0, "bubbles") > 2.3
    colon.paint(gas | bubbles, "bowel_gas")


def _fill_oesophagus(oesophagus: Structure) -> None:
    """A collapsed tube; here and there some gas in its middle."""
    if oesophagus.canvas.spacing.min() > 2.0:
        return
    oesophagus.paint((oesophagus.depth > 4.5) & (oesophagus.noise(30.0, "gas") > 0.8), "bowel_gas")


def _height_mm(structure: Structure, radius_mm: float) -> np.ndarray:
    """mm that each voxel of the crop lies in front of the structure's own middle within ``radius_mm`` (float32)."""
    canvas = structure.canvas
    steps = [max(1, round(4.0 / mm)) for mm in canvas.spacing]
    mask = structure.mask[:: steps[0], :: steps[1], :: steps[2]].astype(np.float32)
    y = structure.axes_mm[1]
    sigma = [radius_mm / (step * mm) for step, mm in zip(steps, canvas.spacing, strict=True)]
    weight = ndimage.gaussian_filter(mask, sigma, truncate=2.5) + np.float32(1e-6)
    middle = ndimage.gaussian_filter(mask * y[:, :: steps[1]], sigma, truncate=2.5) / weight
    matrices = [
        interpolation_matrix(np.arange(n) / step, count, 1)
        for n, step, count in zip(structure.mask.shape, steps, middle.shape, strict=True)
    ]
    return y - expand(middle, *matrices)
