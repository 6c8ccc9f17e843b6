"""Are the lesions there that were asked for, at about the size they were asked for."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import ClassVar

from ctmr_core.cases.case import Case
from ctmr_core.quality.base import Candidate, CheckResult
from ctmr_core.quality.settings import Thresholds, thresholds

#: A brain tumour's diameter includes what the part encloses: oedema around the enhancing rim around necrosis.
_ENCLOSES = {
    "brain tumor edema": ("brain tumor edema", "enhancing brain tumor", "brain tumor necrosis"),
    "enhancing brain tumor": ("enhancing brain tumor", "brain tumor necrosis"),
}


class LesionsCheck:
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

    def run(self, candidate: Candidate) -> CheckResult:
        case, vocabulary, census = candidate.case, candidate.label_map.vocabulary, candidate.census
        limits = thresholds(case, self.name, self.thresholds)
        voxel_ml = math.prod(candidate.label_map.spacing) / 1000.0
        asked: dict[str, float] = defaultdict(float)
        for lesion in case.lesions:
            asked[lesion.label] += math.pi / 6 * lesion.diameter**3 / 1000.0
        tumor_parts = [label for label in asked if "brain tumor" in label]
        scores, reasons = {}, []
        for label, expected_ml in asked.items():
            parts = _ENCLOSES.get(label, (label,))
            voxels = sum(census.voxels(vocabulary.label(part).id) for part in parts if part in vocabulary)
            ratio = voxels * voxel_ml / expected_ml
            scores[f"{label}/volume_ratio"] = ratio
            if voxels == 0:
                reasons.append(f"{label} was asked for and has no voxels")
            elif expected_ml / voxel_ml < limits["voxels"]:
                continue
            elif ratio < limits["volume_ratio_low"]:
                reasons.append(_off(label, ratio, f"{limits['volume_ratio_low']:g} or more"))
            elif ratio > limits["volume_ratio_high"] and case.template_id is None and len(tumor_parts) < 2:
                reasons.append(_off(label, ratio, f"{limits['volume_ratio_high']:g} or less"))
        return CheckResult(self.name, scores, tuple(reasons))


def _off(label: str, ratio: float, allowed: str) -> str:
    return f"{label} has {ratio:.2f} times the volume asked for; allowed: {allowed}"
