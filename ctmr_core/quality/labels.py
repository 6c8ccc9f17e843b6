"""Is the anatomy there: a label map that is not empty, with known ids, that shows what it is centred on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from ctmr_core.anatomy.regions import center_labels
from ctmr_core.cases.case import Case
from ctmr_core.errors import AnatomyError
from ctmr_core.quality.base import Candidate, ScoredCheck
from ctmr_core.quality.settings import Thresholds
from ctmr_core.quality.structures import is_surrounded


class LabelsCheck(ScoredCheck):
    """Enough of the volume is labelled, every id belongs to the vocabulary, and the centre asked for is in view.

    The map of an unlabelled body must be all background. An imported map of organs alone may be small.
    """

    name = "labels"
    version = "2"
    gate = True
    #: A body that fills less than 2 % of the field of view was missed; fewer than 3 structures are no anatomy.
    thresholds: ClassVar[Thresholds] = {"body_share": 0.02, "structures": 3.0}

    def measure(self, candidate: Candidate) -> dict[str, float]:
        census, vocabulary, center = candidate.census, candidate.label_map.vocabulary, candidate.case.center
        scores = {"structures": float(len(census.labels))}
        if candidate.case.unlabelled_region is not None:
            return scores
        if is_surrounded(candidate):
            scores["body_share"] = sum(entry.voxels for entry in census.entries.values()) / max(census.total_voxels, 1)
        for label in [label for label in census.labels if label not in vocabulary][:8]:
            scores[f"unknown/{label}"] = float(census.voxels(label))
        if center:
            scores["center_in_view"] = float(_in_view(candidate, center))
        return scores

    def decide(self, case: Case, scores: Mapping[str, float], limits: Mapping[str, float]) -> list[str]:
        structures = scores["structures"]
        if case.unlabelled_region is not None:
            return [f"{structures:g} structures in the map of an unlabelled body; allowed: none"] if structures else []
        reasons = []
        share = scores.get("body_share", 1.0)
        if share < limits["body_share"]:
            reasons.append(f"{share:.1%} of the volume is labelled; allowed: {limits['body_share']:.1%} or more")
        if structures < limits["structures"]:
            reasons.append(f"{structures:g} structures in view; allowed: {limits['structures']:g} or more")
        unknown = [name.removeprefix("unknown/") for name in scores if name.startswith("unknown/")]
        if unknown:
            reasons.append(f"ids outside the vocabulary: {', '.join(unknown)}")
        if scores.get("center_in_view") == 0:
            reasons.append(f"the field of view does not show what it is centred on: {case.center}")
        return reasons


def _in_view(candidate: Candidate, center: str) -> bool:
    try:
        center_labels(candidate.label_map.vocabulary, center, candidate.census.labels)
    except AnatomyError:
        return False
    return True
