from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from scipy import ndimage

from ctmr_core.anatomy.label_map import LabelMap
from ctmr_core.anatomy.resample import resample
from ctmr_core.anatomy.tissue_map import with_tissues
from ctmr_core.anatomy.tissue_map.canvas import smooth_noise
from ctmr_core.anatomy.tissues import tissue_id, tissues
from ctmr_core.anatomy.vocabulary import Vocabulary, load_vocabulary
from ctmr_core.errors import AnatomyError
from tests.anatomy.real_label_maps import abdomen, head, lone_brain

MAISI = load_vocabulary("maisi")
FAT = ("subcutaneous_fat", "visceral_fat", "thymus_fat", "epicardial_fat")
_FINE: dict[Path, LabelMap] = {}


def fine(real_data: Path) -> LabelMap:
    """The whole width of the real abdomen at 1.5 mm, 180 mm high, with tissues."""
    if real_data not in _FINE:
        _FINE[real_data] = with_tissues(resample(abdomen(real_data), (244, 202, 120), (1.5, 1.5, 1.5), (60.5, 50.0, 70.0)))
    return _FINE[real_data]


def share(label_map: LabelMap, label: int | tuple[int, ...], *names: str) -> float:
    """Share of the voxels of ``label`` that are one of the named tissues."""
    assert label_map.tissues is not None
    inside = label_map.tissues[np.isin(label_map.voxels, label)]
    return float(np.isin(inside, [tissue_id(name) for name in names]).mean())


def test_every_labelled_voxel_gets_a_tissue_and_background_none(real_data: Path) -> None:
    out = fine(real_data)
    np.testing.assert_array_equal(out.tissues == 0, out.voxels == 0)
    assert out.tissues.max() < len(tissues())


def test_labels_are_not_touched(real_data: Path) -> None:
    source = abdomen(real_data)
    np.testing.assert_array_equal(with_tissues(source).voxels, source.voxels)


def test_a_map_with_tissues_is_left_as_it_is(real_data: Path) -> None:
    out = fine(real_data)
    assert with_tissues(out) is out


def test_fat_and_muscle_lie_where_the_scan_shows_them(real_data: Path) -> None:
    source = abdomen(real_data)
    hu = np.asarray(nibabel.load(real_data / "ct_abdomen" / "ct.nii.gz").dataobj)
    soft = (source.voxels == 200) & (hu > -200) & (hu < 250)
    fat = np.isin(with_tissues(source).tissues, [tissue_id(name) for name in FAT])[soft]
    scan = (hu < -30)[soft]
    assert fat.mean() == pytest.approx(scan.mean(), abs=0.08)
    assert 2 * (fat & scan).sum() / (fat.sum() + scan.sum()) > 0.78
    assert (fat == scan).mean() > 0.70


def test_skin_is_a_thin_closed_layer_on_fine_grids_and_left_out_on_coarse_ones(real_data: Path) -> None:
    out = fine(real_data)
    skin = out.tissues == tissue_id("skin")
    outside = out.voxels == 0
    touches_air = (out.voxels == 200) & ndimage.binary_dilation(outside)
    assert skin[touches_air].all()
    depth = ndimage.distance_transform_edt(~outside, sampling=1.5)
    assert depth[skin].max() <= 3.0
    assert not (with_tissues(abdomen(real_data)).tissues == tissue_id("skin")).any()


def test_muscle_wall_separates_subcutaneous_from_visceral_fat(real_data: Path) -> None:
    out = fine(real_data)
    under_skin = out.tissues == tissue_id("subcutaneous_fat")
    organs = np.isin(out.voxels, (1, 3, 5, 14, 19, 62))
    ring = ndimage.binary_dilation(under_skin) & organs
    assert ring.sum() < 0.01 * (ndimage.binary_dilation(~organs) & organs).sum()


def test_bones_have_a_closed_shell_around_a_trabecular_core(real_data: Path) -> None:
    out = fine(real_data)
    vertebra = out.voxels == 35
    shell = vertebra & (out.tissues == tissue_id("cortical_bone"))
    surface = vertebra & ~ndimage.binary_erosion(vertebra, border_value=1)
    assert shell[surface].all()
    core = ndimage.binary_erosion(vertebra, iterations=3)
    assert (out.tissues[core] == tissue_id("trabecular_bone")).all()
    assert 0.1 < share(out, 35, "cortical_bone") < 0.5


