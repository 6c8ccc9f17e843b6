"""Two sets of feature vectors compared without assuming that they are normal: KID, precision, recall, density, coverage."""

from __future__ import annotations

import numpy as np

_ROWS = 512  # of a distance matrix at a time


def kernel_distance(
    a: np.ndarray, b: np.ndarray, rng: np.random.Generator, subsets: int = 50, size: int = 500
) -> tuple[float, float]:
    """Kernel Inception Distance's estimate (Binkowski et al. 2018) on any features: (mean, sd over subsets).

    Unbiased squared maximum mean discrepancy with the kernel (x.y / d + 1)^3, over ``subsets`` random subsets of ``size`` rows
    of each (all rows, once, where there are fewer). a, b: [rows, d]. It is below 0 for about half of all equal sets.
    """
    size = min(size, len(a), len(b))
    if size < 2:
        return float("nan"), float("nan")
    if size == len(a) == len(b):
        subsets = 1
    found = []
    for _ in range(subsets):
        x = np.asarray(a[rng.choice(len(a), size, replace=False)], np.float64)
        y = np.asarray(b[rng.choice(len(b), size, replace=False)], np.float64)
        found.append(_mmd(x, y))
    return float(np.mean(found)), float(np.std(found))


def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """float64 [rows of x, rows of y]: (x.y / d + 1)^3."""
    values = x @ y.T / x.shape[1] + 1
    return values * values * values  # a fifth of the time of ** 3


def _mmd(x: np.ndarray, y: np.ndarray) -> float:
    n = len(x)
    within = 0.0
    for rows in (x, y):
        values = kernel(rows, rows)
        within += (values.sum() - np.trace(values)) / (n * (n - 1))
    return float(within - 2 * kernel(x, y).mean())


def precision_recall(real: np.ndarray, made: np.ndarray, neighbours: int = 5) -> dict[str, float]:
    """Precision and recall (Kynkaanniemi et al. 2019), density and coverage (Naeem et al. 2020), by k nearest neighbours.

    precision: share of made vectors inside the ball of some real one (to its k-th real neighbour); recall: the other way
    round; density: real balls a made vector is in, over k (may exceed 1); coverage: share of real balls with a made vector.
    real, made: [rows, d], more than k rows each. Memory: 512 rows of a distance matrix.
    """
    if min(len(real), len(made)) <= neighbours:
        return {}
    real, made = np.asarray(real, np.float64), np.asarray(made, np.float64)
    real_radius, made_radius = _radii(real, neighbours), _radii(made, neighbours)
    inside_made = np.zeros(len(made), np.int64)
    covered = np.zeros(len(real), bool)
    recalled = np.zeros(len(real), bool)
    for start in range(0, len(real), _ROWS):
        part = slice(start, start + _ROWS)
        distances = distances_between(real[part], made)
        inside = distances < real_radius[part, None]
        inside_made += inside.sum(axis=0)
        covered[part] = distances.min(axis=1) < real_radius[part]
        recalled[part] = (distances < made_radius[None]).any(axis=1)
    return {
        "precision": float((inside_made > 0).mean()),
        "recall": float(recalled.mean()),
        "density": float(inside_made.mean() / neighbours),
        "coverage": float(covered.mean()),
    }


def _radii(rows: np.ndarray, neighbours: int) -> np.ndarray:
    """Distance of every row to its k-th nearest other row."""
    found = np.empty(len(rows))
    for start in range(0, len(rows), _ROWS):
        distances = distances_between(rows[start : start + _ROWS], rows)
        found[start : start + _ROWS] = np.partition(distances, neighbours, axis=1)[:, neighbours]  # itself is the nearest
    return found


def distances_between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """float64 [rows of a, rows of b]: Euclidean."""
    squares = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None] - 2 * (a @ b.T)
    return np.sqrt(np.maximum(squares, 0.0))
