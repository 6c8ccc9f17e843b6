"""Is left left, and is the order of vertebrae, ribs and lobes that of a body."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import ClassVar

from ctmr_core.cases.case import Case
from ctmr_core.quality.base import Candidate, ScoredCheck
from ctmr_core.quality.settings import Thresholds
from ctmr_core.quality.structures import Structure, pairs_of, shows_anatomy

#: Right of one another in nearly everybody: (further to the right, further to the left).
_RIGHT_OF = (("liver", "spleen"), ("liver", "stomach"), ("gallbladder", "spleen"), ("inferior vena cava", "aorta"))
#: Crosses the midline: where it is cut off, the rest may lie on either side.
_CROSSING = ("left brachiocephalic vein",)
SPINE = (
    *(f"vertebrae C{level}" for level in range(1, 8)),
    *(f"vertebrae T{level}" for level in range(1, 13)),
    *(f"vertebrae L{level}" for level in range(1, 6)),
    "vertebrae S1",
)
_LOBES = (
    ("left lung upper lobe", "left lung lower lobe"),
    ("right lung upper lobe", "right lung middle lobe"),
    ("right lung upper lobe", "right lung lower lobe"),
)
#: In front of one another in everybody, lying or standing: (further to the front, further to the back).
_IN_FRONT_OF = (
    ("liver", "left autochthon"),
    ("liver", "right autochthon"),
    ("heart", "left autochthon"),
    ("heart", "right autochthon"),
    ("stomach", "left autochthon"),
    ("bladder", "sacrum"),
    ("sternum", "heart"),
    ("eyes", "brain stem"),
    ("brain stem", "left cerebellum cortex"),
    ("brain stem", "right cerebellum cortex"),
    ("left putamen", "left cerebellum cortex"),
    ("right putamen", "right cerebellum cortex"),
)
_ABOVE = (
    ("left thalamus", "brain stem"),
    ("right thalamus", "brain stem"),
    ("left caudate", "left cerebellum cortex"),
    ("right caudate", "right cerebellum cortex"),
    ("liver", "bladder"),
    ("heart", "colon"),
)
_SMALLEST = 20  # voxels a structure must have in view to be asked


class SidesCheck(ScoredCheck):
    """Left structures lie left of their right counterparts, liver right of spleen, cava right of aorta.

    A mirrored volume swaps all of them, a swapped label one pair. Pairs that touch the edge of view count too: what is left of
    them is still on their side (but for the left brachiocephalic vein, which crosses over).
    """

    name = "sides"
    version = "2"
    #: Number of pairs on the wrong side; no adult with normal situs has one (situs inversus: 1 in 10,000).
    thresholds: ClassVar[Thresholds] = {"swapped": 0.0}

    def applies(self, case: Case) -> bool:
        return shows_anatomy(case)

    def measure(self, candidate: Candidate) -> dict[str, float]:
        structures = {name: s for name, s in candidate.structures.items() if s.voxels >= _SMALLEST}
        scores = {}
        for left, right in pairs_of(structures):
            if left.name in _CROSSING and not (left.whole and right.whole):
                continue
            scores[left.name.removeprefix("left ")] = right.center[0] - left.center[0]
        for right_name, left_name in _RIGHT_OF:
            a, b = structures.get(right_name), structures.get(left_name)
            if a and b and a.whole and b.whole:
                scores[f"{right_name} right of {left_name}"] = a.center[0] - b.center[0]
        return scores

    def decide(self, case: Case, scores: Mapping[str, float], limits: Mapping[str, float]) -> list[str]:
        del case
        swapped = [name for name, mm in scores.items() if mm < 0]
        if len(swapped) <= limits["swapped"]:
            return []
        return [f"left and right are swapped: {', '.join(swapped[:6])}{' ...' if len(swapped) > 6 else ''}"]


class OrderCheck(ScoredCheck):
    """Vertebrae and ribs follow one another from head to foot without a gap; front is front and head is head.

    pitch, drop, ahead: mm to the vertebra above, to what lies above, from what lies behind to what lies in front.
    """

    name = "order"
    version = "2"
    #: mm from one vertebra's middle to the next: 12 (C4-C5) to 36 (L3-L4) in adults (ICRP 110 phantoms), with room for kyphosis
    #: and partial bodies at the edge of view. No level may be missing between two that are there.
    thresholds: ClassVar[Thresholds] = {"pitch_low": 6.0, "pitch_high": 55.0, "missing": 0.0, "disordered": 0.0}

    def applies(self, case: Case) -> bool:
        return shows_anatomy(case)

    def measure(self, candidate: Candidate) -> dict[str, float]:
        structures = {name: s for name, s in candidate.structures.items() if s.voxels >= _SMALLEST}
        scores: dict[str, float] = {}
        present = [level for level in SPINE if level in structures]
        if len(present) > 1:
            first, last = SPINE.index(present[0]), SPINE.index(present[-1])
            for level in SPINE[first : last + 1]:
                if level not in structures:
                    scores[f"missing/{level}"] = 1.0
            inner = [level for level in present if structures[level].whole]
            for upper, lower in itertools.pairwise(inner):
                if SPINE.index(lower) - SPINE.index(upper) == 1:
                    scores[f"pitch/{lower}"] = _distance(structures[upper], structures[lower])
                    scores[f"drop/{lower}"] = structures[upper].center[2] - structures[lower].center[2]
        for side in ("left", "right"):
            ribs = [structures.get(f"{side} rib {number}") for number in range(1, 13)]
            whole = [rib for rib in ribs if rib and rib.whole]
            for upper_rib, lower_rib in itertools.pairwise(whole):
                scores[f"drop/{lower_rib.name}"] = upper_rib.center[2] - lower_rib.center[2]
        for upper_name, lower_name in _LOBES:
            upper_lobe, lower_lobe = structures.get(upper_name), structures.get(lower_name)
            if upper_lobe and lower_lobe and upper_lobe.whole and lower_lobe.whole:
                scores[f"drop/{lower_name}"] = upper_lobe.center[2] - lower_lobe.center[2]
        for kind, pairs, axis in (("drop", _ABOVE, 2), ("ahead", _IN_FRONT_OF, 1)):
            for first_name, second_name in pairs:
                a, b = structures.get(first_name), structures.get(second_name)
                # a cut across the body leaves the front in front, not the upper above
                if a and b and (kind == "ahead" or (a.whole and b.whole)):
                    scores[f"{kind}/{second_name} and {first_name}"] = a.center[axis] - b.center[axis]
        return scores

    def decide(self, case: Case, scores: Mapping[str, float], limits: Mapping[str, float]) -> list[str]:
        del case
        reasons = []
        missing = [name.removeprefix("missing/") for name in scores if name.startswith("missing/")]
        if len(missing) > limits["missing"]:
            reasons.append(f"missing between its neighbours: {', '.join(missing)}")
        above = [name.removeprefix("drop/") for name, mm in scores.items() if name.startswith("drop/") and mm <= 0]
        if len(above) > limits["disordered"]:
            reasons.append(f"above what should lie above it: {', '.join(above[:6])}")
        behind = [name.removeprefix("ahead/") for name, mm in scores.items() if name.startswith("ahead/") and mm <= 0]
        if len(behind) > limits["disordered"]:
            reasons.append(f"front and back are swapped: {', '.join(behind[:6])}")
        for name, mm in scores.items():
            if name.startswith("pitch/") and not limits["pitch_low"] <= mm <= limits["pitch_high"]:
                level = name.removeprefix("pitch/")
                allowed = f"{limits['pitch_low']:g}..{limits['pitch_high']:g}"
                reasons.append(f"{level} is {mm:.0f} mm from the one above; allowed: {allowed} mm")
        return reasons


def _distance(a: Structure, b: Structure) -> float:
    return sum((p - q) ** 2 for p, q in zip(a.center, b.center, strict=True)) ** 0.5
