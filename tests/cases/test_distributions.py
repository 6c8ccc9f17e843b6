"""Draws are exact where they choose, inside their limits where they are continuous, and repeatable."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctmr_core.cases.distributions import Number, Spacing, apportion, exact_choice
from ctmr_core.cases.seeds import recipe_rng

weights = st.lists(st.floats(0, 1e3, allow_nan=False), min_size=1, max_size=8).filter(lambda values: sum(values) > 1e-3)


@settings(deadline=None)
@given(weights, st.integers(0, 1000))
def test_apportioned_counts_add_up_and_differ_from_the_share_by_less_than_one(shares, count):
    counts = apportion(shares, count)
    assert counts.sum() == count
    exact = np.asarray(shares) / sum(shares) * count
    assert np.all(np.abs(counts - exact) < 1 + 1e-6)


def test_apportioning_is_exact_where_it_can_be():
    assert apportion([0.8, 0.1, 0.1], 30).tolist() == [24, 3, 3]
    assert apportion([3, 1], 8).tolist() == [6, 2]
    assert apportion([1, 1, 1], 4).tolist() == [2, 1, 1]


def test_weight_zero_is_never_chosen():
    drawn = exact_choice([0.0, 2.0, 1.0], 10, recipe_rng(0, "g", "f"))
    assert np.bincount(drawn, minlength=3).tolist() == [0, 7, 3]


numbers = st.one_of(
    st.builds(lambda a, b: {"uniform": [min(a, b), max(a, b)]}, st.floats(-100, 100), st.floats(-100, 100)),
    st.builds(lambda a, b: {"log_uniform": [min(a, b), max(a, b)]}, st.floats(0.01, 100), st.floats(0.01, 100)),
    st.builds(lambda m, s: {"normal": {"mean": m, "sd": s, "low": -3.0, "high": 7.0}}, st.floats(-50, 50), st.floats(0, 9)),
    st.builds(
        lambda m, s: {"lognormal": {"median": m, "sigma": s, "low": 0.5, "high": 70.0}}, st.floats(0.1, 90), st.floats(0, 2)
    ),
    st.builds(lambda values: {"choose": values}, st.lists(st.floats(-9, 9), min_size=1, max_size=5)),
    st.floats(-9, 9),
)


@settings(deadline=None)
@given(numbers, st.integers(0, 2**32))
def test_numbers_stay_in_their_limits_and_repeat(spelled, seed):
    number = Number.model_validate(spelled)
    low, high = number.limits
    drawn = number.draw(50, recipe_rng(seed, "g", "f"))
    assert drawn.min() >= low
    assert drawn.max() <= high
    assert np.array_equal(drawn, number.draw(50, recipe_rng(seed, "g", "f")))


def test_distributions_have_the_shape_they_are_named_after():
    rng = recipe_rng(3, "g", "f")
    logs = np.log(Number.model_validate({"log_uniform": [1, 100]}).draw(20_000, rng))
    assert logs.mean() == pytest.approx(np.log(10), abs=0.05)
    lognormal = Number.model_validate({"lognormal": {"median": 20, "sigma": 0.5, "low": 1, "high": 200}}).draw(20_000, rng)
    assert np.median(lognormal) == pytest.approx(20, rel=0.03)
    assert np.log(lognormal).std() == pytest.approx(0.5, rel=0.05)
    normal = Number.model_validate({"normal": {"mean": 5, "sd": 2, "low": -100, "high": 100}}).draw(20_000, rng)
    assert normal.mean() == pytest.approx(5, abs=0.06)
    assert normal.std() == pytest.approx(2, rel=0.03)


def test_isotropic_spacing_is_one_number_for_all_axes():
    drawn = Spacing.model_validate({"uniform": [1, 2]}).draw(100, recipe_rng(1, "g", "f"))
    assert np.array_equal(drawn[:, 0], drawn[:, 1])
    assert np.array_equal(drawn[:, 0], drawn[:, 2])
    assert np.array_equal(drawn, np.round(drawn, 2))
    per_axis = Spacing.model_validate({"uniform": {"low": [1, 1, 3], "high": [2, 2, 5]}}).draw(100, recipe_rng(1, "g", "f"))
    assert per_axis[:, 2].min() >= 3
    assert not np.array_equal(per_axis[:, 0], per_axis[:, 1])


def test_square_pixels_are_alike_in_the_plane_only():
    drawn = Spacing.model_validate({"square_pixels": {"in_plane": [0.7, 1.2], "slices": [2, 5]}}).draw(
        200, recipe_rng(1, "g", "f")
    )
    assert np.array_equal(drawn[:, 0], drawn[:, 1])
    assert drawn[:, :2].min() >= 0.7
    assert drawn[:, :2].max() <= 1.2
    assert drawn[:, 2].min() >= 2
    assert drawn[:, 2].max() <= 5


def test_streams_of_fields_and_groups_are_independent():
    first = recipe_rng(0, "a", "x").random(4)
    assert not np.array_equal(first, recipe_rng(0, "a", "y").random(4))
    assert not np.array_equal(first, recipe_rng(0, "b", "x").random(4))
    assert not np.array_equal(first, recipe_rng(1, "a", "x").random(4))
