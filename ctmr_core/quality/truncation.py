"""Does the body go on to the edge of the field of view, or does it end in mid-air."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from ctmr_core.cases.case import Case
from ctmr_core.quality.base import Candidate, ScoredCheck
from ctmr_core.quality.settings import Thresholds
from ctmr_core.quality.structures import is_surrounded, shows_anatomy

_ENDS = ("below", "above")
_INWARD_MM = 3.0  # from the outermost slice to the one that is measured: 8 % of a head at its vertex


class TruncationCheck(ScoredCheck):
    """Where the body ends inside the volume along z, it tapers (a vertex, a foot): a flat end is anatomy that was cut off.

    Score: area of the body's last slice over that of its largest, for the lower and the upper end; 0 where the body reaches the
    volume's face. ``empty_share``: slices without any body. Imported maps of organs alone are passed over.
    """

    name = "truncation"
    version = "2"
    #: The vertex of a head ends at 1-10 % of its largest slice at 1-3 mm slices, a neck that was cut at 25 % and more.
    #: Templates were often cut before they came here, at up to 80 %: for them only a hard cut of the trunk is refused.
    thresholds: ClassVar[Thresholds] = {"end_share": 0.2, "template_end_share": 0.9, "empty_share": 0.5}

    def applies(self, case: Case) -> bool:
        return shows_anatomy(case)

    def measure(self, candidate: Candidate) -> dict[str, float]:
        if not is_surrounded(candidate):
            return {}
        area = np.count_nonzero(candidate.label_map.voxels, axis=(0, 1))
        filled = np.flatnonzero(area)
        if not len(filled):
            return {}
        first, last = int(filled[0]), int(filled[-1])
        top = len(area) - 1
        # the outermost slice may be a sliver of what was cut, so one a little further in tells
        inward = int(_INWARD_MM // candidate.label_map.spacing[2])
        below = float(area[min(first + inward, last)]) if first > 0 else 0.0
        above = float(area[max(last - inward, first)]) if last < top else 0.0
        largest = float(area.max())
        return {"below": below / largest, "above": above / largest, "empty_share": 1.0 - (last - first + 1) / len(area)}

    def decide(self, case: Case, scores: Mapping[str, float], limits: Mapping[str, float]) -> list[str]:
        allowed = limits["end_share" if case.template_id is None else "template_end_share"]
        reasons = [
            f"the body ends flat {end} inside the field of view, at {scores[end]:.0%} of its largest slice; "
            f"allowed: {allowed:.0%}"
            for end in _ENDS
            if scores.get(end, 0.0) > allowed
        ]
        if scores.get("empty_share", 0.0) > limits["empty_share"]:
            reasons.append(f"{scores['empty_share']:.0%} of the slices hold no body; allowed: {limits['empty_share']:.0%}")
        return reasons
