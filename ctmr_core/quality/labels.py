"""Is the anatomy there: a label map that is not empty, with known ids, that shows what it is centred on."""

from __future__ import annotations

from typing import ClassVar

from ctmr_core.anatomy.regions import center_labels
from ctmr_core.cases.case import Case
from ctmr_core.errors import AnatomyError
from ctmr_core.quality.base import Candidate, CheckResult
from ctmr_core.quality.settings import Thresholds, thresholds


class LabelsCheck:
    """Enough of the volume is labelled, every id belongs to the vocabulary, and the centre asked for is in view.

    The map of an unlabelled body must be all background.
    """

    name = "labels"
    gate = True
    #: A body that fills less than 2 % of the field of view was missed; fewer than 3 structures are no anatomy.
    thresholds: ClassVar[Thresholds] = {"body_share": 0.02, "structures": 3.0}

    def applies(self, case: Case) -> bool:
        del case
        return True

    def run(self, candidate: Candidate) -> CheckResult:
        limits = thresholds(candidate.case, self.name, self.thresholds)
        census, vocabulary, center = candidate.census, candidate.label_map.vocabulary, candidate.case.center
        if candidate.case.unlabelled_region is not None:
            return _without_labels(self.name, len(census.labels))
        share = sum(entry.voxels for entry in census.entries.values()) / max(census.total_voxels, 1)
        reasons = []
        if share < limits["body_share"]:
            reasons.append(f"{share:.1%} of the volume is labelled; allowed: {limits['body_share']:.1%} or more")
        if len(census.labels) < limits["structures"]:
            reasons.append(f"{len(census.labels)} structures in view; allowed: {limits['structures']:g} or more")
        unknown = [label for label in census.labels if label not in vocabulary]
        if unknown:
            reasons.append(f"ids outside the {vocabulary.name} vocabulary: {', '.join(map(str, unknown[:8]))}")
        if center:
            try:
                center_labels(vocabulary, center, census.labels)
            except AnatomyError:
                reasons.append(f"the field of view does not show what it is centred on: {center}")
        return CheckResult(self.name, {"body_share": share, "structures": float(len(census.labels))}, tuple(reasons))


def _without_labels(name: str, structures: int) -> CheckResult:
    reasons = (f"{structures} structures in the map of an unlabelled body; allowed: none",) if structures else ()
    return CheckResult(name, {"structures": float(structures)}, reasons)
