"""Do neighbouring slices belong together: no seam of windowed decoding, no repeated, lost or shifted slice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from scipy import ndimage

from ctmr_core.anatomy.sequences import is_ct
from ctmr_core.cases.case import Case
from ctmr_core.quality.base import Candidate, ScoredCheck
from ctmr_core.quality.settings import Thresholds
from ctmr_core.quality.tissue_classes import AIR_HU

_SAMPLES = 160  # per axis across the direction looked along
_PAIRS = 300  # voxel pairs inside structures from which a change counts in full; a step from right to left must have so many
_FULL = 500  # pairs from which a jump counts in full: fewer may lie in one streak of fat, and count in proportion
_FEWEST = 100  # pairs a step must have to be judged
_SHARE = 0.25  # of the pairs of the fullest step: thinner ones are the ends of organs and the midline
_EVEN_GROUPS = frozenset({"organ", "muscle", "brain", "heart"})
_UNEVEN_IN_MR = frozenset({"heart"})  # its wall and its blood have one label and different signals
_UNEVEN_SEQUENCES = ("mri_swi", "mri_mra")  # fields beside air and vessels make real steps
_SIGNAL_SHARE = 0.15  # of the brightest percent of an image: more is no background
_AROUND = 9  # steps a step is compared with
_AXES = ("right_left", "front_back", "head_foot")


class ContinuityCheck(ScoredCheck):
    """Differences from slice to slice along each axis, inside organs and muscles only: pairs of voxels with the same label. Of
    bodies without labels all that is not dark counts as one.

    jump: the largest shift of the mean between two slices, in units of the usual difference of neighbouring voxels there (a seam
    shifts a whole plane, noise averages out). change: the largest mean absolute difference over what is usual around it.
    repeat: the smallest of these ratios; 0 where a slice is the copy of its neighbour.
    """

    name = "continuity"
    version = "4"
    #: Noise of a plane of 300 pairs shifts its mean by 0.06 of the difference of neighbours; a seam of one noise SD by 0.7. Real
    #: scans reach 0.2 and 1.5, rendered bodies at 3 to 5 mm 0.45 and 1.8; exchanged slices begin at 2.3.
    thresholds: ClassVar[Thresholds] = {"jump": 0.5, "change": 2.0, "repeat": 0.4}

    def measure(self, candidate: Candidate) -> dict[str, float]:
        labels = candidate.label_map.voxels
        scores: dict[str, float] = {}
        for sequence, image in candidate.images.items():
            if sequence.startswith(_UNEVEN_SEQUENCES):
                continue
            if candidate.case.unlabelled_region is None:
                asked = _even(candidate, _EVEN_GROUPS if is_ct(sequence) else _EVEN_GROUPS - _UNEVEN_IN_MR)
            else:
                labels, asked = _shown(candidate, sequence), np.array([False, True])
            for axis, name in enumerate(_AXES):
                shift, size, pairs = _steps(image, labels, axis, asked)
                # at the midline of a head few voxels are left, and what lies on its two sides slopes towards it
                fewest = _PAIRS if axis == 0 else _FEWEST
                judged = pairs >= max(fewest, _SHARE * pairs.max(initial=0))
                if np.count_nonzero(judged) < _AROUND:
                    continue
                shift, size, weight = shift[judged], size[judged], np.minimum(pairs[judged] / _PAIRS, 1.0)
                usual = np.maximum(ndimage.median_filter(size, _AROUND, mode="nearest"), 1e-6)
                change = 1.0 + weight * (size / usual - 1.0)
                full = np.minimum(pairs[judged] / _FULL, 1.0)
                scores[f"{sequence}/jump_{name}"] = _jump(shift / usual, full, np.flatnonzero(judged))
                scores[f"{sequence}/change_{name}"] = float(change.max())
                scores[f"{sequence}/repeat_{name}"] = float(change.min())
        return scores

    def decide(self, case: Case, scores: Mapping[str, float], limits: Mapping[str, float]) -> list[str]:
        del case
        reasons = []
        for name, value in scores.items():
            sequence, _, rest = name.partition("/")
            what, _, axis = rest.partition("_")
            along = axis.replace("_", "-")
            if what == "jump" and value > limits["jump"]:
                reasons.append(f"{sequence} has a seam {along}: a plane jumps by {value:.2f}; allowed: {limits['jump']:g}")
            elif what == "change" and value > limits["change"]:
                reasons.append(
                    f"{sequence} is broken {along}: a slice differs {value:.1f} times as usual; allowed: {limits['change']:g}"
                )
            elif what == "repeat" and value < limits["repeat"]:
                reasons.append(f"{sequence} repeats a slice {along}: it differs {value:.2f} of the usual")
        return reasons


def _even(candidate: Candidate, groups: frozenset[str]) -> np.ndarray:
    """bool table, index = label id: is it of one of ``groups``."""
    vocabulary = candidate.label_map.vocabulary
    asked = np.zeros(max(*vocabulary.by_id, *candidate.census.labels, 0) + 1, bool)
    asked[[label.id for label in vocabulary if label.group in groups]] = True
    return asked


def _shown(candidate: Candidate, sequence: str) -> np.ndarray:
    """uint8: 1 where the image shows something, 0 where it is dark."""
    whole = candidate.histogram(sequence).whole
    level = AIR_HU if is_ct(sequence) else _SIGNAL_SHARE * whole.percentile(99)
    return (candidate.images[sequence] > level).view(np.uint8)


def _jump(shift: np.ndarray, weight: np.ndarray, steps: np.ndarray) -> float:
    """How far a shift lies from those around it, at most; across a gap a slope would look like a jump."""
    runs = np.split(shift, np.flatnonzero(np.diff(steps) > 1) + 1)
    trend = np.concatenate([ndimage.median_filter(run, _AROUND, mode="nearest") for run in runs])
    return float((weight * np.abs(shift - trend)).max())


def _steps(image: np.ndarray, labels: np.ndarray, axis: int, asked: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean difference, mean absolute difference and number of pairs for every step from slice to slice."""
    stride = [1 if a == axis else max(1, -(-n // _SAMPLES)) for a, n in enumerate(image.shape)]
    region = tuple(slice(None, None, step) for step in stride)
    values = np.moveaxis(image[region], axis, 0)
    inside = np.moveaxis(labels[region], axis, 0)
    count = values.shape[0] - 1
    shift, size, pairs = np.zeros(count), np.zeros(count), np.zeros(count, np.int64)
    for i in range(count):
        # one voxel more on either side has the label too, so that no partial volume is compared
        same = (inside[i] == inside[i + 1]) & asked[inside[i]]
        same &= (inside[max(i - 1, 0)] == inside[i]) & (inside[min(i + 2, count)] == inside[i])
        difference = np.subtract(values[i + 1], values[i], dtype=np.float32)[same]
        pairs[i] = difference.size
        if difference.size:
            # vessels and gas inside a structure weigh no more than a tissue edge
            limit = 3 * float(np.median(np.abs(difference))) + 1
            np.clip(difference, -limit, limit, out=difference)
            shift[i], size[i] = difference.mean(), np.abs(difference).mean()
    return shift, size, pairs
