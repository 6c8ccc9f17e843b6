"""Intervals of KID, precision and the like follow from leaving groups of volumes out, and speak of sets drawn again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ctmr_core.assessment.coverage import kernel_distance, precision_recall
from ctmr_core.assessment.frechet import compare
from ctmr_core.assessment.intervals import GROUPS, SHARES, interval, kernel_spread, shares_spread
from tests.assessment.test_frechet import feature_set, rows_of


def jackknife(measure: Callable[[np.ndarray, np.ndarray], Any], x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Standard errors by measuring again without each group of rows, written out."""
    variance = np.zeros(())
    for rows, again in ((x, lambda kept: measure(kept, y)), (y, lambda kept: measure(x, kept))):
        groups = min(GROUPS, len(rows))
        values = np.array([again(rows[np.arange(len(rows)) % groups != group]) for group in range(groups)])
        variance = variance + (groups - 1) / groups * ((values - values.mean(axis=0)) ** 2).sum(axis=0)
    return np.sqrt(variance)


def test_the_spread_of_kid_is_that_of_leaving_groups_out() -> None:
    planes = [(rows_of(i, 47, 4), rows_of(10 + i, 33, 4, shift=0.3)) for i in range(3)]

    def mmd(x: np.ndarray, y: np.ndarray) -> float:
        k = [(a @ b.T / 4 + 1) ** 3 for a, b in ((x, x), (y, y), (x, y))]
        within = [(m.sum() - np.trace(m)) / (len(m) * (len(m) - 1)) for m in k[:2]]
        return float(sum(within) - 2 * k[2].mean())

    both = [np.concatenate([pair[side] for pair in planes], axis=1) for side in (0, 1)]  # the same volumes in every plane
    expected = jackknife(lambda x, y: np.mean([mmd(x[:, p : p + 4], y[:, p : p + 4]) for p in (0, 4, 8)]), *both)
    assert kernel_spread(planes) == pytest.approx(float(expected), rel=1e-9)


def test_the_spread_of_precision_is_that_of_leaving_groups_out() -> None:
    real, made = rows_of(1, 61, 3), rows_of(2, 40, 3, shift=0.7)
    expected = jackknife(lambda x, y: [precision_recall(x, y)[name] for name in SHARES], real, made)
    found = shares_spread(real, made)
    assert [found[name] for name in SHARES] == pytest.approx(list(expected), rel=1e-6)


def test_intervals_are_as_wide_as_sets_drawn_again_differ() -> None:
    """Within a factor of two of the spread of twelve draws, which itself is told to a fifth."""
    drawn = [(rows_of(100 + i, 150, 4), rows_of(200 + i, 150, 4, shift=1.0)) for i in range(12)]
    kid = np.std([kernel_distance(x, y, np.random.default_rng(0))[0] for x, y in drawn], ddof=1)
    assert 0.5 < np.mean([kernel_spread([pair]) for pair in drawn]) / kid < 2
    recall = np.std([precision_recall(x, y)["recall"] for x, y in drawn], ddof=1)
    assert 0.5 < np.mean([shares_spread(x, y)["recall"] for x, y in drawn]) / recall < 2


def test_a_comparison_tells_its_intervals() -> None:
    found = compare(feature_set(40, seed=2, shift=0.5), feature_set(40, seed=1))
    assert set(found["intervals"]) == {"kid", *SHARES}
    for name, ends in found["intervals"].items():
        assert ends["low"] <= found[name] <= ends["high"]
    assert found["intervals"]["recall"]["high"] <= 1


def test_few_volumes_have_no_intervals() -> None:
    assert kernel_spread([(rows_of(1, 7), rows_of(2, 40))]) is None
    assert shares_spread(rows_of(1, 9), rows_of(2, 40)) == {}
    assert compare(feature_set(5), feature_set(30, seed=1))["intervals"] == {}


def test_an_interval_ends_where_the_measure_does() -> None:
    assert interval(0.9, 0.2, 0.0, 1.0) == {"low": pytest.approx(0.508), "high": 1.0}
