"""Is there an image at all: finite numbers, some contrast, nothing cut off."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from ctmr_core.anatomy.sequences import is_ct
from ctmr_core.cases.case import Case
from ctmr_core.quality.base import Candidate, ScoredCheck
from ctmr_core.quality.settings import Thresholds
from ctmr_core.quality.statistics import Distribution


class FiniteCheck(ScoredCheck):
    """No NaN and no infinity. Integer images pass by their type."""

    name = "finite"
    gate = True
    thresholds: ClassVar[Thresholds] = {}

    def measure(self, candidate: Candidate) -> dict[str, float]:
        scores = {}
        for sequence, image in candidate.images.items():
            integers = np.issubdtype(image.dtype, np.integer)
            scores[f"{sequence}/not_finite"] = 0.0 if integers else float(image.size - np.count_nonzero(np.isfinite(image)))
        return scores

    def decide(self, case: Case, scores: Mapping[str, float], limits: Mapping[str, float]) -> list[str]:
        del case, limits
        return [
            f"{name.partition('/')[0]} holds {bad:.0f} voxels that are not finite numbers; allowed: 0"
            for name, bad in scores.items()
            if bad
        ]


class ConstantCheck(ScoredCheck):
    """The body has contrast: its 1st and 99th percentile lie apart. Without labels, the whole image is looked at."""

    name = "constant"
    #: HU, and arbitrary units of MR, between the percentiles. Fat and muscle alone are 100 HU apart.
    thresholds: ClassVar[Thresholds] = {"ct_range": 50.0, "mr_range": 10.0}

    def measure(self, candidate: Candidate) -> dict[str, float]:
        scores: dict[str, float] = {}
        for sequence in candidate.images:
            values = _body(candidate, sequence)
            low, high = (values.percentile(1), values.percentile(99)) if values.voxels else (0.0, 0.0)
            scores |= {f"{sequence}/range": high - low, f"{sequence}/low": low}
        return scores

    def decide(self, case: Case, scores: Mapping[str, float], limits: Mapping[str, float]) -> list[str]:
        del case
        reasons = []
        for name, found in scores.items():
            sequence, _, what = name.partition("/")
            allowed = limits["ct_range" if is_ct(sequence) else "mr_range"]
            if what == "range" and not found >= allowed:
                low = scores.get(f"{sequence}/low", 0.0)
                reasons.append(
                    f"{sequence} is almost constant: {low:g} to {low + found:g} in the body; allowed: {allowed:g} apart or more"
                )
        return reasons


class ClippedCheck(ScoredCheck):
    """Few voxels sit at the image's own extremes: a large share there means that values were cut off.

    High: share of body volume at the greatest value, CT and MR. Low: share of the body at the smallest value, CT only (in MR
    bone, air and fluid rightly have no signal).
    """

    name = "clipped"
    #: 0.5 % saturated voxels is the usual alarm for images; gas fills 1-2 % of a trunk.
    thresholds: ClassVar[Thresholds] = {"high_share": 0.005, "low_share": 0.03}

    def measure(self, candidate: Candidate) -> dict[str, float]:
        scores = {}
        for sequence in candidate.images:
            whole, body = candidate.histogram(sequence).whole, _body(candidate, sequence)
            voxels = max(body.voxels, 1)
            scores[f"{sequence}/high_share"] = int(whole.counts[-1]) / voxels
            scores[f"{sequence}/high_value"] = whole.largest
            if is_ct(sequence):
                labelled = body if candidate.case.unlabelled_region is None else Distribution(0, 1, whole.counts[:0])
                scores[f"{sequence}/low_share"] = int(labelled.counts[:1].sum()) / voxels
                scores[f"{sequence}/low_value"] = whole.smallest
        return scores

    def decide(self, case: Case, scores: Mapping[str, float], limits: Mapping[str, float]) -> list[str]:
        del case
        reasons = []
        for name, share in scores.items():
            sequence, _, what = name.partition("/")
            if what in limits and share > limits[what]:
                value = scores.get(f"{sequence}/{what.removesuffix('_share')}_value", float("nan"))
                reasons.append(f"{sequence} is cut off at {value:g}: {share:.1%} of the body; allowed: {limits[what]:.1%}")
        return reasons


def _body(candidate: Candidate, sequence: str) -> Distribution:
    """Values of what is labelled, or of everything when the body has no labels."""
    histogram = candidate.histogram(sequence)
    return histogram.whole if candidate.case.unlabelled_region is not None else histogram.body
