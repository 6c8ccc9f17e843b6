"""Pairs of volumes are compared as MONAI and the definitions say; copies are no diversity."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage, stats

from ctmr_core.assessment.diversity import SCALE_WEIGHTS, WINDOW, _spread, diversity, mean_dice, ms_ssim, pairs_of
from ctmr_core.assessment.streaming import DatasetVolumes
from tests.assessment.small_sets import person, small_case, small_set


@given(st.integers(0, 40), st.integers(1, 200))
def test_pairs_are_different_and_the_first_share_nothing(count: int, wanted: int) -> None:
    names = [f"c{i:02d}" for i in range(count)]
    pairs = pairs_of(names, wanted)
    assert len(pairs) == min(wanted, count * (count - 1) // 2)
    assert len({frozenset(pair) for pair in pairs}) == len(pairs)
    assert all(a != b for a, b in pairs)
    first = [name for pair in pairs[: count // 2] for name in pair]
    assert len(set(first)) == len(first)


def test_pairs_are_of_different_persons() -> None:
    names = [f"c{i}" for i in range(6)]
    persons = dict.fromkeys(names[:3], "a") | dict.fromkeys(names[3:], "b")
    pairs = pairs_of(names, 100, persons)
    assert len(pairs) == 9
    assert all(persons[a] != persons[b] for a, b in pairs)


def test_similarity_is_1_of_equals_and_falls_with_noise() -> None:
    rng = np.random.default_rng(0)
    image = np.kron(rng.integers(0, 200, (6, 6, 6)), np.ones((8, 8, 8), int)).astype(np.uint8)
    noise = [np.clip(image + rng.normal(0, sd, image.shape), 0, 255).astype(np.uint8) for sd in (5, 40)]
    found = [ms_ssim(image, other) for other in (image, *noise)]
    assert found[0] == pytest.approx(1, abs=1e-5)
    assert found == sorted(found, reverse=True)


def test_mean_dice_counts_every_label_in_either() -> None:
    a, b = np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8)
    a[:2], b[1:3] = 1, 1
    b[3] = 7
    assert mean_dice(a, b) == pytest.approx((0.5 + 0.0) / 2)
    assert mean_dice(a, a) == 1


def test_a_set_of_copies_is_less_diverse(tmp_path: Path) -> None:
    strangers = small_set(tmp_path / "strangers", [small_case(i) for i in range(6)])
    copies = small_set(tmp_path / "copies", [small_case(i) for i in range(6)], lambda case: person(case.body_seed % 2))
    found = [diversity(DatasetVolumes(dataset), pairs=8) for dataset in (strangers, copies)]
    assert found[0]["ct"]["pairs"] == 8
    assert found[0]["ct"]["ms_ssim"]["mean"] < found[1]["ct"]["ms_ssim"]["mean"]
    assert found[0]["labels"]["agreement"]["mean"] < found[1]["labels"]["agreement"]["mean"]
    assert found[1]["labels"]["dice"]["p95"] == 1
    assert diversity(DatasetVolumes(strangers), pairs=8, workers=1) == found[0]


def test_similarity_is_that_of_wang_written_out() -> None:
    rng = np.random.default_rng(5)
    a = ndimage.gaussian_filter(rng.uniform(0, 255, (48, 48, 48)), 1.5)
    a = ((a - a.min()) / np.ptp(a) * 255).astype(np.uint8)
    b = np.clip(0.8 * a + rng.normal(0, 20, a.shape) + 20, 0, 255).astype(np.uint8)
    offsets = np.arange(WINDOW) - WINDOW // 2
    window = np.exp(-(offsets**2) / (2 * 1.5**2))
    window /= window.sum()
    edge = WINDOW // 2

    def local(values: np.ndarray) -> np.ndarray:
        for axis in range(3):
            values = ndimage.convolve1d(values, window, axis)
        return values[edge:-edge, edge:-edge, edge:-edge]

    x, y, expected = a / 255.0, b / 255.0, 1.0
    for scale, weight in enumerate(SCALE_WEIGHTS):
        mean_x, mean_y = local(x), local(y)
        var_x, var_y, both = local(x * x) - mean_x**2, local(y * y) - mean_y**2, local(x * y) - mean_x * mean_y
        structure = (2 * both + 0.03**2) / (var_x + var_y + 0.03**2)
        light = (2 * mean_x * mean_y + 0.01**2) / (mean_x**2 + mean_y**2 + 0.01**2)
        last = scale == len(SCALE_WEIGHTS) - 1
        expected *= float((light * structure if last else structure).mean()) ** weight
        x, y = (values.reshape(*(n for side in values.shape for n in (side // 2, 2))).mean((1, 3, 5)) for values in (x, y))
    assert ms_ssim(a, b) == pytest.approx(expected, abs=2e-4)
    assert 0.3 < expected < 0.95


def test_the_interval_of_a_mean_counts_disjoint_pairs_only() -> None:
    values, pairs = [0.2, 0.4, 0.6, 0.8], [("a", "b"), ("b", "c"), ("c", "d"), ("d", "a")]
    found = _spread(values, pairs)
    error = stats.norm.ppf(0.975) * np.std(values, ddof=1) / np.sqrt(2)  # four volumes make two disjoint pairs
    assert found["mean"] == pytest.approx(0.5)
    assert (found["low"], found["high"]) == pytest.approx((0.5 - error, 0.5 + error), rel=1e-4)
