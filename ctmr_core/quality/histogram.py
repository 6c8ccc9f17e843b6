"""Does the histogram look measured: no gaps between the values, spread inside every organ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from ctmr_core.anatomy.sequences import is_ct
from ctmr_core.cases.case import Case
from ctmr_core.quality.base import Candidate, ScoredCheck
from ctmr_core.quality.hu_median import GROUPS
from ctmr_core.quality.settings import Thresholds
from ctmr_core.quality.structures import shows_anatomy

_VOXELS_PER_VALUE = 20  # with fewer voxels per value, values are empty by chance


class GapsCheck(ScoredCheck):
    """Few values are missing between the 5th and 95th percentile of the body: many gaps mean that values were multiplied or
    stored in 8 bits on the way.
    """

    name = "gaps"
    #: Of a comb with every second value half is missing.
    thresholds: ClassVar[Thresholds] = {"empty_share": 0.3}

    def measure(self, candidate: Candidate) -> dict[str, float]:
        scores = {}
        for sequence in candidate.images:
            table = candidate.histogram(sequence)
            values = table.whole if candidate.case.unlabelled_region is not None else table.body
            if not values.voxels:
                continue
            first, last = (int((values.percentile(p) - values.low) // values.width) for p in (5, 95))
            inner = values.counts[first : last + 1]
            if len(inner) >= 16 and inner.sum() >= _VOXELS_PER_VALUE * len(inner):
                scores[f"{sequence}/empty_share"] = float(np.count_nonzero(inner == 0) / len(inner))
        return scores

    def decide(self, case: Case, scores: Mapping[str, float], limits: Mapping[str, float]) -> list[str]:
        del case
        return [
            f"{name.partition('/')[0]} has gaps in its histogram: {share:.0%} of the values never occur; "
            f"allowed: {limits['empty_share']:.0%}"
            for name, share in scores.items()
            if share > limits["empty_share"]
        ]


class HuSpreadCheck(ScoredCheck):
    """Spread of CT numbers inside organs, as 1.4826 times the median absolute deviation: not flat, not scattered."""

    name = "hu_spread"
    #: HU. Organs of real CT spread by 12-45 (noise, texture, partial volume); denoised ones by some HU, low dose by 100. Bone and
    #: lung hold marrow and compact bone, vessels and air.
    thresholds: ClassVar[Thresholds] = {"low": 1.5, "soft_high": 150.0, "bone_high": 600.0, "lung_high": 400.0, "voxels": 100.0}

    def applies(self, case: Case) -> bool:
        return case.has_ct and shows_anatomy(case)

    def measure(self, candidate: Candidate) -> dict[str, float]:
        scores = {}
        for sequence in candidate.images:
            if is_ct(sequence):
                for group, labels in GROUPS.get(candidate.label_map.vocabulary.name, {}).items():
                    values = candidate.histogram(sequence).of(labels)
                    if values.voxels:
                        scores[f"{sequence}/{group}"] = 1.4826 * values.mad
                        scores[f"{sequence}/{group}_voxels"] = float(values.voxels)
        return scores

    def decide(self, case: Case, scores: Mapping[str, float], limits: Mapping[str, float]) -> list[str]:
        del case
        reasons = []
        for name, spread in scores.items():
            sequence, _, group = name.partition("/")
            if scores.get(f"{name}_voxels", 0.0) < limits["voxels"]:
                continue
            low, high = limits["low"], limits[upper_limit_of(group)]
            if not low <= spread <= high:
                reasons.append(f"{sequence}: values of {group} spread by {spread:.1f} HU; allowed: {low:g}..{high:g} HU")
        return reasons


def upper_limit_of(group: str) -> str:
    """The threshold of ``hu_spread`` that bounds the spread of a group."""
    return "bone_high" if group in ("bone", "skull") else "lung_high" if group == "lung" else "soft_high"
