"""The shared table gives exactly what numpy gives voxel by voxel, for every label at once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ctmr_core.quality.statistics import BINS, count_values

SHAPE = (4, 5, 6)
labels = arrays(np.uint8, SHAPE, elements=st.sampled_from([0, 1, 3, 200]))
images = arrays(np.int16, SHAPE, elements=st.integers(-1024, 3071))


@given(labels, images, st.sampled_from(["C", "F"]), st.sets(st.sampled_from([0, 1, 3, 7, 200]), min_size=1))
def test_numbers_of_a_group_of_labels_are_those_of_its_voxels(label_map, image, order, group):
    values = image[np.isin(label_map, list(group))].astype(float)
    found = count_values(np.asarray(label_map, order=order), np.asarray(image, order=order)).of(group)
    assert found.voxels == values.size
    if not values.size:
        assert np.isnan([found.mean, found.sd, found.median, found.mad, found.smallest, found.largest, found.percentile(5)]).all()
        return
    assert found.median == np.median(values)
    assert found.mean == pytest.approx(values.mean(), abs=1e-9)
    assert found.sd == pytest.approx(values.std(), abs=1e-6)
    assert (found.smallest, found.largest) == (values.min(), values.max())
    assert found.percentile(7.3) == pytest.approx(np.percentile(values, 7.3), abs=1e-9)
    assert found.voxels_between(-10, 40) == np.count_nonzero((values >= -10) & (values <= 40))
    # the distance that half of the voxels have, of an even number the smaller of the two middle ones
    off = np.sort(np.abs(values - np.median(values)))
    assert found.mad == off[(len(off) - 1) // 2]


@given(labels, images)
def test_whole_and_body_hold_every_voxel_once(label_map, image):
    table = count_values(label_map, image)
    assert table.whole.voxels == image.size
    assert table.body.voxels == np.count_nonzero(label_map)
    assert table.counts.sum() == image.size


@given(labels, images)
def test_ids_that_are_known_save_a_pass_and_change_nothing(label_map, image):
    searched, told = count_values(label_map, image), count_values(label_map, image, (0, 1, 3, 7, 200))
    for group in ([0], [1, 3], [7], [200]):
        assert (told.of(group).counts == searched.of(group).counts).all()
    assert told.body.voxels == searched.body.voxels


def test_a_wide_range_is_counted_in_bins_of_whole_values():
    image = np.linspace(-32768, 32767, 4000).astype(np.int16).reshape(10, 20, 20)
    table = count_values(np.ones(image.shape, np.uint8), image)
    assert table.counts.shape[1] <= BINS
    assert table.of([1]).median == pytest.approx(np.median(image), abs=table.width)


def test_floats_are_rounded_and_what_is_no_number_counts_as_the_smallest():
    image = np.array([[[0.4, 1.6, np.nan, np.inf, -np.inf, 2.0]]])
    assert count_values(np.zeros(image.shape, np.uint8), image).whole.counts.tolist() == [4, 0, 2]
