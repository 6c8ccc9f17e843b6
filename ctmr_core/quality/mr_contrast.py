"""Do tissues have the order of brightness that the MR sequence gives them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from ctmr_core.anatomy.sequences import SKULL_STRIPPED
from ctmr_core.cases.case import Case
from ctmr_core.quality.base import Candidate, ScoredCheck
from ctmr_core.quality.label_values import Box
from ctmr_core.quality.settings import Thresholds
from ctmr_core.quality.tissue_classes import interior_of

#: vocabulary -> class -> (tissues, labels they are looked for in).
CLASSES: dict[str, dict[str, tuple[tuple[str, ...], tuple[int, ...]]]] = {
    "brain": {
        "gm": (("cerebral_cortex",), (3, 42)),
        "wm": (("cerebral_white_matter",), (2, 41)),
        "csf": (("csf_ventricular",), (4, 43)),
    },
    "maisi": {
        "fat": (("subcutaneous_fat", "visceral_fat"), (200,)),
        "muscle": (("muscle",), (98, 99, 100, 101, 102, 103, 104, 105, 106, 107)),
    },
}
#: Ratios that are looked at, class over class, per vocabulary.
RATIOS = {"brain": (("gm", "wm"), ("csf", "wm")), "maisi": (("fat", "muscle"),)}
_VOXELS = 50


class MrContrastCheck(ScoredCheck):
    """Ratios of medians between tissues, per sequence: grey matter and fluid to white matter, fat to muscle.

    Thresholds are named ``<sequence>_<class>_over_<class>_low|high``; sequences without thresholds are only scored.
    """

    name = "mr_contrast"
    uses_tissues = True
    #: Signal equations with the relaxation times of 1.5 and 3 T (Stanisz et al. 2005; Wansapura et al. 1999) give, relative to
    #: white matter: T1 (MPRAGE) grey 0.55-0.71, fluid 0.2; T2 (5000/100 ms) grey 1.25-1.39, fluid 3.4; proton density
    #: (3300/35 ms) grey 1.07-1.19; FLAIR grey 0.90-1.35, fluid 0.17; susceptibility (28/20 ms, 15 degrees) grey 0.85-0.92.
    #: Fat is brighter than muscle in T1 and turbo-spin-echo T2 (de Bazelaire et al. 2004). The limits leave room for
    #: partial volume, coil shading and drawn protocols.
    thresholds: ClassVar[Thresholds] = {
        "mri_t1_gm_over_wm_low": 0.4,
        "mri_t1_gm_over_wm_high": 0.95,
        "mri_t1_csf_over_wm_low": 0.0,
        "mri_t1_csf_over_wm_high": 0.7,
        "mri_t1c_gm_over_wm_low": 0.4,
        "mri_t1c_gm_over_wm_high": 1.0,
        "mri_t1c_csf_over_wm_low": 0.0,
        "mri_t1c_csf_over_wm_high": 0.7,
        "mri_t2_gm_over_wm_low": 1.02,
        "mri_t2_gm_over_wm_high": 2.0,
        "mri_t2_csf_over_wm_low": 1.5,
        "mri_t2_csf_over_wm_high": 9.0,
        "mri_flair_gm_over_wm_low": 0.7,
        "mri_flair_gm_over_wm_high": 1.7,
        "mri_flair_csf_over_wm_low": 0.0,
        "mri_flair_csf_over_wm_high": 0.75,
        "mri_pd_gm_over_wm_low": 0.98,
        "mri_pd_gm_over_wm_high": 1.5,
        "mri_swi_gm_over_wm_low": 0.6,
        "mri_swi_gm_over_wm_high": 1.25,
        "mri_adc_csf_over_wm_low": 2.0,
        "mri_adc_csf_over_wm_high": 9.0,
        "mri_dwi_csf_over_wm_low": 0.0,
        "mri_dwi_csf_over_wm_high": 0.8,
        "mri_t1_fat_over_muscle_low": 1.2,
        "mri_t1_fat_over_muscle_high": 20.0,
        "mri_t2_fat_over_muscle_low": 1.2,
        "mri_t2_fat_over_muscle_high": 40.0,
    }

    def applies(self, case: Case) -> bool:
        return any(sequence.startswith("mri") for sequence in case.sequences)

    def measure(self, candidate: Candidate) -> dict[str, float]:
        vocabulary = candidate.label_map.vocabulary.name
        places = {name: interior_of(candidate, names, labels) for name, (names, labels) in CLASSES.get(vocabulary, {}).items()}
        scores = {}
        for sequence, image in candidate.images.items():
            if not sequence.startswith("mri"):
                continue
            medians = {name: _median(image, place) for name, place in places.items()}
            for upper, lower in RATIOS.get(vocabulary, ()):
                # The smallest signal a muscle or white matter can have is noise: 1 keeps a dark one from dividing by 0.
                ratio = medians[upper] / max(medians[lower], 1.0)
                if np.isfinite(ratio):
                    scores[f"{sequence}/{upper}_over_{lower}"] = ratio
        return scores

    def decide(self, case: Case, scores: Mapping[str, float], limits: Mapping[str, float]) -> list[str]:
        del case
        reasons = []
        for score, ratio in scores.items():
            sequence, _, classes = score.partition("/")
            upper, _, lower = classes.partition("_over_")
            name = f"{sequence.removesuffix(SKULL_STRIPPED)}_{classes}"
            low, high = limits.get(f"{name}_low", -np.inf), limits.get(f"{name}_high", np.inf)
            if not low <= ratio <= high:
                reasons.append(f"{sequence}: {_WORDS[upper]} is {ratio:.2f} times {_WORDS[lower]}; allowed: {low:g}..{high:g}")
        return reasons


_WORDS = {"gm": "cortex", "wm": "white matter", "csf": "ventricular fluid", "fat": "fat", "muscle": "muscle"}


def _median(image: np.ndarray, place: tuple[Box, np.ndarray] | None) -> float:
    """Median in a class, NaN where it is not in view."""
    if place is None:
        return float("nan")
    box, mask = place
    values = image[box][mask]
    return float(np.median(values)) if values.size >= _VOXELS else float("nan")
