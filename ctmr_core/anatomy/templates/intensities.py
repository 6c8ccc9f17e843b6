"""What each label measures in the template's own image."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ctmr_core.anatomy.label_census import LabelCensus
from ctmr_core.anatomy.label_map import LabelIntensity

SMALLEST_INTERIOR = 50
IQR_OF_NORMAL = 1.349  # interquartile range of a normal distribution of standard deviation 1


def measure_intensities(
    labels: np.ndarray, image: np.ndarray, census: LabelCensus, skip: Iterable[int] = ()
) -> dict[int, LabelIntensity]:
    """Median and spread of ``image`` in every label of ``census`` not in ``skip``, by label id.

    labels, image: [x, y, z] on one grid. Voxels with a neighbour (6 of them) of another label are left out where at
    least 50 voxels remain, so that partial volume does not count. spread: interquartile range / 1.349, a standard
    deviation that a metal implant or a calcification does not inflate. Values are rounded to 0.01.
    """
    skipped = frozenset(skip)
    measured: dict[int, LabelIntensity] = {}
    for label, entry in census.entries.items():
        if label in skipped:
            continue
        box = tuple(slice(entry.box[axis], entry.box[axis + 3]) for axis in range(3))
        mask = labels[box] == label
        interior = _interior(mask, _grown(labels, entry.box, label))
        values = image[box][interior if np.count_nonzero(interior) >= SMALLEST_INTERIOR else mask]
        lower, median, upper = np.percentile(values.astype(np.float32), (25, 50, 75))
        measured[label] = LabelIntensity(round(float(median), 2), round(float(upper - lower) / IQR_OF_NORMAL, 2))
    return measured


def _grown(labels: np.ndarray, box: tuple[int, ...], label: int) -> np.ndarray:
    """The label in its box grown by one voxel; outside the volume counts as the label (a cut organ has no surface there)."""
    start = [max(0, box[axis] - 1) for axis in range(3)]
    stop = [min(labels.shape[axis], box[axis + 3] + 1) for axis in range(3)]
    pad = [(start[axis] - box[axis] + 1, box[axis + 3] + 1 - stop[axis]) for axis in range(3)]
    crop = labels[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] == label
    return np.pad(crop, pad, constant_values=True)


def _interior(mask: np.ndarray, grown: np.ndarray) -> np.ndarray:
    inner = slice(1, -1)
    interior = mask.copy()
    for axis in range(3):
        for side in (slice(0, -2), slice(2, None)):
            window = [inner, inner, inner]
            window[axis] = side
            interior &= grown[tuple(window)]
    return interior