def test_coarse_voxels_leave_thin_shells_to_the_engine(real_data: Path) -> None:
    assert share(with_tissues(abdomen(real_data)), tuple(range(33, 46)), "cortical_bone") == 0


def test_very_fine_grids_use_distances_and_agree_with_the_neighbour_method(real_data: Path) -> None:
    source = abdomen(real_data)
    tiny = with_tissues(resample(source, (120, 120, 100), (0.4, 0.4, 0.4), (61.0, 30.0, 80.0)))
    assert 0.02 < share(tiny, tuple(range(33, 46)), "cortical_bone") < 0.5


def test_discs_fill_the_gaps_between_vertebral_bodies(real_data: Path) -> None:
    out = fine(real_data)
    disc = out.tissues == tissue_id("intervertebral_disc")
    parts, _ = ndimage.label(disc)
    large = np.bincount(parts.ravel())[1:] * 1.5**3 / 1000 > 2
    assert 3 <= large.sum() <= 6
    for label in np.flatnonzero(large) + 1:
        neighbours = np.unique(out.voxels[ndimage.binary_dilation(parts == label, iterations=2)])
        assert len(set(neighbours.tolist()) & {127, *range(33, 45)}) >= 2


def test_gas_lies_in_front_of_fluid_in_the_stomach(real_data: Path) -> None:
    out = fine(real_data)
    stomach = out.voxels == 12
    gas = np.nonzero(stomach & (out.tissues == tissue_id("bowel_gas")))[1]
    fluid = np.nonzero(stomach & (out.tissues == tissue_id("stomach_content")))[1]
    assert gas.size
    assert fluid.size
    assert gas.min() >= fluid.max()


def test_hollow_organs_have_closed_walls(real_data: Path) -> None:
    out = fine(real_data)
    for label, wall in ((12, "stomach_wall"), (62, "colon_wall"), (19, "bowel_wall")):
        organ = out.voxels == label
        surface = organ & ~ndimage.binary_erosion(organ, border_value=1)
        assert (out.tissues[surface] == tissue_id(wall)).all(), wall
        assert share(out, label, wall) < 0.7


def test_kidneys_have_cortex_outside_medulla(real_data: Path) -> None:
    out = fine(real_data)
    kidney = out.voxels == 14
    depth = ndimage.distance_transform_edt(kidney) * 1.5
    cortex, medulla = (depth[kidney & (out.tissues == tissue_id(f"kidney_{part}"))] for part in ("cortex", "medulla"))
    assert np.median(cortex) < np.median(medulla)
    assert 0.4 < cortex.size / kidney.sum() < 0.9


def test_the_cord_ends_above_the_second_lumbar_vertebra(real_data: Path) -> None:
    out = fine(real_data)
    heights = np.arange(out.size[2])[None, None, :] * np.ones(out.size, int)
    cord, top_of_l2 = out.tissues == tissue_id("spinal_cord"), heights[out.voxels == 36].max()
    assert cord.any()
    assert heights[cord].min() >= top_of_l2
    below = (out.voxels == 121) & (heights < top_of_l2)
    assert (out.tissues[below] == tissue_id("csf_spinal")).all()


def test_left_ventricle_is_thick_walled_and_lies_left_of_the_middle() -> None:
    x, y, z = (np.arange(90) * 1.5 - 67 for _ in range(3))
    ball = (x[:, None, None] / 62) ** 2 + (y[None, :, None] / 50) ** 2 + (z[None, None] / 52) ** 2 < 1
    heart = LabelMap(np.where(ball, 115, 200).astype(np.uint8), np.diag([1.5, 1.5, 1.5, 1]), MAISI)
    out = with_tissues(heart)
    muscle = ball & (out.tissues == tissue_id("myocardium"))
    assert 0.2 < muscle.sum() / ball.sum() < 0.6
    assert x[np.nonzero(muscle)[0]].mean() < -5  # +x is the patient's right


def test_random_parts_follow_the_generator_and_nothing_else(real_data: Path) -> None:
    source = abdomen(real_data)
    one = with_tissues(source, np.random.default_rng(1)).tissues
    np.testing.assert_array_equal(one, with_tissues(source, np.random.default_rng(1)).tissues)
    other = with_tissues(source, np.random.default_rng(2)).tissues
    changed = np.unique(source.voxels[one != other])
    assert {12, 62} & set(changed.tolist())
    assert not set(changed.tolist()) & {1, 3, 6, 7, 97}


