"""Do structures have a human size."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from functools import cache
from importlib import resources
from math import log
from typing import ClassVar

from ctmr_core.cases.case import Case
from ctmr_core.quality.base import Candidate, ScoredCheck
from ctmr_core.quality.settings import Thresholds
from ctmr_core.quality.structures import shows_anatomy

_SMALLEST = 20  # voxels: a structure of fewer can't be measured


@cache
def norms() -> dict[tuple[str, str], tuple[float, float]]:
    """(vocabulary, label) -> least and greatest volume in ml; sources are in the table."""
    text = (resources.files("ctmr_core.quality") / "data" / "structure_volumes.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(text.splitlines())
    return {(row["vocabulary"], row["label"]): (float(row["low_ml"]), float(row["high_ml"])) for row in rows}


class VolumesCheck(ScoredCheck):
    """The volume of each structure lies within what adults have. Those that the field of view cuts, or that a lesion touches and
    may have taken from, may be smaller.

    The score of a structure is 0 in the middle of its norm, -1 at the lower and 1 at the upper end, on a logarithmic scale, so
    one threshold serves all. Lesions are not judged here.
    """

    name = "volumes"
    version = "2"
    #: The table already spans 4 SD; ``far`` leaves another 10 % of the logarithmic range for small and large people.
    thresholds: ClassVar[Thresholds] = {"far": 1.1, "outside": 0.0}

    def applies(self, case: Case) -> bool:
        return shows_anatomy(case)

    def measure(self, candidate: Candidate) -> dict[str, float]:
        vocabulary, scores = candidate.label_map.vocabulary, {}
        lesions = [s.id for s in candidate.structures.values() if vocabulary.label(s.id).group == "lesion"]
        for name, structure in candidate.structures.items():
            limits = norms().get((vocabulary.name, name))
            if limits is None or structure.voxels < _SMALLEST:
                continue
            low, high = limits
            place = 2 * log(structure.ml / low) / log(high / low) - 1
            untouched = structure.whole and not (lesions and candidate.contacts.between([structure.id], lesions))
            scores[name] = place if untouched else max(place, 0.0)
        return scores

    def decide(self, case: Case, scores: Mapping[str, float], limits: Mapping[str, float]) -> list[str]:
        del case
        far = {name: place for name, place in scores.items() if abs(place) > limits["far"]}
        if len(far) <= limits["outside"]:
            return []
        ordered = sorted(far, key=lambda name: -abs(far[name]))
        return [f"{name} is too {'large' if far[name] > 0 else 'small'} for an adult" for name in ordered[:5]]
