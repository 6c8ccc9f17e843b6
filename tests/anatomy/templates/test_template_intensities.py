import numpy as np
import pytest

from ctmr_core.anatomy.label_census import take_census
from ctmr_core.anatomy.label_map import LabelMap
from ctmr_core.anatomy.templates.intensities import measure_intensities
from ctmr_core.anatomy.vocabulary import load_vocabulary


def measured(labels, image, skip=()):
    census = take_census(LabelMap(labels, np.eye(4), load_vocabulary("maisi")))
    return measure_intensities(labels, image, census, skip)


def test_the_rim_of_a_large_label_does_not_count():
    labels = np.zeros((12, 12, 12), np.uint8)
    labels[2:10, 2:10, 2:10] = 1
    image = np.full(labels.shape, -500.0)
    image[3:9, 3:9, 3:9] = 60
    assert measured(labels, image)[1].median == 60
    assert measured(labels, image)[1].spread == 0


def test_a_small_label_counts_whole():
    labels = np.zeros((8, 8, 8), np.uint8)
    labels[2:5, 2:5, 2:5] = 1
    image = np.full(labels.shape, 7.0)
    image[3, 3, 3] = 100
    assert measured(labels, image)[1].median == 7


def test_an_organ_cut_by_the_volume_has_no_rim_there():
    labels = np.ones((5, 5, 3), np.uint8)
    image = np.arange(75, dtype=np.float32).reshape(5, 5, 3)
    assert measured(labels, image)[1].median == 37


def test_spread_is_a_standard_deviation_that_metal_does_not_inflate():
    rng = np.random.default_rng(0)
    labels = np.ones((24, 24, 24), np.uint8)
    image = rng.normal(50, 12, labels.shape)
    image[:2] = 3000
    value = measured(labels, image)[1]
    assert value.median == pytest.approx(50, abs=3)
    assert value.spread == pytest.approx(12, rel=0.2)
    assert measured(labels, image, skip=[1]) == {}
