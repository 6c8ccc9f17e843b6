"""Distances between sets of features agree with independent computations and behave as distances should."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.metrics import FIDMetric
from scipy import linalg

from ctmr_core.assessment.coverage import kernel_distance, precision_recall
from ctmr_core.assessment.features import FilterBank
from ctmr_core.assessment.frechet import FeatureSet, compare, slice_features
from ctmr_core.assessment.moments import Moments, frechet_distance, merged
from ctmr_core.assessment.slices import PLANES, SliceProtocol
from ctmr_core.assessment.streaming import Loaded
from tests.assessment.small_sets import person


def rows_of(seed: int, count: int = 400, width: int = 12, shift: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).standard_normal((width, width))
    return rng.standard_normal((count, width)) @ mixing + shift


def feature_set(volumes: int, seed: int = 0, shift: float = 0.0, spread: float = 1.0, width: int = 8) -> FeatureSet:
    """Volumes of 6 slices a plane that resemble each other."""
    rng = np.random.default_rng(seed)
    found = FeatureSet()
    for _ in range(volumes):
        own = rng.standard_normal(width) * spread + shift
        found.add({plane: own + 0.3 * rng.standard_normal((6, width)) for plane in PLANES})
    return found


def test_distance_is_that_of_monai_and_of_the_matrix_root() -> None:
    a, b = rows_of(1), rows_of(2, count=300, shift=0.5) * 1.3
    found = frechet_distance(Moments.of(a), Moments.of(b))
    assert found == pytest.approx(float(FIDMetric()(torch.from_numpy(a), torch.from_numpy(b))), rel=1e-8)
    means, covariances = (a.mean(0), b.mean(0)), (np.cov(a.T), np.cov(b.T))
    root = linalg.sqrtm(covariances[0] @ covariances[1]).real
    direct = np.sum((means[0] - means[1]) ** 2) + np.trace(covariances[0] + covariances[1] - 2 * root)
    assert found == pytest.approx(direct, rel=1e-8)
    assert frechet_distance(Moments.of(a), Moments.of(b), quick=True) == pytest.approx(direct, rel=1e-6)


def test_a_singular_covariance_gives_a_finite_distance() -> None:
    a, b = rows_of(1, count=5, width=30), rows_of(2, count=5, width=30)
    assert frechet_distance(Moments.of(a), Moments.of(a)) == pytest.approx(0, abs=1e-6)
    assert np.isfinite(frechet_distance(Moments.of(a), Moments.of(b)))


@settings(max_examples=30)
@given(st.integers(0, 1000), st.lists(st.integers(1, 60), min_size=1, max_size=6), st.floats(-1e4, 1e4))
def test_moments_of_parts_are_those_of_the_whole(seed: int, sizes: list[int], offset: float) -> None:
    rows = rows_of(seed, count=sum(sizes), width=5) + offset
    parts = [Moments.of(part) for part in np.split(rows, np.cumsum(sizes)[:-1])]
    total = merged(parts, [1.0] * len(parts))
    assert total.count == len(rows)
    np.testing.assert_allclose(total.mean, rows.mean(axis=0), rtol=1e-9, atol=1e-9)
    if len(rows) > 1:
        np.testing.assert_allclose(total.covariance, np.cov(rows.T), rtol=1e-6, atol=1e-6)


def test_a_part_counted_twice_is_two_parts() -> None:
    a, b = rows_of(1, 30), rows_of(2, 40)
    weighted = merged([Moments.of(a), Moments.of(b)], [2.0, 1.0])
    whole = Moments.of(np.concatenate([a, a, b]))
    np.testing.assert_allclose(weighted.scatter, whole.scatter, rtol=1e-9)
    np.testing.assert_allclose(weighted.mean, whole.mean, rtol=1e-9)


def test_kernel_distance_is_that_of_the_sums_written_out() -> None:
    x, y = rows_of(1, 9, 4), rows_of(2, 9, 4, shift=1.0)

    def kernel(u: np.ndarray, v: np.ndarray) -> float:
        return float((u @ v / 4 + 1) ** 3)

    n = len(x)
    within = sum(kernel(r[i], r[j]) for r in (x, y) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    between = sum(kernel(u, v) for u in x for v in y) / n**2
    found, _ = kernel_distance(x, y, np.random.default_rng(0))
    assert found == pytest.approx(within - 2 * between)


def test_kernel_distance_of_equal_sets_is_about_0_whatever_their_size() -> None:
    near = [kernel_distance(rows_of(i, 60, 4), rows_of(50 + i, 60, 4), np.random.default_rng(0))[0] for i in range(20)]
    far = kernel_distance(rows_of(1, 60, 4), rows_of(2, 60, 4, shift=2.0), np.random.default_rng(0))[0]
    assert abs(np.mean(near)) < 0.1 * far
    assert min(near) < 0 < max(near)


def test_precision_and_the_like_follow_their_definitions() -> None:
    real, made = rows_of(1, 80, 3), rows_of(2, 50, 3, shift=0.7)
    k = 5

    def radius(rows: np.ndarray, row: np.ndarray) -> float:
        return float(np.sort(np.linalg.norm(rows - row, axis=1))[k])

    within_real = np.array([[np.linalg.norm(m - r) < radius(real, r) for r in real] for m in made])
    within_made = np.array([[np.linalg.norm(m - r) < radius(made, m) for m in made] for r in real])
    found = precision_recall(real, made, k)
    assert found["precision"] == pytest.approx(within_real.any(axis=1).mean())
    assert found["density"] == pytest.approx(within_real.sum() / (k * len(made)))
    assert found["coverage"] == pytest.approx(within_real.any(axis=0).mean())
    assert found["recall"] == pytest.approx(within_made.any(axis=1).mean())


def test_the_distance_of_equal_sets_is_0_and_grows_with_what_differs() -> None:
    reference = feature_set(60, seed=1)
    assert compare(reference, reference)["distance"] == pytest.approx(0, abs=1e-9)
    distances = [compare(feature_set(60, seed=2, shift=shift), reference)["distance"] for shift in (0.0, 0.5, 1.0, 2.0)]
    assert distances == sorted(distances)
    assert distances[-1] == pytest.approx(8 * 2.0**2, rel=0.4)  # 8 features, each 2 off
    narrow = compare(feature_set(60, seed=3, spread=0.2), reference)
    assert narrow["precision"] > narrow["recall"]  # all of it is real, and little of what is real is in it


def test_the_interval_speaks_of_volumes_not_of_slices() -> None:
    """About the spread of the distances of a dozen sets, which that of single slices would be far below."""
    reference = feature_set(200, seed=1)
    found = [compare(feature_set(40, seed=10 + i, shift=1.0), reference) for i in range(12)]
    spread = np.std([entry["distance"] for entry in found], ddof=1)
    told = np.mean([(entry["high"] - entry["low"]) / (2 * 1.96) for entry in found])
    assert 0.5 < told / spread < 2.0


def test_few_volumes_have_no_interval() -> None:
    found = compare(feature_set(2), feature_set(30, seed=1))
    assert found["low"] is None
    assert found["volumes"] == 2
    assert "precision" not in found


def test_a_feature_set_does_not_grow_with_its_volumes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctmr_core.assessment.frechet.KEPT", 25)
    few, many = feature_set(30), feature_set(300)
    assert few.groups == many.groups == 20
    assert len(few.vectors) == len(many.vectors) == 25
    np.testing.assert_array_equal(few.vectors, many.vectors)


def test_features_of_volumes_tell_sets_apart() -> None:
    def sets(seeds: range, brightness: float) -> FeatureSet:
        found = FeatureSet()
        for seed in seeds:
            label_map, images = person(seed, brightness)
            volume = Loaded(str(seed), images, label_map.voxels, label_map.vocabulary, label_map.spacing)
            found.add(slice_features(volume, FilterBank(), SliceProtocol(slices=4))["ct"])
        return found

    reference = sets(range(6), 0.0)
    near, far = compare(sets(range(10, 16), 0.0), reference, draws=2), compare(sets(range(10, 16), 400.0), reference, draws=2)
    assert near["distance"] < 0.5 * far["distance"]
