import numpy as np
import pytest

from ctmr_core.anatomy.label_census import take_census
from ctmr_core.anatomy.label_map import LabelMap
from ctmr_core.anatomy.templates.orientation import midline_index, mirrored_labels, number_vertebrae, vertebra_spacing
from ctmr_core.anatomy.vocabulary import load_vocabulary

MAISI = load_vocabulary("maisi")


def census_of(voxels, vocabulary=MAISI):
    return take_census(LabelMap(voxels.astype(vocabulary.dtype), np.eye(4), vocabulary))


def organs() -> np.ndarray:
    voxels = np.zeros((40, 10, 10), np.uint8)
    voxels[28:36] = 1  # liver, right
    voxels[4:10] = 3  # spleen, left
    voxels[18:23] = 33  # L5
    return voxels


def test_a_map_the_right_way_round_is_not_mirrored_and_its_flip_is():
    assert mirrored_labels(census_of(organs()), MAISI) == []
    assert mirrored_labels(census_of(organs()[::-1]), MAISI) == ["spleen / liver"]


def test_brain_sides_are_compared_by_name():
    brain = load_vocabulary("brain")
    voxels = np.zeros((10, 4, 4), np.uint16)
    voxels[:4], voxels[6:] = 2, 41
    assert mirrored_labels(census_of(voxels, brain), brain) == []
    assert mirrored_labels(census_of(voxels[::-1], brain), brain) == ["left cerebral white matter / right cerebral white matter"]


def test_the_midline_is_the_spine_then_the_pairs_then_the_middle():
    assert midline_index(census_of(organs()), MAISI, 40) == pytest.approx(20.0)
    kidneys = np.zeros((40, 4, 4), np.uint8)
    kidneys[4:7], kidneys[24:27] = 14, 5
    assert midline_index(census_of(kidneys), MAISI, 40) == pytest.approx(15.0)
    kidneys[kidneys == 5] = 0
    assert midline_index(census_of(kidneys), MAISI, 40) == pytest.approx(19.5)


def spine() -> tuple[np.ndarray, np.ndarray]:
    """Five vertebrae of 8 slices with discs of 2 between them, all with the label of L1."""
    voxels = np.zeros((12, 12, 48), np.uint8)
    discs = np.zeros(voxels.shape, bool)
    for level in range(5):
        voxels[2:10, 2:10, level * 10 : level * 10 + 8] = 37
        discs[2:10, 2:10, level * 10 + 8 : level * 10 + 10] = True
    return voxels, discs[:, :, :48]


def test_vertebrae_are_numbered_up_from_the_sacrum():
    voxels, discs = spine()
    voxels[2:10, 2:10, :8] = 97
    note = number_vertebrae(voxels, 37, discs, (3, 3, 3))
    assert "sacrum" in note
    assert [int(voxels[5, 5, level * 10 + 4]) for level in range(5)] == [97, 33, 34, 35, 36]


def test_without_a_sacrum_the_kidneys_lie_at_l2():
    voxels, discs = spine()
    voxels[0, 0, 20:28] = 5
    assert "L2" in number_vertebrae(voxels, 37, discs, (3, 3, 3))
    assert [int(voxels[5, 5, level * 10 + 4]) for level in range(5)] == [34, 35, 36, 37, 38]


def test_without_discs_levels_have_typical_heights():
    voxels = np.zeros((6, 6, 200), np.uint8)
    voxels[:, :, :10] = 97
    voxels[:, :, 10:] = 37
    assert "typical heights" in number_vertebrae(voxels, 37, np.zeros(voxels.shape, bool), (3, 3, 3.0))
    levels = voxels[2, 2]
    assert levels[12] == 33
    assert levels[10 + 37 * 4 // 3 + 3] == 37
    assert levels[-1] == 54  # 5 x 37 + 12 x 26 + 4 x 18 = 569 mm up to the top of C4, the spine is 570 mm
    assert (np.diff(levels[10:].astype(int)) >= 0).all()


def test_vertebra_spacing_counts_whole_vertebrae_only():
    voxels, discs = spine()
    number_vertebrae(voxels, 37, discs, (3, 3, 3))
    census = census_of(voxels)
    assert vertebra_spacing(census, (1, 1, 3.0), 60) == pytest.approx(30.0)
    assert vertebra_spacing(census_of(organs()), (1, 1, 1), 10) is None
