"""Post-processing, against a plain second implementation over whole volumes, and by what it promises."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from ctmr_core.engines.maisi.mask_morphology import closed, grow, shrink, strays
from ctmr_core.engines.maisi.mask_postprocessing import CLASS_TO_LABEL, give_away, labels_of_classes, postprocess
from ctmr_core.errors import EngineError
from tests.engines.maisi.mask_networks import blobs, torso

CUBE = np.ones((3, 3, 3), bool)
TARGETS = (None, 23, 24, 26, 27, 128)
HOSTS = {23: 28, 24: 4, 26: 1, 27: 62, 128: 200}
SCENES = [
    ((28, 29, 32, 23, 200, 57, 132), 2.5),
    ((1, 26, 25, 3, 62, 200, 4, 24), 2.5),
    ((27, 62, 19, 12, 200, 13, 14, 5, 10), 2.0),
    ((33, 34, 128, 200, 23, 28), 1.5),
    ((26, 1, 25, 200, 3, 19, 62), 1.2),
    ((23, 28, 200, 30, 31, 33), 1.3),
]


def largest(mask):
    pieces, count = ndimage.label(mask, CUBE)
    if not count:
        return mask
    keep = np.argsort(np.bincount(pieces.ravel()))[-2:]
    return np.isin(pieces, keep[keep > 0])


def dilate(mask, times=1):
    return ndimage.binary_dilation(mask, CUBE, times)


def fill(volume, label):
    volume[ndimage.binary_erosion(dilate(volume == label), CUBE, border_value=0)] = label


def reference(volume, target):
    """The steps of the reference in the order in which it takes them, each over the whole volume."""
    vessels, airway = volume == 25, volume == 132
    volume = volume * dilate(largest(ndimage.binary_erosion(volume > 0, CUBE)))
    for tumour, host in HOSTS.items():
        if tumour == target:
            fill(volume, tumour)
        volume[(volume == tumour) & (tumour != target)] = host
    if target not in (None, 26, 128):
        volume[(volume == target) & ~largest(volume == target)] = 200
    tumour = volume == target if target else np.zeros(volume.shape, bool)
    organs = [1, 4, 10, 12, 3, 28, 29, 30, 31, 32, 5, 14, 13, 6, 7, 8, 9, 10, *([] if target == 128 else range(33, 60))]
    removed = np.zeros(volume.shape, bool)
    for organ in dict.fromkeys(organs):
        removed |= (volume == organ) & ~largest(volume == organ)
    volume[removed] = 200
    bowel = np.isin(volume, (19, 62)) & ~largest(np.isin(volume, (12, 13, 19, 62)))
    volume[bowel] = 200
    for organ in organs:
        fill(volume, organ)
    if tumour.any() and target == 23:
        near = dilate(volume == 23)
        ring = np.bincount(volume[near & (volume != 23)], minlength=256)
        ring[0] = 0
        if 28 <= ring.argmax() <= 32:
            near = dilate(near)
            volume[dilate(volume == ring.argmax(), 3) & near & (volume != 23)] = ring.argmax()
        volume[dilate(volume == 23, 3) & dilate(near) & removed] = 23
        for lobe in range(28, 33):
            fill(volume, lobe)
    elif tumour.any() and target == 26:
        for label, source in ((1, bowel), (1, bowel), (3, removed), (3, removed)):
            volume[dilate(volume == label, 3) & source] = label
        volume[dilate(volume == 26, 2) & removed] = 26
        fill(volume, 1)
        tumour[:] = False
    elif tumour.any() and target == 27:
        volume[dilate(volume == 27, 2) & removed] = 27
    volume[vessels], volume[airway], volume[tumour] = 1, 132, target or 0
    return volume


@pytest.mark.parametrize("target", TARGETS)
def test_compat_takes_the_steps_of_the_reference(target):
    for seed, (labels, sigma) in enumerate(SCENES):
        volume = blobs(labels, seed, sigma=sigma)
        assert np.array_equal(postprocess(volume, target, compat=True), reference(volume.copy(), target)), labels


def test_every_class_becomes_its_label():
    assert len(CLASS_TO_LABEL) == 125
    assert sorted(set(range(133)) - set(CLASS_TO_LABEL.tolist())) == [2, 16, 18, 20, 21, 116, 117, 130, 131]
    assert labels_of_classes(np.array([0, 1, 2, 121, 122, 123, 124], np.uint8)).tolist() == [0, 1, 3, 128, 129, 132, 200]


@pytest.mark.parametrize("compat", [True, False])
def test_input_is_left_alone_and_the_result_is_the_same_each_time(compat):
    volume = blobs(SCENES[1][0], 4)
    before = volume.copy()
    first = postprocess(volume, 26, compat=compat)
    assert np.array_equal(volume, before)
    assert np.array_equal(first, postprocess(volume, 26, compat=compat))


@pytest.mark.parametrize("target", TARGETS)
def test_only_the_tumour_that_was_asked_for_is_there(target):
    result = postprocess(torso(), target)
    assert {23, 24, 26, 27, 128} & set(np.unique(result).tolist()) == ({target} if target else set())
    if target:
        assert np.array_equal(result == target, torso() == target)


def test_tumours_that_were_not_asked_for_become_what_surrounds_them():
    result = postprocess(torso())
    assert (result[torso() == 23] == 32).all()
    assert (result[torso() == 26] == 1).all()
    assert set(np.unique(result[torso() == 128]).tolist()) <= {40, 200}
    assert (postprocess(torso(), compat=True)[torso() == 23] == 28).all(), "the reference makes each of them left upper lobe"


def test_hepatic_vessels_are_kept_in_the_liver_only():
    volume = torso().copy()
    volume[8:20, 10, 10] = 25
    volume[34, 34, 40] = 25
    result = postprocess(volume)
    assert (result[8:20, 10, 10] == 25).all()
    assert result[34, 34, 40] != 25
    assert 25 not in postprocess(volume, compat=True)


def test_small_hepatic_tumours_survive_the_closing_of_the_liver():
    volume = torso().copy()
    volume[8:10, 30:32, 5:7] = 26
    small = volume[8:10, 30:32, 5:7]
    assert (postprocess(volume, 26)[8:10, 30:32, 5:7] == small).all()
    assert (postprocess(volume, 26, compat=True)[8:10, 30:32, 5:7] == 1).all(), "the reference closes the liver over it"


def test_stray_hepatic_tumours_are_dropped():
    volume = torso().copy()
    volume[36:40, 36:39, 40:44] = 26
    assert not (postprocess(volume, 26)[36:40, 36:39, 40:44] == 26).any()


def test_kidney_masses_become_cysts_of_the_nearer_kidney():
    volume = np.full((40, 40, 40), 200, np.uint8)
    volume[4:12, 10:20, 10:30] = 5
    volume[28:36, 10:20, 10:30] = 14
    volume[10:13, 12:15, 14:18] = 129
    volume[27:30, 12:15, 14:18] = 129
    volume[19:21, 36:39, 36:39] = 129
    result = postprocess(volume)
    assert (result[10:13, 12:15, 14:18] == 117).all()
    assert (result[27:30, 12:15, 14:18] == 116).all()
    assert 129 not in result
    assert (result[19:21, 36:39, 36:39] == 200).all()
    assert 129 in postprocess(volume, compat=True)


def test_absent_structures_are_given_to_their_surroundings():
    result = postprocess(torso(), 26, absent=(4, 62))
    assert not np.isin(result, (4, 62)).any()
    assert (result > 0).sum() == (postprocess(torso(), 26) > 0).sum()
    assert (postprocess(torso(), 26, absent=(26,)) == 26).any(), "the target stays"


def test_structures_at_the_border_are_closed_like_others():
    volume = np.full((24, 24, 24), 200, np.uint8)
    volume[6:18, 6:18, 0:12] = 1
    volume[11, 11, 0] = 200
    assert postprocess(volume)[11, 11, 0] == 1
    assert postprocess(volume, compat=True)[11, 11, 0] == 200


def test_scattered_voxels_are_no_body():
    volume = np.zeros((16, 16, 16), np.uint8)
    volume[::5, ::5, ::5] = 200
    with pytest.raises(EngineError, match="no body"):
        postprocess(volume)


def test_refuses_what_is_no_label_map_or_tumour():
    with pytest.raises(EngineError, match="no such tumour"):
        postprocess(torso(), 1)
    with pytest.raises(EngineError, match="uint8"):
        postprocess(torso().astype(np.int16))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(TARGETS), st.sampled_from(SCENES))
def test_fixed_mode_leaves_one_piece_of_each_organ_and_no_reserved_ids(seed, target, scene):
    volume = blobs((*scene[0], 129), seed, size=24, sigma=1.6)
    result = postprocess(volume, target)
    present = set(np.unique(result).tolist())
    assert present <= set(np.unique(volume).tolist()) | {1, 200, 116, 117, 28, 4, 62}
    assert 129 not in present
    assert {23, 24, 26, 27, 128} & present <= {target}
    if not target:
        organs = present & {3, 10, 12, 13}
        assert all(ndimage.label(result == organ, CUBE)[1] == 1 for organ in organs)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 3))
def test_morphology_agrees_with_scipy(seed, times):
    mask = np.random.default_rng(seed).random((9, 11, 7)) < 0.2
    assert np.array_equal(grow(mask, times), ndimage.binary_dilation(mask, CUBE, times))
    for outside in (False, True):
        eroded = ndimage.binary_erosion(~mask, CUBE, times, border_value=int(outside))
        assert np.array_equal(shrink(~mask, times, outside=outside), eroded)
    assert (closed(mask, times, outside=True) >= mask).all()


def test_of_equal_pieces_the_first_is_kept():
    volume = np.zeros((20, 5, 5), np.uint8)
    volume[1:3, 1:3, 1:3] = volume[6:8, 1:3, 1:3] = volume[12:14, 1:3, 1:3] = 3
    assert np.flatnonzero(~strays(volume, (3,)).any(axis=(1, 2)) & (volume == 3).any(axis=(1, 2))).tolist() == [1, 2]


def test_giving_away_reaches_only_neighbours():
    volume = np.zeros((20, 20, 20), np.uint8)
    volume[2:18, 2:18, 2:18] = 200
    volume[5:8, 5:8, 5:8] = 10
    volume[5:8, 5:8, 8:10] = 1
    give_away(volume, (10,))
    assert not (volume == 10).any()
    assert set(np.unique(volume[5:8, 5:8, 5:8])) <= {1, 200}
    assert volume[6, 6, 7] == 1
