"""A slice of a validation volume with what was drawn and what was found, to see what scores don't tell."""

from __future__ import annotations

import numpy as np

from ctmr_core.anatomy.sequences import is_ct
from ctmr_core.learning.segmentation.config import IntensitySettings
from ctmr_core.learning.segmentation.intensity import scaling_of

_HEIGHT = 384  # pixels, about


def overlay(
    sequence: str,
    voxels: np.ndarray,
    truth: np.ndarray,
    found: np.ndarray,
    spacing: tuple[float, float, float],
    intensity: IntensitySettings,
) -> np.ndarray:
    """uint8 [height, width, 3]: the axial slice with the most labelled voxels, twice: with the classes of the label map, and with
    those that were found. Left is the patient's right, top the front.

    voxels, truth, found: [x, y, z]; training ids; spacing: mm.
    """
    z = int(np.argmax((truth > 0).sum((0, 1)))) if truth.any() else truth.shape[2] // 2
    scaling = scaling_of(sequence, None if is_ct(sequence) else voxels, intensity)
    grey = scaling(voxels[:, :, z])
    if not scaling.clipped:
        grey = np.clip((grey + 2) / 4, 0, 1)  # standard deviations
    panels = [_coloured(grey, labels[:, :, z]) for labels in (truth, found)]
    return np.concatenate([_upright(panel, spacing) for panel in panels], axis=1)


def _coloured(grey: np.ndarray, labels: np.ndarray) -> np.ndarray:
    picture = np.repeat(grey[..., None], 3, axis=2)
    here = labels > 0
    picture[here] = 0.55 * picture[here] + 0.45 * class_colours()[labels[here]]
    return (picture * 255).round().astype(np.uint8)


def _upright(panel: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    """[x, y, 3] -> [rows, columns, 3], pixels as wide as high."""
    width, height = (n * mm for n, mm in zip(panel.shape[:2], spacing, strict=False))
    rows = _HEIGHT
    columns = max(1, round(_HEIGHT * width / height))
    x = (np.arange(columns) * panel.shape[0] // columns)[::-1]
    y = (np.arange(rows) * panel.shape[1] // rows)[::-1]
    return panel[x][:, y].transpose(1, 0, 2)


def class_colours() -> np.ndarray:
    """float [256, 3]: hues a golden angle apart, so that neighbours in number differ."""
    hue = (np.arange(256) * 0.381966) % 1.0
    return np.clip(np.abs((hue[:, None] * 6 + np.array([0.0, 4.0, 2.0])) % 6 - 3) - 1, 0, 1)
