from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctmr_core.anatomy.deformation import random_displacement
from ctmr_core.errors import AnatomyError

EXTENT = (300.0, 240.0, 280.0)
PLACES = [np.arange(0, mm, 7.0) for mm in EXTENT]


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 2**32), greatest=st.floats(0.5, 50))
def test_a_warp_never_folds_and_never_exceeds_its_limit(seed: int, greatest: float) -> None:
    warp = random_displacement(EXTENT, greatest, np.random.default_rng(seed))
    assert warp.jacobian_determinants().min() > 0
    length = np.linalg.norm(warp.at(*PLACES), axis=0)
    assert length.max() <= greatest * (1 + 1e-5)
    assert length.max() > 0.3 * greatest


def test_equal_generators_give_equal_warps_and_others_differ() -> None:
    one = random_displacement(EXTENT, 10, np.random.default_rng(4))
    same = random_displacement(EXTENT, 10, np.random.default_rng(4))
    other = random_displacement(EXTENT, 10, np.random.default_rng(5))
    np.testing.assert_array_equal(one.values, same.values)
    assert np.abs(one.at(*PLACES) - other.at(*PLACES)).max() > 3


def test_a_warp_is_smooth() -> None:
    field = random_displacement(EXTENT, 15, np.random.default_rng(1)).at(*PLACES)
    steps = [np.abs(np.diff(field, axis=axis)).max() for axis in (1, 2, 3)]
    assert max(steps) < 7.0  # less than the step between the places: neighbours stay neighbours


@pytest.mark.parametrize("greatest", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_limits_are_refused(greatest: float) -> None:
    with pytest.raises(AnatomyError):
        random_displacement(EXTENT, greatest, np.random.default_rng(0))
