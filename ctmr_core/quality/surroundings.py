"""Is there nothing but air around the body: no table that was not asked for, no cushion, no bright background."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from scipy import ndimage

from ctmr_core.anatomy.sequences import is_ct
from ctmr_core.cases.case import Case
from ctmr_core.quality.base import Candidate, ScoredCheck
from ctmr_core.quality.settings import Thresholds
from ctmr_core.quality.structures import is_surrounded, shows_anatomy
from ctmr_core.quality.table import table_of
from ctmr_core.quality.tissue_classes import AIR_HU, SMALLEST_BACKGROUND, thinned

_WITHOUT_BACKGROUND = ("mri_adc", "mri_dwi", "mri_mra")  # quotients and suppressed backgrounds


class SurroundingsCheck(ScoredCheck):
    """CT: bright voxels outside the body, away from the skin, relative to the body, and the median HU of what is outside.
    MR: the background's 95th percentile relative to the body's median.

    The rim of two thinned voxels around the body is left out: partial volume makes it bright. Imported maps of organs alone
    are passed over, and so is what lies behind the back where the case asks for a table.
    """

    name = "surroundings"
    version = "4"
    #: Pieces of a table make up 8-28 % of the body's voxels, scans whose table was removed less than 0.3 % (MAISI's body
    #: envelope), one with its thin cloth 1.3 %. The
    #: background of magnitude MR is noise, some percent of the signal; ghosts and wrap-around reach a third of it.
    #: Air is -1000 HU by definition; scanners pad with -1024 and store down to -1100. An image shifted by 50 HU has no air left.
    thresholds: ClassVar[Thresholds] = {
        "ct_stray_share": 0.02,
        "ct_air_low": -1100.0,
        "ct_air_high": -950.0,
        "mr_background": 0.4,
    }

    def applies(self, case: Case) -> bool:
        return shows_anatomy(case)

    def measure(self, candidate: Candidate) -> dict[str, float]:
        if not is_surrounded(candidate):
            return {}
        region = thinned(candidate)
        body = candidate.label_map.voxels[region] != 0
        if np.count_nonzero(~body) < SMALLEST_BACKGROUND * body.size or not body.any():
            return {}
        away = ~ndimage.binary_dilation(body, iterations=2) & ~table_of(candidate, body, region)
        scores: dict[str, float] = {}
        for sequence, image in candidate.images.items():
            if is_ct(sequence):
                outside = image[region][away]
                scores[f"{sequence}/stray_share"] = float(np.count_nonzero(outside > AIR_HU) / np.count_nonzero(body))
                if outside.size >= SMALLEST_BACKGROUND * away.size:
                    scores[f"{sequence}/air"] = float(np.median(outside))
            elif not sequence.startswith(_WITHOUT_BACKGROUND) and np.count_nonzero(away) >= SMALLEST_BACKGROUND * away.size:
                background = float(np.percentile(image[region][away], 95))
                scores[f"{sequence}/background"] = background / max(candidate.histogram(sequence).body.median, 1.0)
        return scores

    def decide(self, case: Case, scores: Mapping[str, float], limits: Mapping[str, float]) -> list[str]:
        del case
        reasons = []
        for name, value in scores.items():
            sequence, _, what = name.partition("/")
            if what == "stray_share" and value > limits["ct_stray_share"]:
                allowed = f"{limits['ct_stray_share']:.1%}"
                reasons.append(f"{sequence} shows something beside the body: {value:.1%} of its volume; allowed: {allowed}")
            elif what == "air" and not limits["ct_air_low"] <= value <= limits["ct_air_high"]:
                allowed = f"{limits['ct_air_low']:g}..{limits['ct_air_high']:g}"
                reasons.append(f"{sequence}: the air around the body has {value:.0f} HU; allowed: {allowed}")
            elif what == "background" and value > limits["mr_background"]:
                allowed = f"{limits['mr_background']:.2f}"
                reasons.append(f"{sequence}: the background has {value:.2f} of the body's signal; allowed: {allowed}")
        return reasons
