"""The parametric torso: structures, sides, volumes, order, and independence of the grid."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial

import cc3d
import numpy as np
import pytest
from scipy import ndimage

from ctmr_core.anatomy.grid import Grid
from ctmr_core.anatomy.label_census import LabelCensus, take_census
from ctmr_core.anatomy.label_map import LabelMap
from ctmr_core.anatomy.parametric.torso import parametric_torso
from ctmr_core.anatomy.parametric.torso.body import ParametricTorso
from ctmr_core.anatomy.parametric.torso.frame import Frame
from ctmr_core.anatomy.parametric.torso.person import draw_person
from ctmr_core.anatomy.tissues import tissue_id
from ctmr_core.anatomy.vocabulary import load_vocabulary
from ctmr_core.cases.seeds import body_rng
from ctmr_core.errors import AnatomyError

VOCABULARY = load_vocabulary("maisi")
PEOPLE = ((0, "female"), (1, "male"), (7, None))
RIBS_LEFT, RIBS_RIGHT = range(63, 75), range(75, 87)
SOLID = ("liver", "spleen", "pancreas", "right kidney", "left kidney", "bladder", "heart", "gallbladder", "sternum", "sacrum")

#: mean and standard deviation (mL), men and women, CT volumetry (Geraghty et al. 2004) and ICRP 110.
VOLUMES = {
    "liver": ((1710, 350), (1411, 300)),
    "spleen": ((238, 75), (180, 60)),
    "right kidney": ((193, 40), (157, 35)),
    "left kidney": ((193, 40), (157, 35)),
    "pancreas": ((95, 22), (75, 20)),
    "heart": ((750, 140), (580, 110)),
    "small bowel": ((1000, 300), (900, 300)),
    "colon": ((800, 300), (750, 300)),
    "stomach": ((400, 140), (380, 140)),
}


@cache
def _census(label_map: LabelMap) -> LabelCensus:
    return take_census(label_map)


def _torso(seed: int, sex: str | None = None):
    return parametric_torso(partial(body_rng, "torso", seed), sex)


def _whole(torso, spacing: float = 3.0) -> Grid:
    size = tuple(int(np.ceil(mm / spacing)) for mm in (460, 360, 860))
    return Grid.centred(size, (spacing,) * 3, torso.center_mm(""))  # type: ignore[arg-type]


@pytest.fixture(scope="module", params=PEOPLE, ids=lambda p: f"{p[0]}-{p[1]}")
def person(request):
    torso = _torso(*request.param)
    return torso, torso.label_map(_whole(torso))


def _centroids(label_map) -> dict[int, np.ndarray]:
    return {
        label: label_map.affine[:3, :3] @ entry.centroid + label_map.affine[:3, 3]
        for label, entry in _census(label_map).entries.items()
    }


def test_every_structure_of_a_torso_is_there(person) -> None:
    torso, label_map = person
    present = set(_census(label_map).labels)
    wanted = {*range(1, 16), 17, 19, *range(28, 51), 57, *range(58, 116), 119, *range(121, 128), 132, 200} - {2, 16}
    if torso.person.female:
        assert 118 not in present
    else:
        wanted.add(118)
    assert wanted <= present
    assert len(present) >= 100


def test_left_is_left_and_right_is_right(person) -> None:
    _, label_map = person
    centroids = _centroids(label_map)
    middle = centroids[121][0]
    for label in VOCABULARY:
        if label.side and label.id in centroids and label.id not in (109, 111):
            offset = centroids[label.id][0] - middle
            assert (offset > 0) == (label.side == "right"), label.name
    for name, sign in (("liver", 1), ("gallbladder", 1), ("spleen", -1), ("stomach", -1), ("heart", -1)):
        assert np.sign(centroids[VOCABULARY.label(name).id][0] - middle) == sign, name


@pytest.mark.parametrize("name", SOLID)
def test_a_solid_organ_is_one_piece(person, name) -> None:
    _, label_map = person
    pieces = cc3d.connected_components(label_map.voxels == VOCABULARY.label(name).id, connectivity=26)
    sizes = np.bincount(pieces.ravel())[1:]
    assert sizes.max() / sizes.sum() >= 0.98


def test_organ_volumes_lie_within_the_tables(person) -> None:
    torso, label_map = person
    census = _census(label_map).entries
    for name, table in VOLUMES.items():
        mean, sd = table[1 if torso.person.female else 0]
        assert abs(census[VOCABULARY.label(name).id].volume_ml - mean) < 4 * sd, name
    lungs = sum(census[label].volume_ml for label in range(28, 33))
    assert 1800 < lungs < 7500
    assert 0.45 < sum(census[label].volume_ml for label in (30, 31, 32)) / lungs < 0.62


def test_vertebrae_climb_with_a_human_pitch(person) -> None:
    centroids = _centroids(person[1])
    heights = np.array([centroids[label][2] for label in [127, *range(33, 51)]])
    assert ((np.diff(heights) > 10) & (np.diff(heights) < 45)).all()


def test_the_spinal_cord_is_labelled_as_totalsegmentator_does(person) -> None:
    """The dural sac from the neck to S1; a real scan has 160-250 mm2 above the sacrum."""
    _, label_map = person
    area = (label_map.voxels == 121).sum(axis=(0, 1)) * label_map.spacing[0] * label_map.spacing[1]
    levels = {label: np.flatnonzero((label_map.voxels == label).any(axis=(0, 1))) for label in (127, 33, 43)}
    assert levels[127].min() <= np.flatnonzero(area).min() <= levels[127].max()
    through = area[levels[33].min() : levels[43].max()]
    assert 150 < np.median(through) < 260
    assert through.min() > 80


def test_ribs_descend_in_order_and_slope_forward(person) -> None:
    _, label_map = person
    centroids = _centroids(label_map)
    for side in (RIBS_LEFT, RIBS_RIGHT):
        heights = [centroids[label][2] for label in side]
        assert (np.diff(heights) < 0).all()
    for label in (*RIBS_LEFT[2:9], *RIBS_RIGHT[2:9]):
        _, y, z = np.nonzero(label_map.voxels == label)
        assert z[y > np.percentile(y, 85)].mean() < z[y < np.percentile(y, 15)].mean()


def test_neighbours_are_where_anatomy_puts_them(person) -> None:
    centroids = _centroids(person[1])
    spine = centroids[35]
    assert centroids[6][1] > centroids[121][1]
    assert centroids[6][0] < spine[0] + 8
    assert centroids[7][0] > spine[0]
    for side, lobe in ((28, 29), (30, 32)):
        assert centroids[side][2] > centroids[lobe][2]
        assert centroids[side][1] > centroids[lobe][1]
    assert centroids[28][0] < centroids[115][0] < centroids[30][0]
    assert np.linalg.norm(centroids[8] - centroids[5]) < 90
    assert centroids[8][2] > centroids[5][2]
    assert centroids[14][2] > centroids[5][2] - 15


def test_nothing_touches_the_air_outside_but_the_skin(person) -> None:
    _, label_map = person
    outside = cc3d.connected_components(label_map.voxels == 0, connectivity=6) > 0
    inner = label_map.voxels[1:-1, 1:-1, 1:-1]
    near = np.zeros_like(inner, bool)
    for axis in range(2):  # the body is cut above and below, so only sideways
        for shift in (0, 2):
            part = [slice(1, -1)] * 3
            part[axis] = slice(shift, outside.shape[axis] - 2 + shift)
            near |= outside[tuple(part)]
    assert set(np.unique(inner[near])) <= {0, 200}
    assert cc3d.connected_components(label_map.voxels > 0, connectivity=26, return_N=True)[1] == 1


@pytest.mark.parametrize("spacing", [1.5, 2.2, 3.0])
def test_skin_has_no_gaps_or_is_left_to_the_engine(spacing) -> None:
    torso = parametric_torso(partial(body_rng, "torso", 1))
    grid = Grid.centred((int(420 / spacing), int(330 / spacing), 6), (spacing,) * 3, torso.center_mm("abdomen"))
    label_map = torso.label_map(grid)
    air = label_map.voxels == 0
    outermost = ~air & ndimage.binary_dilation(air, ndimage.generate_binary_structure(3, 1) * np.array([[[0, 1, 0]]], bool))
    share = (label_map.tissues[outermost] == tissue_id("skin")).mean()
    assert share > 0.97 if spacing < 2.5 else share == 0.0


def test_tissues_agree_with_labels(person) -> None:
    _, label_map = person
    voxels, tissues = label_map.voxels, label_map.tissues
    assert tissues is not None
    assert ((tissues == 0) == (voxels == 0)).all()
    assert set(np.unique(tissues[np.isin(voxels, (5, 14))])) <= {
        tissue_id(n) for n in ("kidney_cortex", "kidney_medulla", "renal_pelvis")
    }
    assert {tissue_id("liver"), tissue_id("hepatic_vessel")} == set(np.unique(tissues[voxels == 1]))
    for wall, content, label in (
        ("stomach_wall", "stomach_content", 12),
        ("colon_wall", "stool", 62),
        ("bowel_wall", "bowel_content", 19),
    ):
        assert {tissue_id(wall), tissue_id(content)} <= set(np.unique(tissues[voxels == label]))
    fat = np.count_nonzero(tissues == tissue_id("subcutaneous_fat"))
    assert 0.05 < fat / np.count_nonzero(voxels) < 0.6


def test_gas_in_the_stomach_floats_in_front(person) -> None:
    _, label_map = person
    stomach = label_map.voxels == 12
    gas = np.nonzero(stomach & (label_map.tissues == tissue_id("bowel_gas")))[1]
    content = np.nonzero(stomach & (label_map.tissues == tissue_id("stomach_content")))[1]
    if gas.size:
        assert gas.min() > content.max()


def test_the_same_seed_is_the_same_person() -> None:
    grid = Grid((64, 48, 96), (6.0, 6.0, 6.0), (-190.0, -140.0, -200.0))
    assert _torso(11).label_map(grid).digest() == _torso(11).label_map(grid).digest()


def test_two_seeds_are_two_people() -> None:
    grid = Grid.centred((80, 60, 90), (5.0, 5.0, 5.0), (0.0, 0.0, 60.0))
    a, b = (_torso(seed, "male").label_map(grid).voxels for seed in (21, 22))
    union = (a > 0) | (b > 0)
    organs = union & ~((a == 200) & (b == 200))
    assert np.mean(a[organs] == b[organs]) < 0.75


@pytest.mark.parametrize("start", [(20, 10, 30), (5, 33, 71)])
def test_a_crop_shows_what_the_whole_shows(start) -> None:
    torso = _torso(5)
    whole = _whole(torso, 4.0)
    size = (56, 44, 60)
    origin = tuple(o + i * mm for o, i, mm in zip(whole.origin, start, whole.spacing, strict=True))
    full, crop = torso.label_map(whole), torso.label_map(Grid(size, whole.spacing, origin))
    box = tuple(slice(i, i + n) for i, n in zip(start, size, strict=True))
    assert np.mean(full.voxels[box] == crop.voxels) > 0.999
    assert np.mean(full.tissues[box] == crop.tissues) > 0.999


def test_organ_volumes_do_not_depend_on_the_voxel_size() -> None:
    torso = _torso(9)
    centre = torso.center_mm("abdomen")
    coarse = _census(torso.label_map(Grid.centred((80, 70, 50), (3.0, 3.0, 3.0), centre))).entries
    fine = _census(torso.label_map(Grid.centred((160, 140, 100), (1.5, 1.5, 1.5), centre))).entries
    for label in (1, 3, 4, 5, 6, 7, 12, 14, 35, 62, 104, 105):
        assert coarse[label].volume_ml == pytest.approx(fine[label].volume_ml, rel=0.10), VOCABULARY.label(label).name


def test_centres_are_inside_their_structures() -> None:
    torso = _torso(3)
    for name in ("liver", "left kidney", "aorta", "vertebrae L3", "colon"):
        at = torso.center_mm(name)
        label_map = torso.label_map(Grid.centred((3, 3, 3), (0.5, 0.5, 0.5), at))
        assert label_map.voxels[1, 1, 1] == VOCABULARY.label(name).id
    heights = [torso.center_mm(region)[2] for region in ("pelvis", "abdomen", "chest")]
    assert heights == sorted(heights)


@pytest.mark.parametrize("name", ["brain", "skull", "left ear"])
def test_a_torso_has_no_head(name) -> None:
    with pytest.raises(AnatomyError):
        _torso(3).center_mm(name)


def test_an_empty_field_of_view_is_background() -> None:
    label_map = _torso(2).label_map(Grid((8, 8, 8), (3.0, 3.0, 3.0), (600.0, 600.0, 0.0)))
    assert not label_map.voxels.any()
    assert not label_map.tissues.any()


def test_sex_can_be_asked_for_and_is_checked() -> None:
    assert _torso(4, "male").person.sex == "male"
    assert _torso(4, "female").person.female
    with pytest.raises(AnatomyError):
        _torso(4, "other")


def test_lumbar_spines_are_as_long_as_published_and_differ_between_people() -> None:
    """L1 to L4: 3 x 34-36 mm in men, less in women; 5-6 % between adults of one sex."""
    people = [draw_person(partial(body_rng, "torso", seed), sex) for sex in ("male", "female") for seed in range(200)]
    levels = [person.scale[2] * np.ptp(np.interp([-32.0, 64.0], *person.proportions.heights())) / 3 for person in people]
    men, women = np.array(levels[:200]), np.array(levels[200:])
    assert 33.5 < men.mean() < 36
    assert 31 < women.mean() < men.mean()
    assert all(0.045 < part.std() / part.mean() < 0.075 for part in (men, women))


def test_bladders_hold_from_little_to_more_than_half_a_litre() -> None:
    filled = np.array([draw_person(partial(body_rng, "torso", seed), None).organ_ml["bladder"] for seed in range(300)])
    assert filled.min() >= 50
    assert filled.max() == 600
    assert 150 < np.median(filled) < 260


def test_what_lies_on_the_spine_moves_with_it() -> None:
    """The same person with another lumbar spine: organs keep their levels and their volumes, ribs their vertebrae."""
    lumbar = 1.25
    torsos = [_torso(7, "male"), _with_lumbar(_torso(7, "male"), lumbar)]
    maps = [torso.label_map(_whole(torso, 5.0)) for torso in torsos]
    places = [_centroids(label_map) for label_map in maps]
    length = [one[37][2] - one[34][2] for one in places]
    assert length[1] / length[0] == pytest.approx(lumbar / torsos[0].person.proportions.lumbar, rel=0.04)
    for label in (1, 4, 5, 14, 35, 38, 74, 86):
        levels = [(one[label][2] - one[34][2]) / mm for one, mm in zip(places, length, strict=True)]
        assert levels[1] == pytest.approx(levels[0], abs=0.12), VOCABULARY.label(label).name
    for label in (5, 14, 4, 3, 15):
        ml = [_census(label_map).entries[label].volume_ml for label_map in maps]
        assert ml[1] == pytest.approx(ml[0], rel=0.15), VOCABULARY.label(label).name


def _with_lumbar(torso: ParametricTorso, lumbar: float) -> ParametricTorso:
    torso.person = replace(torso.person, proportions=replace(torso.person.proportions, lumbar=lumbar))
    torso._frame = Frame(torso._streams, torso.person)
    return torso


def test_muscles_hold_as_much_fat_as_the_person_has_in_them() -> None:
    def shares(muscle_fat: float) -> list[float]:
        torso = _torso(1, "male")
        torso.person = replace(torso.person, muscle_fat=muscle_fat)
        label_map = torso.label_map(Grid.centred((90, 70, 30), (4.0, 4.0, 4.0), torso.center_mm("pelvis")))
        labelled = [np.isin(label_map.voxels, labels) for labels in ((98, 99), (106, 107))]
        return [float(np.mean(label_map.tissues[part] == tissue_id("subcutaneous_fat"))) for part in labelled]

    lean, fat = shares(0.0), shares(0.8)
    assert lean == [0.0, 0.0]
    assert 0.1 < fat[0] < 0.3
    assert 0.03 < fat[1] < fat[0]
