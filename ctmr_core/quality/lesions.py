"""Are the lesions there that were asked for, at about the size they were asked for."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import ClassVar

from ctmr_core.cases.case import Case
from ctmr_core.quality.base import Candidate, ScoredCheck
from ctmr_core.quality.settings import Thresholds

#: A brain tumour's diameter includes what the part encloses: oedema around the enhancing rim around necrosis.
_ENCLOSES = {
    "brain tumor edema": ("brain tumor edema", "enhancing brain tumor", "brain tumor necrosis"),
    "enhancing brain tumor": ("enhancing brain tumor", "brain tumor necrosis"),
}


class LesionsCheck(ScoredCheck):
    """Every requested lesion has voxels, and all lesions of a kind together have about the volume of their balls.

    No upper limit where more may rightly be there: in templates, which can bring lesions of their own, and where several
    parts of brain tumours were asked for.
    """

    name = "lesions"
    #: Clipping to the host takes up to 20 % of a lesion (15 % in lungs), whole voxels and overlap take more; drawn outlines
    #: deviate by a few percent. Lesions of fewer than ``voxels`` voxels are only looked for, not measured.
    thresholds: ClassVar[Thresholds] = {"volume_ratio_low": 0.5, "volume_ratio_high": 1.6, "voxels": 30.0}

    def applies(self, case: Case) -> bool:
        return bool(case.lesions)

    def measure(self, candidate: Candidate) -> dict[str, float]:
        vocabulary, census = candidate.label_map.vocabulary, candidate.census
        voxel_ml = math.prod(candidate.label_map.spacing) / 1000.0
        scores = {}
        for label, expected_ml in _asked(candidate.case).items():
            parts = _ENCLOSES.get(label, (label,))
            voxels = sum(census.voxels(vocabulary.label(part).id) for part in parts if part in vocabulary)
            scores[f"{label}/volume_ratio"] = voxels * voxel_ml / expected_ml
            scores[f"{label}/expected_voxels"] = expected_ml / voxel_ml
        return scores

    def decide(self, case: Case, scores: Mapping[str, float], limits: Mapping[str, float]) -> list[str]:
        asked = _asked(case)
        tumor_parts = [label for label in asked if "brain tumor" in label]
        reasons = []
        for label in asked:
            ratio = scores.get(f"{label}/volume_ratio")
            if ratio is None:
                continue
            if ratio == 0:
                reasons.append(f"{label} was asked for and has no voxels")
            elif scores[f"{label}/expected_voxels"] < limits["voxels"]:
                continue
            elif ratio < limits["volume_ratio_low"]:
                reasons.append(_off(label, ratio, f"{limits['volume_ratio_low']:g} or more"))
            elif ratio > limits["volume_ratio_high"] and case.body.startswith("parametric:") and len(tumor_parts) < 2:
                reasons.append(_off(label, ratio, f"{limits['volume_ratio_high']:g} or less"))
        return reasons


def _asked(case: Case) -> dict[str, float]:
    """Label -> ml asked for, all its lesions together, as balls of their diameters."""
    asked: dict[str, float] = defaultdict(float)
    for lesion in case.lesions:
        asked[lesion.label] += math.pi / 6 * lesion.diameter**3 / 1000.0
    return asked


def _off(label: str, ratio: float, allowed: str) -> str:
    return f"{label} has {ratio:.2f} times the volume asked for; allowed: {allowed}"
