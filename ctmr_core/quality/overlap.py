"""Do image and label map show the same body: tissue that must be bright against air around it, overlap measured by Dice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from ctmr_core.anatomy.sequences import SKULL_STRIPPED, is_ct
from ctmr_core.cases.case import IMPORTED, Case
from ctmr_core.quality.base import Candidate, ScoredCheck
from ctmr_core.quality.settings import Thresholds
from ctmr_core.quality.structures import is_surrounded
from ctmr_core.quality.table import table_of
from ctmr_core.quality.tissue_classes import AIR_HU, SMALLEST_BACKGROUND, kinds_table, thinned, tissue_codes

_SIGNAL_SHARE = 0.15  # of the median soft-tissue signal: above the noise of any usable scan, below muscle in T2
_WITHOUT_BACKGROUND = frozenset({"mri_adc", "mri_dwi", "mri_mra"})  # quotient and suppressed-background images
_BRAIN_GROUPS = frozenset({"brain", "fluid", "lesion"})


class OverlapCheck(ScoredCheck):
    """Dice of "the image shows tissue" with "the labels say tissue", over tissue and surrounding air.

    Gas, lung, bone, blood and fluid may be dark or bright and are left out (bone only in MR). Looked at on at most 128
    samples per axis. Passed over when no air is in view, and for imported maps of organs alone. In other imported maps what is
    dark in "body" may be a lung or gas that nobody labelled, and is left out. So is a table that the case asks for.
    """

    name = "overlap"
    version = "3"
    uses_tissues = True
    #: A shift of a body by a tenth of its width costs about 0.1 of Dice. In T2 muscle is nearly as dark as air where voxels are
    #: large. Gradient echoes of long echo time rightly lose signal in fat and beside air, so susceptibility-weighted images
    #: overlap less.
    thresholds: ClassVar[Thresholds] = {"ct_dice": 0.9, "mr_dice": 0.8, "swi_dice": 0.65}

    def measure(self, candidate: Candidate) -> dict[str, float]:
        if not is_surrounded(candidate):
            return {}
        region = thinned(candidate)
        codes = tissue_codes(candidate, region)
        labels = candidate.label_map.voxels[region]
        background = (labels == 0) & ~table_of(candidate, labels != 0, region)
        scores: dict[str, float] = {}
        for sequence, image in candidate.images.items():
            if sequence in _WITHOUT_BACKGROUND or sequence.startswith("mri_mra"):
                continue
            sample = image[region]
            kinds = ("soft", "fat", "fluid", "brain", "blood", "bone", "lesion") if is_ct(sequence) else ("soft", "fat", "brain")
            tissue = kinds_table(*kinds)[codes]
            outside = background
            if sequence.endswith(SKULL_STRIPPED):
                brain = _brain_table(candidate)[labels]
                outside = ~brain
                tissue = tissue & brain
            if np.count_nonzero(outside) < SMALLEST_BACKGROUND * outside.size or not tissue.any():
                continue
            threshold = AIR_HU if is_ct(sequence) else _SIGNAL_SHARE * float(np.median(sample[tissue]))
            bright = sample > threshold
            if candidate.case.engine == IMPORTED:
                tissue = tissue & (bright | (labels != _body_of(candidate)))
            common = np.count_nonzero(bright & tissue)
            shown = np.count_nonzero(tissue) + common + np.count_nonzero(bright & outside)
            scores[f"{sequence}/dice"] = float(2 * common / shown)
        return scores

    def decide(self, case: Case, scores: Mapping[str, float], limits: Mapping[str, float]) -> list[str]:
        del case
        reasons = []
        for score, dice in scores.items():
            sequence = score.partition("/")[0]
            allowed = limits[lower_limit_of(sequence)]
            if not dice >= allowed:
                reasons.append(f"{sequence} and its labels overlap with a Dice of {dice:.2f}; allowed: {allowed:g} or more")
        return reasons


def _body_of(candidate: Candidate) -> int:
    """The label of what no other label says; -1 where the vocabulary has none."""
    vocabulary = candidate.label_map.vocabulary
    return next((label.id for label in vocabulary if label.name == "body"), -1)


def lower_limit_of(sequence: str) -> str:
    """The threshold of ``overlap`` that bounds the Dice of a sequence."""
    return "ct_dice" if is_ct(sequence) else "swi_dice" if sequence.startswith("mri_swi") else "mr_dice"


def _brain_table(candidate: Candidate) -> np.ndarray:
    """bool table, index = label id: does the label stay when the skull is stripped."""
    vocabulary = candidate.label_map.vocabulary
    table = np.zeros(max(vocabulary.by_id) + 1, bool)
    table[[label.id for label in vocabulary if label.group in _BRAIN_GROUPS and label.id < 500]] = True
    return table
