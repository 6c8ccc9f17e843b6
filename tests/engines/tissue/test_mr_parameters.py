"""What a recipe may ask of the MR sequences, and what it is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ctmr_core.engines.tissue.mr_parameters import MrParameters, draw


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"nois_percent": 3}, "nois_percent"),
        ({"noise_percent": -1}, "0..50 %"),
        ({"noise_percent": [4, 1]}, "rising pair"),
        ({"field_strength": 14}, "0.5..7 T"),
        ({"protocols": {"mri_t9": {}}}, "allowed: mri_t1"),
        ({"protocols": {"mri_t1_skull_stripped": {}}}, "share the protocol"),
        ({"protocols": {"mri_t1": {"name": "epi"}}}, "mprage"),
        ({"protocols": {"mri_t1": {"te": float("nan")}}}, "te"),
    ],
)
def test_impossible_settings_are_refused_by_name(settings, message):
    with pytest.raises(ValidationError, match=message):
        MrParameters.model_validate(settings)


def test_settings_survive_json():
    parameters = MrParameters(noise_percent=(1, 3), protocols={"mri_t2": {"te": 90}})
    assert MrParameters.model_validate_json(parameters.model_dump_json()) == parameters


@given(st.floats(0, 25), st.floats(0, 25), st.integers(0, 1000))
def test_draws_stay_in_the_range(low, width, seed):
    value = draw((low, low + width), np.random.Generator(np.random.Philox(seed)))
    assert low <= value <= low + width


def test_a_fixed_value_takes_as_many_random_numbers_as_a_range():
    fixed, ranged = (np.random.Generator(np.random.Philox(1)) for _ in range(2))
    draw(3.0, fixed)
    draw((1.0, 2.0), ranged)
    assert fixed.random() == ranged.random()
