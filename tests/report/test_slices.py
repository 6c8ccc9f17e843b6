"""Pictures are the right way round, in the right window, with square pixels."""

from __future__ import annotations

import numpy as np
import pytest

from ctmr_core.anatomy.vocabulary import load_vocabulary
from ctmr_core.report.slices import Window, cut, overlay, pixel_size, to_picture, window_of


@pytest.mark.parametrize(
    ("plane", "index", "corner"),
    [("axial", 5, (5, 5, 5)), ("coronal", 5, (5, 5, 5)), ("sagittal", 5, (5, 5, 5))],
)
def test_a_slice_passes_through_the_voxel_asked_for(plane: str, index: int, corner: tuple[int, int, int]) -> None:
    volume = np.zeros((11, 11, 11), np.int16)
    volume[corner] = 7
    assert cut(volume, plane, index).sum() == 7


def test_the_patients_right_is_on_the_viewers_left_and_front_and_head_are_up() -> None:
    volume = np.zeros((10, 12, 14), np.int16)
    volume[9, 11, 7] = 1  # right, anterior in the axial slice 7
    row, column = np.argwhere(cut(volume, "axial", 7))[0]
    assert (row, column) == (0, 0)
    volume = np.zeros((10, 12, 14), np.int16)
    volume[9, 6, 13] = 1  # right, superior
    assert tuple(np.argwhere(cut(volume, "coronal", 6))[0]) == (0, 0)
    volume = np.zeros((10, 12, 14), np.int16)
    volume[4, 11, 13] = 1  # anterior, superior: the face looks to the viewer's left
    assert tuple(np.argwhere(cut(volume, "sagittal", 4))[0]) == (0, 0)


def test_the_abdominal_window_shows_minus_160_black_and_240_white() -> None:
    grey = Window.of_ct().apply(np.array([-1000, -160, 40, 240, 3000], np.int16))
    assert grey.tolist() == [0, 0, 127, 255, 255]


def test_an_empty_mr_image_has_a_window_too() -> None:
    assert window_of("mri_t1", np.zeros((3, 3, 3), np.int16)).high == 1.0


def test_pixels_are_square_whatever_the_spacing() -> None:
    pixels = np.zeros((40, 100), np.uint8)
    picture = to_picture(pixels, pixel_size("coronal", (1.0, 1.0, 5.0)), 200)
    assert picture.size == (100, 200)


def test_the_overlay_colours_labels_and_leaves_hidden_ones_grey() -> None:
    labels = np.zeros((9, 9), np.uint8)
    labels[1:4, 1:4], labels[5:8, 5:8] = 1, 200
    picture = overlay(np.full((9, 9), 100, np.uint8), labels, load_vocabulary("maisi"), frozenset({200}))
    assert len(set(picture[2, 2].tolist())) > 1
    assert set(picture[6, 6].tolist()) == {100}
    assert set(picture[0, 8].tolist()) == {100}
