"""Mean and covariance of features in one pass, and the Fréchet distance of two of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(eq=False)
class Moments:
    """count rows, their mean float64 [d], and ``scatter`` float64 [d, d]: the sum of outer products of what is off the mean."""

    count: float
    mean: np.ndarray
    scatter: np.ndarray

    @classmethod
    def of(cls, rows: np.ndarray) -> Moments:
        """Of [rows, d]; float64 whatever the rows are."""
        rows = np.asarray(rows, np.float64)
        mean = rows.mean(axis=0) if len(rows) else np.zeros(rows.shape[1])
        off = rows - mean
        return cls(float(len(rows)), mean, off.T @ off)

    def merge(self, other: Moments, times: float = 1.0) -> None:
        """Add all rows of ``other``, each ``times`` times, in place (Chan, Golub and LeVeque 1979)."""
        count = other.count * times
        if not count:
            return
        both = self.count + count
        off = other.mean - self.mean
        self.scatter += times * other.scatter
        self.scatter += np.outer(off, off) * (self.count * count / both)
        self.mean = self.mean + off * (count / both)
        self.count = both

    @property
    def covariance(self) -> np.ndarray:
        """float64 [d, d], divided by count - 1 as ``numpy.cov`` does."""
        return self.scatter / max(self.count - 1, 1)


def merged(parts: Iterable[Moments], times: Iterable[float]) -> Moments:
    """All parts together, each weighted by its number."""
    total: Moments | None = None
    for part, weight in zip(parts, times, strict=True):
        if total is None:
            total = Moments(0.0, np.zeros_like(part.mean), np.zeros_like(part.scatter))
        total.merge(part, weight)
    if total is None:
        raise ValueError("there is nothing to merge")
    return total


def frechet_distance(a: Moments, b: Moments, quick: bool = False) -> float:
    """Squared Fréchet (2-Wasserstein) distance of two normal distributions (Dowson and Landau 1982), 0 or more.

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)). The trace of the root is the sum of the singular values of C1^(1/2) C2^(1/2):
    real and finite for singular covariances too, where a root of the product is neither. quick: a third of the time, right to
    about 1e-5 of the covariances.
    """
    off = a.mean - b.mean
    first, second = a.covariance, b.covariance
    root = _root(first)
    if quick:
        overlap = float(np.sqrt(np.maximum(np.linalg.eigvalsh(root.T @ second @ root), 0)).sum())
    else:
        overlap = float(np.linalg.svd(root.T @ _root(second), compute_uv=False).sum())
    return max(float(off @ off) + float(np.trace(first) + np.trace(second)) - 2 * overlap, 0.0)


def _root(covariance: np.ndarray) -> np.ndarray:
    """R with R R^T = covariance."""
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)))
