from __future__ import annotations

import numpy as np
import pytest

from ctmr_core.learning.segmentation.config import IntensitySettings
from ctmr_core.learning.segmentation.pictures import overlay


@pytest.mark.parametrize("sequence", ["ct", "mri_t1"])
def test_a_picture_shows_the_slice_with_most_labels_twice_as_it_lies_in_the_patient(sequence: str) -> None:
    image = np.full((20, 40, 6), 50, np.int16)
    truth, found = np.zeros(image.shape, np.uint8), np.zeros(image.shape, np.uint8)
    truth[15:, 30:, 4] = 1  # right, in front
    found[15:, 30:, 4] = 2
    pixels = overlay(sequence, image, truth, found, (2.0, 1.0, 5.0), IntensitySettings())
    assert pixels.dtype == np.uint8
    height, width, _ = pixels.shape
    assert width == 2 * height  # 40 mm by 40 mm, twice
    grey = pixels[-1, 0]
    assert len(set(grey.tolist())) == 1
    here, there = pixels[5, 5], pixels[5, height + 5]
    assert len(set(here.tolist())) > 1
    assert len(set(there.tolist())) > 1
    assert here.tolist() != there.tolist()
    assert (pixels[5, height - 5] == grey).all()
