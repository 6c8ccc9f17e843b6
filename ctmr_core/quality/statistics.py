"""What all checks share: one pass over image and label map counts every (label, value) pair.

Counts, means, spreads, medians, percentiles and extremes of any label or group of labels follow from that table without
touching a voxel again, so the time to judge does not depend on the number of labels.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

#: Values (CT: HU) told apart one by one. Both a clinical CT (-1024..3071) and a 12-bit MR fit; a wider range is counted in
#: equal bins of whole values, so that the table of 132 labels stays below 9 MB.
BINS = 8192
_SLAB = 1 << 20  # voxels at a time: the 64-bit index of a slab stays within the cache of one core


@dataclass(frozen=True, eq=False)
class Distribution:
    """Values of some voxels. counts: int64, one entry per bin; bin i holds the values low + i*width ... low + (i+1)*width - 1."""

    low: int
    width: int
    counts: np.ndarray

    @property
    def voxels(self) -> int:
        return int(self.counts.sum())

    @property
    def values(self) -> np.ndarray:
        """The value each bin stands for (float64): its middle; exact where ``width`` is 1."""
        return self.low + self.width * np.arange(len(self.counts), dtype=np.float64) + (self.width - 1) / 2

    @property
    def mean(self) -> float:
        return float(self.values @ self.counts / self.voxels) if self.voxels else float("nan")

    @property
    def sd(self) -> float:
        """Standard deviation of the population."""
        return float(np.sqrt((self.values - self.mean) ** 2 @ self.counts / self.voxels)) if self.voxels else float("nan")

    @property
    def median(self) -> float:
        """As ``numpy.median``: the mean of the two middle values of an even number."""
        last = self.voxels - 1
        return (self._ranked(last // 2) + self._ranked((last + 1) // 2)) / 2 if last >= 0 else float("nan")

    @property
    def mad(self) -> float:
        """Median absolute deviation from the median."""
        if not self.voxels:
            return float("nan")
        off = np.abs(self.values - self.median)
        order = np.argsort(off, kind="stable")
        reached = np.searchsorted(np.cumsum(self.counts[order]), (self.voxels + 1) // 2)
        return float(off[order[reached]])

    @property
    def smallest(self) -> float:
        return self._ranked(0) if self.voxels else float("nan")

    @property
    def largest(self) -> float:
        return self._ranked(self.voxels - 1) if self.voxels else float("nan")

    def percentile(self, percent: float) -> float:
        """As ``numpy.percentile`` (linear interpolation between ranks)."""
        if not self.voxels:
            return float("nan")
        rank = percent / 100 * (self.voxels - 1)
        lower = int(rank)
        below = self._ranked(lower)
        return below + (rank - lower) * (self._ranked(min(lower + 1, self.voxels - 1)) - below)

    def voxels_between(self, low: float, high: float) -> int:
        """Voxels whose bin lies in ``low`` <= value <= ``high``."""
        values = self.values
        return int(self.counts[(values >= low) & (values <= high)].sum())

    def _ranked(self, rank: int) -> float:
        place = int(np.searchsorted(np.cumsum(self.counts), rank, side="right"))
        return self.low + self.width * place + (self.width - 1) / 2


@dataclass(frozen=True, eq=False)
class LabelHistogram:
    """How often each value occurs in each label of one image.

    ids: label ids in ascending order, background (0) among them. counts: int64 [label, bin].
    """

    ids: np.ndarray
    low: int
    width: int
    counts: np.ndarray

    def of(self, labels: Iterable[int]) -> Distribution:
        """All voxels of the labels together; labels that don't occur add nothing."""
        rows = np.isin(self.ids, list(labels))
        return Distribution(self.low, self.width, self.counts[rows].sum(axis=0))

    @property
    def whole(self) -> Distribution:
        """Every voxel of the image."""
        return Distribution(self.low, self.width, self.counts.sum(axis=0))

    @property
    def body(self) -> Distribution:
        """Every labelled voxel."""
        return Distribution(self.low, self.width, self.counts[self.ids != 0].sum(axis=0))


def count_values(labels: np.ndarray, image: np.ndarray, ids: Iterable[int] | None = None) -> LabelHistogram:
    """Count (label, value) pairs: ``labels`` unsigned integers, ``image`` integers or floats (rounded), both [x, y, z].

    ids: every id that occurs in ``labels``, and perhaps others; saves the pass that looks for them.

    Values that are not finite count as the image's smallest finite one; the check ``finite`` refuses such images anyway.
    """
    order: Literal["C", "F"] = "F" if labels.flags.f_contiguous and image.flags.f_contiguous else "C"
    flat_labels, flat_image = labels.ravel(order), image.ravel(order)
    known = np.array(sorted(set(ids)), np.intp) if ids is not None else _occurring(flat_labels)
    low, high = _range(flat_image)
    width = max(-(-(high - low + 1) // BINS), 1)
    bins = (high - low) // width + 1
    row_start = np.zeros(int(known.max(initial=0)) + 1, np.intp)
    row_start[known] = np.arange(len(known)) * bins
    counts = np.zeros(len(known) * bins, np.int64)
    for part in _slabs(flat_image.size):
        values = flat_image[part]
        if np.issubdtype(values.dtype, np.floating):
            values = np.rint(np.nan_to_num(values, nan=low, posinf=low, neginf=low))
        index = values.astype(np.intp)
        index -= low
        if width > 1:
            index //= width
        index += row_start[flat_labels[part]]
        counts += np.bincount(index, minlength=counts.size)
    return LabelHistogram(known, low, width, counts.reshape(len(known), bins))


def _occurring(flat_labels: np.ndarray) -> np.ndarray:
    """Ids that occur, ascending."""
    present = np.zeros(int(flat_labels.max(initial=0)) + 1, bool)
    for part in _slabs(flat_labels.size):
        present[flat_labels[part]] = True
    return np.flatnonzero(present)


def _slabs(size: int) -> Iterable[slice]:
    return (slice(start, start + _SLAB) for start in range(0, size, _SLAB))


def _range(flat: np.ndarray) -> tuple[int, int]:
    """Smallest and largest finite value, rounded; (0, 0) when there is none."""
    if np.issubdtype(flat.dtype, np.floating):
        flat = flat[np.isfinite(flat)]
    return (round(float(flat.min())), round(float(flat.max()))) if flat.size else (0, 0)
