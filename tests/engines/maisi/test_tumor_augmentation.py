from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from ctmr_core.engines.maisi.mask_morphology import closed
from ctmr_core.engines.maisi.tumor_augmentation import augment_mask
from ctmr_core.errors import EngineError
from tests.anatomy.real_label_maps import abdomen
from tests.engines.maisi.mask_networks import torso

HOSTS = {26: (1,), 24: (4,), 27: (62,), 23: (29, 32), 128: (40,)}
NAMES = {128: "bone lesion", 26: "hepatic tumor", 23: "lung tumor", 24: "pancreatic tumor", 27: "colon cancer primaries"}


def only(tumour):
    """The torso with one kind of tumour."""
    volume = torso().copy()
    for label, hosts in HOSTS.items():
        if label not in (tumour, 23):
            volume[volume == label] = hosts[0]
    if tumour != 23:
        volume[volume == 23] = 32
    return volume


@pytest.mark.parametrize("tumour", list(HOSTS))
def test_a_tumour_moves_within_its_host(tumour):
    volume = only(tumour)
    host = closed(np.isin(volume, (*HOSTS[tumour], tumour)), 2, outside=True)
    places = set()
    for seed in range(4):
        moved, (done,) = augment_mask(volume, seed)
        assert done.what == NAMES[tumour]
        assert (moved == tumour).sum() >= 0.75 * (volume == tumour).sum()
        assert host[moved == tumour].all()
        assert set(np.unique(moved).tolist()) == set(np.unique(volume).tolist())
        left = (volume == tumour) & (moved != tumour)
        assert np.isin(moved[left], HOSTS[tumour]).all(), "the host fills the place that was left"
        untouched = (volume != tumour) & (moved != tumour)
        assert np.array_equal(moved[untouched], volume[untouched])
        places.add(tuple(np.argwhere(moved == tumour).mean(axis=0).round(2)))
    assert len(places) > 2


def test_every_kind_is_moved_and_the_reference_moves_one():
    assert [step.what for step in augment_mask(torso(), 0)[1]] == list(NAMES.values())
    assert [step.what for step in augment_mask(torso(), 0, compat=True)[1]] == ["bone lesion"]


@pytest.mark.parametrize("compat", [True, False])
def test_equal_seeds_move_equally(compat):
    volume = only(26)
    before = volume.copy()
    first, _ = augment_mask(volume, 5, compat=compat)
    assert np.array_equal(volume, before)
    assert np.array_equal(first, augment_mask(volume, 5, compat=compat)[0])
    assert not np.array_equal(first, augment_mask(volume, 6, compat=compat)[0])


def test_the_reference_leaves_soft_tissue_where_a_bone_lesion_was():
    volume = only(128)
    moved, (done,) = augment_mask(volume, 1, compat=True)
    left = (volume == 128) & (moved != 128)
    assert done.what == "bone lesion"
    assert (moved[left] == 200).all()


def test_a_real_liver_tumour_keeps_its_size(real_data):
    volume = abdomen(real_data).voxels.copy()
    liver = volume == 1
    depth = ndimage.distance_transform_edt(liver)
    centre = np.unravel_index(depth.argmax(), depth.shape)
    grid = np.indices(volume.shape) - np.array(centre)[:, None, None, None]
    volume[((grid**2).sum(axis=0) <= 25) & liver] = 26
    count = (volume == 26).sum()
    for seed in range(3):
        moved, (done,) = augment_mask(volume, seed)
        assert 0.7 * count <= (moved == 26).sum() <= 1.9 * count
        assert closed(liver, 2, outside=True)[moved == 26].all()
        assert np.linalg.norm(done.shift) > 0.5


def test_bounded_tries_end_with_the_name_of_the_tumour():
    volume = np.zeros((32, 32, 32), np.uint8)
    volume[2:30, 2:30, 2:30] = 200
    volume[1:31, 4, 4] = 62
    volume[8:12, 4, 4] = 27
    for compat in (False, True):
        with pytest.raises(EngineError, match="colon cancer primaries"):
            augment_mask(volume, 0, attempts=2, compat=compat)


