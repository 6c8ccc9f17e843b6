"""How far KID, precision and the like would be off had other volumes been drawn: the delete-a-group jackknife.

Volumes are dealt into groups; every measure is taken again without each group of the one set, then of the other, and the spread
of these values, times (groups - 1) / groups, is the variance (Quenouille 1956, Tukey 1958; of two samples: the sum of both).
Nothing is drawn twice, as a bootstrap would: a vector beside its own copy has a nearest neighbour at distance 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ctmr_core.assessment.coverage import distances_between, kernel

GROUPS = 20
_FEWEST = 8  # volumes on both sides, to say anything
_ROWS = 512  # of a kernel matrix at a time
_NORMAL = 1.96
SHARES = ("precision", "recall", "density", "coverage")


def interval(value: float, spread: float, low: float = -math.inf, high: float = math.inf) -> dict[str, float]:
    """The 95 % interval {"low", "high"} of a normal distribution, cut where the measure ends."""
    return {"low": max(value - _NORMAL * spread, low), "high": min(value + _NORMAL * spread, high)}


def kernel_spread(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> float | None:
    """Standard error of the mean over ``pairs`` (one of each plane, rows [volumes, d]) of ``coverage.kernel_distance``.

    None with fewer than 8 volumes. Of the unbiased estimate over all rows: sums of the kernel over groups give every value
    without a group, so that the kernel is taken once. Memory: 512 rows of a kernel matrix.
    """
    n, m = len(pairs[0][0]), len(pairs[0][1])
    if min(n, m) < _FEWEST:
        return None
    found = [_without_groups(*(np.asarray(rows, np.float64) for rows in pair)) for pair in pairs]
    left, right = (np.mean([side[i] for side in found], axis=0) for i in (0, 1))
    return math.sqrt(_variance(left) + _variance(right))


def shares_spread(real: np.ndarray, made: np.ndarray, neighbours: int = 5) -> dict[str, float]:
    """Standard errors of ``coverage.precision_recall``; empty where it is, and with fewer than 8 volumes.

    Memory: three matrices float32 of the distances between all rows.
    """
    if min(len(real), len(made)) < max(_FEWEST, 2 * neighbours):
        return {}
    real, made = np.asarray(real, np.float64), np.asarray(made, np.float64)
    near, own, across = (distances_between(a, b).astype(np.float32) for a, b in ((real, real), (made, made), (real, made)))
    radii = _radii(near, neighbours), _radii(own, neighbours)
    without_real = [
        _shares(_radii(near[np.ix_(kept, kept)], neighbours), radii[1], across[kept], neighbours) for kept in _left(len(real))
    ]
    without_made = [
        _shares(radii[0], _radii(own[np.ix_(kept, kept)], neighbours), across[:, kept], neighbours) for kept in _left(len(made))
    ]
    variances = _variance(np.array(without_real)) + _variance(np.array(without_made))
    return {name: math.sqrt(variance) for name, variance in zip(SHARES, variances, strict=True)}


def _variance(values: np.ndarray) -> np.ndarray:
    """Jackknife variance of values [groups, ...]."""
    off = values - values.mean(axis=0)
    return np.asarray((off**2).sum(axis=0) * ((len(values) - 1) / len(values)))


def _left(rows: int) -> list[np.ndarray]:
    """The rows that are left without each group."""
    groups = min(GROUPS, rows)
    return [np.flatnonzero(np.arange(rows) % groups != group) for group in range(groups)]


def _radii(distances: np.ndarray, neighbours: int) -> np.ndarray:
    return np.asarray(np.partition(distances, neighbours, axis=1)[:, neighbours])  # itself is the nearest


def _shares(real_radius: np.ndarray, made_radius: np.ndarray, across: np.ndarray, neighbours: int) -> list[float]:
    """Values of :data:`SHARES`. across: distances [real, made]."""
    inside = across < real_radius[:, None]
    precision, density = inside.any(axis=0).mean(), inside.sum() / (neighbours * across.shape[1])
    recall, coverage = (across < made_radius[None]).any(axis=1).mean(), inside.any(axis=1).mean()
    return [float(precision), float(recall), float(density), float(coverage)]


def _without_groups(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The squared maximum mean discrepancy without each group of x, and without each group of y."""
    (xx, x_own, x_count), (yy, y_own, y_count) = (_within(rows) for rows in (x, y))
    xy = _group_sums(x, y)
    n, m = len(x), len(y)
    whole_x, whole_y = (xx.sum() - x_own.sum()) / (n * (n - 1)), (yy.sum() - y_own.sum()) / (m * (m - 1))
    left_x, left_y = n - x_count, m - y_count
    less_x = (xx.sum() - xx.sum(axis=0) - xx.sum(axis=1) + np.diag(xx) - x_own.sum() + x_own) / (left_x * (left_x - 1))
    less_y = (yy.sum() - yy.sum(axis=0) - yy.sum(axis=1) + np.diag(yy) - y_own.sum() + y_own) / (left_y * (left_y - 1))
    without_x = less_x + whole_y - 2 * (xy.sum() - xy.sum(axis=1)) / (left_x * m)
    without_y = whole_x + less_y - 2 * (xy.sum() - xy.sum(axis=0)) / (left_y * n)
    return without_x, without_y


def _within(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sums of the kernel between groups [groups, groups], of its diagonal [groups], and rows per group."""
    groups = min(GROUPS, len(rows))
    group = np.arange(len(rows)) % groups
    own = np.bincount(group, ((rows**2).sum(axis=1) / rows.shape[1] + 1) ** 3, groups)
    return _group_sums(rows, rows), own, np.bincount(group, minlength=groups)


def _group_sums(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """float64 [groups of x, groups of y]: sums of the kernel over all pairs."""
    across, down = (np.eye(min(GROUPS, len(rows)))[np.arange(len(rows)) % min(GROUPS, len(rows))] for rows in (x, y))
    sums = np.zeros((across.shape[1], down.shape[1]))
    for start in range(0, len(x), _ROWS):
        part = slice(start, start + _ROWS)
        sums += across[part].T @ (kernel(x[part], y) @ down)
    return sums
