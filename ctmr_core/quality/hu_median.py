"""Do organs have the Hounsfield units of their kind: median per group of labels, as MAISI gates its CT."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from ctmr_core.anatomy.sequences import is_ct
from ctmr_core.cases.case import Case
from ctmr_core.quality.base import Candidate, ScoredCheck
from ctmr_core.quality.settings import Thresholds

_RIBS_TO_SACRUM = tuple(range(63, 98))
#: vocabulary -> group -> label ids. The seven of ``maisi`` are MAISI's (all five lobes of the lungs).
GROUPS: dict[str, dict[str, tuple[int, ...]]] = {
    "maisi": {
        "liver": (1,),
        "spleen": (3,),
        "pancreas": (4,),
        "kidney": (5, 14),
        "lung": (28, 29, 30, 31, 32),
        "bone": (*range(33, 57), *_RIBS_TO_SACRUM, 120, 122, 127),
        "brain": (22,),
    },
    "brain": {"brain_tissue": (2, 3, 7, 8, 16, 41, 42, 46, 47), "ventricle": (4, 43), "skull": (515,)},
}


class HuMedianCheck(ScoredCheck):
    """Median HU of each group inside its limits. A group with fewer than ``voxels`` voxels in view is passed over."""

    name = "hu_median"
    #: Groups of bodies: min(6 sigma, 0.5th percentile) and max(6 sigma, 99.5th percentile) of real CT, from MAISI's
    #: ``image_median_statistics_ct.json`` (bone high is set to 1000 there). Groups of heads: grey and white matter 20-45 HU,
    #: fluid 0-15 HU, compact bone above 300 HU (Hounsfield scale of head CT), with room for contrast, noise and thin bone.
    thresholds: ClassVar[Thresholds] = {
        "liver_low": -21.596463547885904,
        "liver_high": 162.0,
        "spleen_low": -43.133891656525165,
        "spleen_high": 184.07500000000073,
        "pancreas_low": -56.59382515620725,
        "pancreas_high": 149.50627399318438,
        "kidney_low": -130.56375604853028,
        "kidney_high": 267.28163511081016,
        "lung_low": -1088.5583843889117,
        "lung_high": -366.9500000000007,
        "bone_low": 71.39901958080469,
        "bone_high": 1000.0,
        "brain_low": -951.0,
        "brain_high": 369.5118535139189,
        "brain_tissue_low": 10.0,
        "brain_tissue_high": 80.0,
        "ventricle_low": -15.0,
        "ventricle_high": 35.0,
        "skull_low": 200.0,
        "skull_high": 2500.0,
        "voxels": 30.0,
    }

    def applies(self, case: Case) -> bool:
        return case.has_ct

    def measure(self, candidate: Candidate) -> dict[str, float]:
        groups = GROUPS.get(candidate.label_map.vocabulary.name, {})
        scores = {}
        for sequence in candidate.images:
            if not is_ct(sequence):
                continue
            for group, labels in groups.items():
                values = candidate.histogram(sequence).of(labels)
                if values.voxels:
                    scores[f"{sequence}/{group}"] = values.median
                    scores[f"{sequence}/{group}_voxels"] = float(values.voxels)
        return scores

    def decide(self, case: Case, scores: Mapping[str, float], limits: Mapping[str, float]) -> list[str]:
        del case
        reasons = []
        for score, median in scores.items():
            sequence, _, group = score.partition("/")
            voxels = scores.get(f"{score}_voxels")
            if voxels is None or voxels < limits["voxels"]:
                continue
            low, high = limits[f"{group}_low"], limits[f"{group}_high"]
            if not low <= median <= high:
                reasons.append(f"{sequence}: the median of {group} is {median:.0f} HU; allowed: {low:.0f}..{high:.0f} HU")
        return reasons