def test_a_lung_tumour_outside_of_the_lungs_is_refused():
    volume = np.full((32, 32, 32), 200, np.uint8)
    volume[10:14, 10:14, 10:14] = 23
    for compat in (False, True):
        with pytest.raises(EngineError, match="no lobe"):
            augment_mask(volume, 0, compat=compat)


@pytest.mark.parametrize("compat", [True, False])
def test_healthy_bodies_are_zoomed_by_up_to_one_percent(compat):
    volume = np.zeros((120, 120, 120), np.uint8)
    volume[20:100, 20:100, 20:100] = 200
    volume[50:70, 50:70, 50:70] = 1
    widths = set()
    for seed in range(5):
        zoomed, (done,) = augment_mask(volume, seed, compat=compat)
        assert done.what == "body"
        assert 0.99 <= done.zoom <= 1.01
        assert zoomed.shape == volume.shape
        assert set(np.unique(zoomed)) == {0, 1, 200}
        width = int((zoomed[:, 60, 60] > 0).sum())
        assert abs(width - 80 * done.zoom) <= 1.5
        widths.add(round(done.zoom, 6))
    assert len(widths) == 5


def test_refuses_what_is_no_label_map():
    with pytest.raises(EngineError, match="uint8"):
        augment_mask(torso().astype(int), 0)


def test_the_zoom_of_the_reference_for_seed_0():
    assert augment_mask(np.full((16, 16, 16), 200, np.uint8), 0, compat=True)[1][0].zoom == 1.0043037873274483


def head_with_tumour():
    """uint16 [48, 48, 48], brain ids: skin around white matter (2 and 41) with a tumour of three parts."""
    grid = np.indices((48, 48, 48)) - 23.5
    distance = np.sqrt((grid**2).sum(axis=0))
    volume = np.where(distance < 22, 511, 0).astype(np.uint16)
    volume[distance < 19] = 41
    volume[(distance < 19) & (grid[0] < 0)] = 2
    place = np.sqrt(((grid - np.array([-8, 0, 0])[:, None, None, None]) ** 2).sum(axis=0))
    for label, radius in ((402, 6), (403, 4), (401, 2)):
        volume[place < radius] = label
    return volume


def test_the_parts_of_a_brain_tumour_move_as_one_within_the_brain():
    volume = head_with_tumour()
    for seed in range(3):
        moved, (done,) = augment_mask(volume, seed, vocabulary="brain")
        tumour, before = np.isin(moved, (401, 402, 403)), np.isin(volume, (401, 402, 403))
        assert done.what == "brain tumor"
        assert moved.dtype == np.uint16
        assert {401, 402, 403} <= set(np.unique(moved).tolist()) <= set(np.unique(volume).tolist())
        assert not (tumour & (volume == 511)).any()
        assert np.isin(moved[before & ~tumour], (2, 41)).all(), "white matter of its side fills the place that was left"
        assert np.array_equal(moved[~tumour & ~before], volume[~tumour & ~before])
        assert not np.array_equal(tumour, before)
        centres = [np.argwhere(moved == part).mean(axis=0) for part in (401, 402, 403)]
        assert np.linalg.norm(centres[0] - centres[1]) < 1.5, "necrosis stays in the middle of the oedema"


def test_the_reference_puts_its_own_brain_where_a_brain_tumour_was():
    volume = head_with_tumour()
    moved, _ = augment_mask(volume, 1, compat=True, vocabulary="brain")
    left = np.isin(volume, (401, 402, 403)) & ~np.isin(moved, (401, 402, 403))
    assert left.any()
    assert (moved[left] == 22).all()


def test_ids_of_the_brain_are_not_taken_for_tumours_of_the_body():
    volume = head_with_tumour()
    volume[np.isin(volume, (401, 402, 403))] = 26  # left accumbens area here, a hepatic tumour in the maisi vocabulary
    assert [done.what for done in augment_mask(volume, 0, vocabulary="brain")[1]] == ["body"]
