"""Patches that show nothing but the labelled classes, as skull-stripped images do."""

from __future__ import annotations

from collections.abc import Sequence

import edt
import numpy as np


def stripped(
    image: np.ndarray, label: np.ndarray, background: Sequence[float], margin_mm: float, spacing: Sequence[float]
) -> np.ndarray:
    """float32 [channels, x, y, z]: ``background`` of each channel wherever ``label`` [x, y, z] is 0 and farther than
    ``margin_mm`` from any labelled voxel. spacing: mm [x, y, z]."""
    outside = np.ascontiguousarray(label == 0)
    if margin_mm > 0:
        outside &= edt.edt(outside, anisotropy=tuple(float(mm) for mm in spacing), black_border=False) > margin_mm
    kept = image.copy()
    for channel, value in enumerate(background):
        kept[channel][outside] = value
    return kept