def test_head_soft_tissue_is_fat_under_the_skin_and_muscle_below(real_data: Path) -> None:
    source = head(real_data)
    out = with_tissues(source)
    soft = source.voxels == 507
    assert set(np.unique(out.tissues[soft]).tolist()) <= {tissue_id(name) for name in ("subcutaneous_fat", "muscle", "dura")}
    away = ndimage.distance_transform_edt(source.voxels[:, :, ::2] != 511, sampling=(1, 1, 2))
    fat = (out.tissues == tissue_id("subcutaneous_fat"))[:, :, ::2]
    assert fat[soft[:, :, ::2] & (away < 3)].mean() > 0.9
    assert fat[soft[:, :, ::2] & (away > 14)].mean() < 0.3
    other = source.voxels != 507
    np.testing.assert_array_equal(out.tissues[other], source.vocabulary.tissue_table[source.voxels[other]])


def test_sulci_of_a_brain_that_stands_alone_are_filled_with_fluid(real_data: Path) -> None:
    source = lone_brain(real_data)
    fluid = with_tissues(source).tissues == tissue_id("csf_subarachnoid")
    fluid &= source.voxels == 0
    labelled = np.isin(head(real_data).voxels[::2, ::2, ::2], (24, 520))  # the scan's own labels of what was taken away
    brain = source.voxels > 0
    narrow = ndimage.binary_closing(np.pad(brain, 4), iterations=2)[4:-4, 4:-4, 4:-4] & ~brain
    assert fluid[narrow].mean() > 0.98
    assert labelled[fluid].mean() > 0.75
    far = ndimage.distance_transform_edt(~brain, sampling=2.0) > 8.0
    assert not fluid[far].any()


def test_a_labelled_head_gets_no_fluid_outside_its_labels(real_data: Path) -> None:
    source = head(real_data)
    voxels = np.ascontiguousarray(source.voxels[::2, ::2, ::2])
    out = with_tissues(LabelMap(voxels, source.affine @ np.diag([2.0, 2.0, 2.0, 1.0]), source.vocabulary))
    assert not out.tissues[voxels == 0].any()


def test_other_vocabularies_are_refused() -> None:
    foreign = Vocabulary("lung nodules", MAISI.labels, MAISI.dtype)
    with pytest.raises(AnatomyError, match="built-in"):
        with_tissues(LabelMap(np.ones((8, 8, 8), np.uint8), np.eye(4), foreign))


def test_empty_and_tiny_maps_are_no_trouble() -> None:
    empty = LabelMap(np.zeros((16, 16, 16), np.uint8), np.eye(4), MAISI)
    assert not with_tissues(empty).tissues.any()
    for label in MAISI:
        voxels = np.full((16, 16, 16), 200, np.uint8)
        voxels[8, 8, 8] = label.id
        assert with_tissues(LabelMap(voxels, np.diag([2.0, 1.0, 4.0, 1]), MAISI)).tissues.all()


def test_smooth_noise_has_unit_variance() -> None:
    noise = smooth_noise((90, 80, 70), np.array([1.0, 1.5, 2.0]), 6.0, np.random.default_rng(0))
    assert noise.std() == pytest.approx(1, rel=0.1)
    assert np.abs(np.diff(noise, axis=0)).max() < 1.5


def test_a_head_in_the_body_vocabulary_has_muscle_below_the_fat_and_csf_around_the_brain(real_data: Path) -> None:
    source = head(real_data)
    table = np.zeros(600, np.uint8)
    table[1:400], table[[515, 516]], table[512] = 22, 120, 121
    table[[24, 502, 506, 507, 508, 509, 511, 514, 530]] = 200  # the CSF around the brain is unlabelled in body vocabularies
    out = with_tissues(LabelMap(table[source.voxels], source.affine, MAISI))
    deep = ndimage.distance_transform_edt(source.voxels != 0)[::2, ::2, ::2] > 15
    soft = (source.voxels == 507)[::2, ::2, ::2] & deep
    assert (out.tissues[::2, ::2, ::2][soft] == tissue_id("muscle")).mean() > 0.6
    assert (out.tissues[source.voxels == 24] == tissue_id("csf_subarachnoid")).mean() > 0.65
    assert share(out, 120, "cortical_bone") > 0.4
