from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ctmr_core.learning.datasets.patches import place_patch

SIDES = st.tuples(*[st.integers(1, 12)] * 3)
CENTERS = st.tuples(*[st.integers(-15, 25)] * 3)


def cut(volume: np.ndarray, center: tuple[int, ...], size: tuple[int, ...], border: str) -> tuple[np.ndarray, np.ndarray]:
    patch = place_patch(center, size, volume.shape, border)
    return patch.padded(volume[patch.inside], -1), np.asarray(patch.corner)


@given(SIDES, SIDES, CENTERS, st.sampled_from(["shift", "pad"]))
def test_every_voxel_of_a_patch_is_that_of_the_volume_or_padding(
    volume: tuple[int, ...], size: tuple[int, ...], center: tuple[int, ...], border: str
) -> None:
    voxels = np.arange(np.prod(volume), dtype=np.int32).reshape(volume)
    patch, corner = cut(voxels, center, size, border)
    assert patch.shape == size
    for index in np.ndindex(*size):
        place = corner + index
        inside = bool((place >= 0).all() and (place < volume).all())
        assert patch[index] == (voxels[tuple(place)] if inside else -1)


@given(SIDES, SIDES, CENTERS)
def test_a_shifted_patch_shows_all_it_can(volume: tuple[int, ...], size: tuple[int, ...], center: tuple[int, ...]) -> None:
    voxels = np.zeros(volume, np.int16)
    patch, corner = cut(voxels, center, size, "shift")
    assert (patch == 0).sum() == np.prod(np.minimum(volume, size))
    small = np.asarray(volume) < size
    assert (np.abs(2 * corner + size - volume)[small] <= 1).all()  # in the middle, to a voxel


@given(SIDES, SIDES, st.data())
def test_the_centre_is_in_a_shifted_patch(volume: tuple[int, ...], size: tuple[int, ...], data: st.DataObject) -> None:
    center = tuple(data.draw(st.integers(0, n - 1)) for n in volume)
    _, corner = cut(np.zeros(volume, np.int16), center, size, "shift")
    assert (corner <= center).all()
    assert (np.asarray(center) < corner + size).all()


@given(SIDES, CENTERS)
def test_a_padded_patch_is_exactly_around_its_centre(size: tuple[int, ...], center: tuple[int, ...]) -> None:
    _, corner = cut(np.zeros((9, 9, 9), np.int16), center, size, "pad")
    assert (corner + np.asarray(size) // 2 == center).all()


def test_the_affine_of_a_patch_puts_its_voxels_where_they_are_in_the_volume() -> None:
    angle = 0.3
    oblique = np.array([[np.cos(angle), -np.sin(angle), 0, 5], [np.sin(angle), np.cos(angle), 0, -3], [0, 0, 2, 7], [0, 0, 0, 1]])
    patch = place_patch((1, 20, 15), (8, 8, 8), (30, 30, 30), "pad")
    place = np.array([2, 3, 4, 1])
    there = place + np.array([*patch.corner, 0])
    assert np.allclose(patch.affine(oblique) @ place, oblique @ there)


@given(SIDES, st.integers(1, 6), st.data())
def test_an_aligned_patch_begins_at_a_multiple_near_its_centre(size: tuple[int, ...], align: int, data: st.DataObject) -> None:
    center = tuple(data.draw(st.integers(20, 40)) for _ in range(3))
    patch = place_patch(center, size, (60, 60, 60), "shift", align)
    exact = place_patch(center, size, (60, 60, 60), "shift")
    assert all(corner % align == 0 for corner in patch.corner)
    assert all(2 * abs(a - b) <= align for a, b in zip(patch.corner, exact.corner, strict=True))
