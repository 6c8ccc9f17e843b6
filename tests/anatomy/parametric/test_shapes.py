"""Implicit shapes: signs, sizes, independence of the lattice."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctmr_core.anatomy.parametric.shapes import (
    Profile,
    SplineNoise,
    ellipsoid,
    plate,
    refine,
    rotation,
    smooth_max,
    smooth_min,
    spline,
    sweep,
)


def _axes(low: float, high: float, step: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    axis = np.arange(low, high + step / 2, step)
    return axis, axis.copy(), axis.copy()


def _grid(axes):
    return np.meshgrid(*(a.astype(np.float32) for a in axes), indexing="ij")


@settings(max_examples=15, deadline=None)
@given(radii=st.tuples(*[st.floats(8, 20)] * 3), turn=st.tuples(*[st.floats(-90, 90)] * 3))
def test_a_turned_ellipsoid_keeps_its_volume(radii, turn) -> None:
    field = ellipsoid(*_grid(_axes(-24, 24, 1.0)), (0.0, 0.0, 0.0), radii, rotation(*turn))
    assert np.count_nonzero(field < 0) == pytest.approx(4 / 3 * np.pi * np.prod(radii), rel=0.03)


def test_ellipsoid_field_is_a_distance_near_the_surface() -> None:
    x, y, z = np.zeros(3), np.array([9.0, 10.0, 11.0]), np.zeros(3)
    assert ellipsoid(x, y, z, (0, 0, 0), (20, 10, 15)) == pytest.approx([-1, 0, 1], abs=0.15)


def test_swept_straight_tube_is_a_capsule() -> None:
    axes = _axes(-20, 20, 1.0)
    field = sweep(axes, np.array([[-10.0, 0, 0], [10.0, 0, 0]]), np.array([5.3, 5.3]))
    assert np.count_nonzero(field < 0) == pytest.approx(np.pi * 5.3**2 * 20 + 4 / 3 * np.pi * 5.3**3, rel=0.04)
    assert field[20, 20, 20] == pytest.approx(-5.3)
    assert field.max() <= 8.0


def test_elliptic_section_is_thin_along_the_given_direction() -> None:
    axes = _axes(-20, 20, 0.5)
    line = np.array([[-15.0, 0, 0], [15.0, 0, 0]])
    field = sweep(axes, line, np.array([6.0, 6.0]), thin=np.tile([0.0, 1.0, 0.0], (2, 1)), ratio=2.0)
    middle = field[40]
    assert np.count_nonzero(middle[:, 40] < 0) * 0.5 == pytest.approx(6.0, abs=1)
    assert np.count_nonzero(middle[40, :] < 0) * 0.5 == pytest.approx(12.0, abs=1)


def test_plate_is_a_rounded_triangle() -> None:
    corners = np.array([[0.0, 0, 0], [20.0, 0, 0], [0.0, 20.0, 0]])
    field = plate(_axes(-12, 32, 1.0), corners, 3.0)
    assert field[12 + 5, 12 + 5, 12] == pytest.approx(-3.0, abs=1e-4)
    assert field[12 + 5, 12 + 5, 12 + 5] == pytest.approx(2.0, abs=1e-4)
    assert field[12 - 5, 12 + 5, 12] == pytest.approx(2.0, abs=1e-4)


def test_blends_contain_and_are_contained() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.normal(0, 5, (2, 1000))
    assert (smooth_min(a, b, 4.0) <= np.minimum(a, b)).all()
    assert (smooth_max(a, b, 4.0) >= np.maximum(a, b)).all()


def test_spline_passes_through_its_ends_at_even_steps() -> None:
    points = [(0, 0, 0, 2), (10, 5, 0, 3), (20, 0, 5, 4), (30, 0, 0, 1)]
    samples, at = spline(points, 2.0)
    assert samples[0] == pytest.approx(points[0])
    assert samples[-1] == pytest.approx(points[-1])
    assert np.linalg.norm(np.diff(samples[:, :3], axis=0), axis=1).max() < 3.0
    assert at[[0, -1]].tolist() == [0, 3]


def test_profile_is_constant_beyond_its_ends() -> None:
    profile = Profile((0.0, 10.0, 20.0), (1.0, 5.0, 2.0))
    assert profile(np.array([-50.0, 0.0, 10.0, 90.0])) == pytest.approx([1, 1, 5, 2], abs=0.01)


def test_noise_is_a_function_of_position() -> None:
    noise = SplineNoise(np.random.default_rng(1), 20.0, (100.0, 100.0, 100.0))
    coarse, fine = noise.on_lattice(_axes(-40, 40, 4.0)), noise.on_lattice(_axes(-40, 40, 2.0))
    np.testing.assert_allclose(fine[::2, ::2, ::2], coarse, atol=1e-5)
    points = np.array([[-40.0, 0, 40.0], [0, 0, 0], [4.0, -8, 12.0]])
    np.testing.assert_allclose(noise.at_points(points), [coarse[0, 10, 20], coarse[10, 10, 10], coarse[11, 8, 13]], atol=1e-5)


def test_noise_has_unit_spread() -> None:
    noise = SplineNoise(np.random.default_rng(5), 5.0, (100.0, 100.0, 100.0))
    values = noise.on_lattice(_axes(-90, 90, 3.0))
    assert values.mean() == pytest.approx(0, abs=0.05)
    assert values.std() == pytest.approx(1, abs=0.08)


def test_refine_is_exact_for_linear_fields() -> None:
    coarse, fine = _axes(0, 40, 4.0), _axes(3, 33, 1.5)
    x, y, z = _grid(coarse)
    fx, fy, fz = _grid(fine)
    np.testing.assert_allclose(refine(x - 2 * y + 0.5 * z, coarse, fine), fx - 2 * fy + 0.5 * fz, atol=1e-3)
