"""Is there an image at all: finite numbers, some contrast, nothing cut off."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ctmr_core.anatomy.sequences import is_ct
from ctmr_core.cases.case import Case
from ctmr_core.quality.base import Candidate, CheckResult
from ctmr_core.quality.settings import Thresholds, thresholds

_STRIDE = 3  # every third voxel per axis gives percentiles to far better than the thresholds ask


class FiniteCheck:
    """No NaN and no infinity. Integer images pass by their type."""

    name = "finite"
    gate = True
    thresholds: ClassVar[Thresholds] = {}

    def applies(self, case: Case) -> bool:
        del case
        return True

    def run(self, candidate: Candidate) -> CheckResult:
        scores, reasons = {}, []
        for sequence, image in candidate.images.items():
            bad = 0
            if np.issubdtype(image.dtype, np.floating):
                bad = int(image.size - np.count_nonzero(np.isfinite(image)))
            scores[f"{sequence}/not_finite"] = float(bad)
            if bad:
                reasons.append(f"{sequence} holds {bad} voxels that are not finite numbers; allowed: 0")
        return CheckResult(self.name, scores, tuple(reasons))


class ConstantCheck:
    """The body has contrast: its 1st and 99th percentile lie apart. Without labels, the whole image is looked at."""

    name = "constant"
    #: HU, and arbitrary units of MR, between the percentiles. Fat and muscle alone are 100 HU apart.
    thresholds: ClassVar[Thresholds] = {"ct_range": 50.0, "mr_range": 10.0}

    def applies(self, case: Case) -> bool:
        del case
        return True

    def run(self, candidate: Candidate) -> CheckResult:
        limits = thresholds(candidate.case, self.name, self.thresholds)
        step = (slice(None, None, _STRIDE),) * 3
        inside = _body(candidate, step)
        scores, reasons = {}, []
        for sequence, image in candidate.images.items():
            values = image[step][inside]
            low, high = np.percentile(values, (1, 99)) if values.size else (0.0, 0.0)
            scores[f"{sequence}/range"] = float(high - low)
            allowed = limits["ct_range" if is_ct(sequence) else "mr_range"]
            if not high - low >= allowed:
                reasons.append(
                    f"{sequence} is almost constant: {low:g} to {high:g} in the body; allowed: {allowed:g} apart or more"
                )
        return CheckResult(self.name, scores, tuple(reasons))


class ClippedCheck:
    """Few voxels sit at the image's own extremes: a large share there means that values were cut off.

    High: share of body volume at the greatest value, CT and MR. Low: share of the body at the smallest value, CT only (in MR
    bone, air and fluid rightly have no signal).
    """

    name = "clipped"
    #: 0.5 % saturated voxels is the usual alarm for images; gas fills 1-2 % of a trunk.
    thresholds: ClassVar[Thresholds] = {"high_share": 0.005, "low_share": 0.03}

    def applies(self, case: Case) -> bool:
        del case
        return True

    def run(self, candidate: Candidate) -> CheckResult:
        limits = thresholds(candidate.case, self.name, self.thresholds)
        labelled = sum(entry.voxels for entry in candidate.census.entries.values())
        if candidate.case.unlabelled_region is not None:
            labelled = candidate.census.total_voxels
        scores, reasons = {}, []
        for sequence, image in candidate.images.items():
            ends = {"high": image.max(), "low": image.min()} if is_ct(sequence) else {"high": image.max()}
            for end, value in ends.items():
                at_end = image == value
                if end == "low":
                    at_end &= candidate.label_map.voxels != 0
                share = np.count_nonzero(at_end) / max(labelled, 1)
                scores[f"{sequence}/{end}_share"] = share
                if share > limits[f"{end}_share"]:
                    reasons.append(
                        f"{sequence} is cut off at {value:g}: {share:.1%} of the body; allowed: {limits[f'{end}_share']:.1%}"
                    )
        return CheckResult(self.name, scores, tuple(reasons))


def _body(candidate: Candidate, region: tuple[slice, slice, slice]) -> np.ndarray:
    """bool mask of ``region``: what is labelled, or everything when the body has no labels."""
    voxels = candidate.label_map.voxels[region]
    return np.ones(voxels.shape, bool) if candidate.case.unlabelled_region is not None else voxels != 0
