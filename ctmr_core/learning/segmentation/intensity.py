"""From voxel values to what a network sees: the same in training, in validation and ever after."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ctmr_core.anatomy.sequences import is_ct
from ctmr_core.learning.segmentation.config import IntensitySettings

_VOXELS = 1_000_000  # of a volume that percentiles are taken from: enough for three digits, and quick


@dataclass(frozen=True)
class Scaling:
    """value -> (value - offset) / scale, cut off at 0 and 1 where ``clipped``."""

    offset: float
    scale: float
    clipped: bool

    def __call__(self, voxels: np.ndarray) -> np.ndarray:
        """float32, of the same shape."""
        values = (voxels.astype(np.float32) - np.float32(self.offset)) / np.float32(self.scale)
        return np.clip(values, 0.0, 1.0, out=values) if self.clipped else values


def needs_volume(sequence: str) -> bool:
    """Whether the scaling of a sequence depends on the whole volume: MR has no units."""
    return not is_ct(sequence)


def scaling_of(sequence: str, voxels: np.ndarray | None, settings: IntensitySettings) -> Scaling:
    """The scaling of one volume. voxels: all of it, for MR; not looked at for CT."""
    if not needs_volume(sequence):
        low, high = settings.ct_window
        return Scaling(low, high - low, clipped=True)
    values = np.zeros(0) if voxels is None else voxels.ravel(order="K")
    values = values[:: max(1, len(values) // _VOXELS)]
    values = values[values > 0].astype(np.float64)
    if not len(values):
        return Scaling(0.0, 1.0, clipped=settings.mr == "percentiles")
    if settings.mr == "zscore":
        return Scaling(float(values.mean()), max(float(values.std()), 1e-6), clipped=False)
    low, high = np.percentile(values, settings.mr_percentiles)
    return Scaling(float(low), max(float(high - low), 1e-6), clipped=True)
