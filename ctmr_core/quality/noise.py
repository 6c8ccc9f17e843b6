"""Does the image have the noise of a scanner: neither none nor too much, fine-grained and not smeared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from scipy import ndimage

from ctmr_core.anatomy.sequences import is_ct
from ctmr_core.cases.case import Case
from ctmr_core.quality.base import Candidate, ScoredCheck
from ctmr_core.quality.label_values import box_of
from ctmr_core.quality.settings import Thresholds
from ctmr_core.quality.structures import shows_anatomy

#: Structures of even tissue, the first in view with enough voxels is measured.
EVEN: dict[str, tuple[tuple[int, ...], ...]] = {
    "maisi": ((1,), (3,), (104, 105), (98, 99), (106, 107), (115,), (22,), (95, 96)),
    "brain": ((2, 41), (16,), (3, 42), (541,)),
}
_SMOOTHING = 2.0  # voxels: what is left after taking this blur away is noise and fine texture
_LARGEST = 96  # voxels per axis of the crop that is measured
_SMALLEST = 300  # voxels the interior must keep
_AXES = "xyz"


class NoiseCheck(ScoredCheck):
    """High-pass noise inside even tissue (liver, spleen, muscle; white matter): its SD and its correlation from voxel to voxel.

    CT: SD in HU. MR: SD over the tissue's median. ``lag1``: correlation of neighbours along each axis, the shape of the noise's
    spectrum in one number: 0 white, towards 1 smeared.
    """

    name = "noise"
    #: Public scans, measured alike: liver of a CT at 3 mm 11 HU and no correlation, a conformed (resampled) 1 mm T1 2 % and
    #: 0.49. Deep-learning reconstructions go down to some HU, low dose up to 100. A Gaussian blur of 2 voxels gives 0.87.
    thresholds: ClassVar[Thresholds] = {
        "ct_low": 1.0,
        "ct_high": 150.0,
        "mr_low": 0.002,
        "mr_high": 0.5,
        "lag1_low": -0.4,
        "lag1_high": 0.85,
    }

    def applies(self, case: Case) -> bool:
        return shows_anatomy(case)

    def measure(self, candidate: Candidate) -> dict[str, float]:
        scores: dict[str, float] = {}
        for labels in EVEN.get(candidate.label_map.vocabulary.name, ()):
            place = _interior(candidate, labels)
            if place is None:
                continue
            box, mask = place
            for sequence, image in candidate.images.items():
                crop = image[box].astype(np.float32)
                level = float(np.median(crop[mask]))
                noise = crop - _smooth_inside(crop, mask)
                sd = round(float(noise[mask].std()), 4)  # a constant image must not show the rounding of its blur
                scores[f"{sequence}/sd"] = sd if is_ct(sequence) else sd / max(level, 1.0)
                if sd > 0:
                    for axis, name in enumerate(_AXES):
                        scores[f"{sequence}/lag1_{name}"] = _lag1(noise, mask, axis)
            return scores
        return scores

    def decide(self, case: Case, scores: Mapping[str, float], limits: Mapping[str, float]) -> list[str]:
        del case
        reasons = []
        for name, value in scores.items():
            sequence, _, what = name.partition("/")
            if what == "sd":
                kind, unit = ("ct", " HU") if is_ct(sequence) else ("mr", " of the signal")
                low, high = limits[f"{kind}_low"], limits[f"{kind}_high"]
                if not low <= value <= high:
                    reasons.append(f"{sequence}: the noise in even tissue is {value:.3g}{unit}; allowed: {low:g}..{high:g}")
            elif what.startswith("lag1") and not limits["lag1_low"] <= value <= limits["lag1_high"]:
                allowed = f"{limits['lag1_low']:g}..{limits['lag1_high']:g}"
                reasons.append(f"{sequence}: neighbours along {what[-1]} correlate by {value:.2f}; allowed: {allowed}")
        return reasons


def _interior(candidate: Candidate, labels: tuple[int, ...]) -> tuple[tuple[slice, slice, slice], np.ndarray] | None:
    """A crop around the middle of the labels and where they are in it, a voxel from their edge."""
    box = box_of(candidate, labels)
    if box is None:
        return None
    x, y, z = (slice(s.start + max(s.stop - s.start - _LARGEST, 0) // 2, s.stop) for s in box)
    box = tuple(slice(s.start, min(s.stop, s.start + _LARGEST)) for s in (x, y, z))  # type: ignore[assignment]
    mask = ndimage.binary_erosion(np.isin(candidate.label_map.voxels[box], labels), iterations=1)
    return (box, mask) if np.count_nonzero(mask) >= _SMALLEST else None


def _smooth_inside(crop: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The blur of what is inside ``mask``: brighter neighbours don't leak in."""
    weight = ndimage.gaussian_filter(mask.astype(np.float32), _SMOOTHING)
    return np.asarray(ndimage.gaussian_filter(np.where(mask, crop, np.float32(0)), _SMOOTHING) / np.maximum(weight, 1e-3))


def _lag1(noise: np.ndarray, mask: np.ndarray, axis: int) -> float:
    """Correlation of neighbours along ``axis`` of which both are inside ``mask``."""
    near, far = np.moveaxis(noise, axis, 0)[:-1], np.moveaxis(noise, axis, 0)[1:]
    inner = np.moveaxis(mask, axis, 0)
    both = inner[:-1] & inner[1:]
    a, b = near[both], far[both]
    return float(np.corrcoef(a, b)[0, 1]) if a.size > 1 and a.std() > 0 and b.std() > 0 else 0.0
