from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from ctmr_core.anatomy.label_map import LabelIntensity, LabelMap
from ctmr_core.anatomy.tissues import tissue_id, tissues
from ctmr_core.anatomy.vocabulary import load_vocabulary
from ctmr_core.engines.tissue.context import RenderContext
from ctmr_core.engines.tissue.ct import HU_RANGE
from ctmr_core.engines.tissue.ct_couch import add_couch
from ctmr_core.engines.tissue.ct_table import draw_hu, hu_table
from ctmr_core.engines.tissue.engine import TissueEngine
from tests.engines.tissue.bodies import make_case, neighbour_correlation, real_abdomen, small_body

Render = Callable[..., np.ndarray]


@pytest.fixture(scope="module")
def body() -> LabelMap:
    return small_body()


@pytest.fixture(scope="module")
def abdomen(real_data: Path) -> tuple[LabelMap, np.ndarray]:
    return real_abdomen(real_data)


@pytest.fixture(scope="module")
def native(abdomen: tuple[LabelMap, np.ndarray]) -> np.ndarray:
    label_map, _ = abdomen
    return TissueEngine().render(make_case(label_map, ct={"kernel": "standard"}), label_map, 0)["ct"]


def render(label_map: LabelMap, sequence: str = "ct", seed: int = 0, intensities: str = "population", **ct: object) -> np.ndarray:
    case = make_case(label_map, (sequence,), seed=seed, ct=ct, intensities=intensities)
    return TissueEngine().render(case, label_map, 0)[sequence]


def inside(label_map: LabelMap, label: str, steps: int = 1) -> np.ndarray:
    return ndimage.binary_erosion(label_map.voxels == label_map.vocabulary.label(label).id, iterations=steps)


# The table -----------------------------------------------------------------------------------------------------------


def test_every_tissue_has_a_row_with_a_source() -> None:
    rows = hu_table()
    assert [row.tissue for row in rows] == [tissue.name for tissue in tissues()]
    assert all(row.source for row in rows)


def test_draws_stay_in_their_range_and_one_person_is_the_same_in_all_phases() -> None:
    liver, muscle = tissue_id("liver"), tissue_id("muscle")
    ranks = []
    for seed in range(40):
        by_phase = {p: draw_hu(p, np.random.default_rng(seed), np.random.default_rng(7)) for p in ("native", "portal")}
        native, portal = by_phase["native"].mean, by_phase["portal"].mean
        assert 56 - 2 * 7 - 10 < native[liver] < 56 + 2 * 7 + 10
        assert portal[liver] > native[liver] + 20
        assert native[0] == -1000
        assert abs(native[muscle] - 50) < 2 * 7 + 10
        ranks.append((native[liver], portal[liver]))
    assert np.corrcoef(np.array(ranks).T)[0, 1] > 0.95


# Phases and settings -------------------------------------------------------------------------------------------------


def test_contrast_phases_are_ordered_as_in_patients(body: LabelMap) -> None:
    aorta, liver, kidney = (inside(body, name) for name in ("aorta", "liver", "left kidney"))
    plain = render(body, "ct")
    arterial = render(body, "ct_contrast", phase="arterial")
    portal = render(body, "ct_contrast", phase="portal")
    assert np.median(plain[aorta]) < 70 < np.median(portal[aorta]) < 220 < np.median(arterial[aorta])
    assert np.median(plain[liver]) < np.median(arterial[liver]) < np.median(portal[liver])
    assert np.median(arterial[kidney]) > np.median(plain[kidney]) + 80


def test_noise_goes_with_one_over_the_root_of_the_dose(body: LabelMap) -> None:
    liver = inside(body, "liver", 2)
    flat = {"texture": 0.0, "noise": 12.0}
    full, quarter = (render(body, dose=dose, **flat)[liver].std() for dose in (1.0, 0.25))
    assert full == pytest.approx(12.0, rel=0.25)
    assert quarter == pytest.approx(2 * full, rel=0.03)


def test_thick_slices_blur_along_z_only(body: LabelMap) -> None:
    flat = {"texture": 0.0, "noise": 0.0, "kernel": "sharp"}
    thin, thick = render(body, **flat), render(body, slice_thickness=16.0, **flat)
    edge = body.voxels[20, 28] > 0
    assert np.array_equal(thin[:, :, 20], thick[:, :, 20]) or np.abs(thin[:, :, 20] - thick[:, :, 20]).max() <= 1500
    steps = [np.abs(np.diff(image[:, :, edge].astype(int), axis=2)).max() for image in (thin, thick)]
    assert steps[1] < 0.7 * steps[0]


def test_the_air_around_the_body_is_clean_where_asked(body: LabelMap) -> None:
    air = ndimage.binary_erosion(body.voxels == 0, iterations=3, border_value=1)
    assert (render(body, air_noise=0.0)[air] == -1000).all()
    noisy = render(body, air_noise=1.0, noise=20.0)[air]
    assert -1003 < np.median(noisy) < -997
    assert noisy.std() > 3
    assert noisy.min() >= HU_RANGE[0]


def test_the_couch_lies_behind_the_body_and_leaves_it_alone(body: LabelMap) -> None:
    hu = torch.zeros(body.size)
    add_couch(hu, RenderContext(make_case(body), body, 0))
    table = hu.numpy() != 0
    assert table.sum() > 1000
    assert not (table & (body.voxels > 0)).any()
    assert np.argwhere(table)[:, 1].max() < body.size[1] // 2
    assert (render(body, couch=True) > -700)[table].mean() > 0.05


def test_the_ends_of_the_volume_do_not_leak_into_each_other() -> None:
    body = small_body((40, 32, 24))
    labels, tissue_map = np.zeros_like(body.voxels), np.zeros(body.size, np.uint8)
    labels[-3:], tissue_map[-3:] = 115, tissue_id("metal")
    labels[:, :, -3:], tissue_map[:, :, -3:] = 115, tissue_id("metal")
    metal = replace(body, voxels=labels, tissues=tissue_map)
    image = render(metal, noise=0.0, texture=0.0, kernel="soft")
    assert image.max() <= HU_RANGE[1]
    assert (image[:-8, :, :-8] == -1000).all()


def test_lungs_show_vessels_and_are_denser_at_the_back(body: LabelMap) -> None:
    lung = inside(body, "right lung lower lobe", 2)
    image = render(body, noise=0.0)
    values = image[lung]
    assert -900 < np.median(values) < -780
    assert (values > -700).mean() > 0.005
    back = np.median(image[:, :28][lung[:, :28]])
    front = np.median(image[:, 28:][lung[:, 28:]])
    assert 5 < back - front < 60


def ball_of_bone(mm: float, label: str) -> tuple[LabelMap, np.ndarray]:
    """A ball of spongy bone of radius 15 mm in muscle; the distance in mm of every voxel from its centre."""
    n = int(48 / mm)
    x, y, z = np.meshgrid(*[(np.arange(n) - (n - 1) / 2) * mm] * 3, indexing="ij")
    radius = np.sqrt(x**2 + y**2 + z**2)
    vocabulary = load_vocabulary("maisi")
    bone = radius < 15
    labels = np.where(bone, vocabulary.label(label).id, vocabulary.label("body").id).astype(np.uint8)
    tissue_map = np.where(bone, tissue_id("trabecular_bone"), tissue_id("muscle")).astype(np.uint8)
    return LabelMap(labels, np.diag([mm, mm, mm, 1.0]), vocabulary, tissue_map), radius


@pytest.mark.parametrize("mm", [1.0, 2.0, 3.0])
def test_shells_of_bones_are_closed_whatever_the_tissue_map_met_of_them(mm: float) -> None:
    label_map, radius = ball_of_bone(mm, "left hip")
    dashed = label_map.tissues.copy()
    rim = (radius < 15) & (radius > 14.3)
    dashed[rim] = tissue_id("cortical_bone")
    flat = {"texture": 0.0, "noise": 0.0, "kernel": "sharp"}
    case = make_case(label_map, ct=flat)
    image, same = (
        TissueEngine().render(case, replace(label_map, tissues=tissue_map), 0)["ct"] for tissue_map in (label_map.tissues, dashed)
    )
    assert np.array_equal(image, same)
    outermost = (radius < 15) & ndimage.binary_dilation(radius >= 15)
    core = np.median(image[radius < 7])
    assert image[outermost].min() > core + 60
    assert np.abs(image[radius < 7] - core).max() < 3


def test_shells_hold_the_same_bone_at_every_voxel_size() -> None:
    excess = []
    for mm in (1.0, 1.5, 3.0):
        label_map, _ = ball_of_bone(mm, "left hip")
        flat = {"texture": 0.0, "noise": 0.0}
        image = TissueEngine().render(make_case(label_map, ct=flat), label_map, 0)["ct"].astype(float)
        bone = label_map.voxels == label_map.vocabulary.label("left hip").id
        context = RenderContext(make_case(label_map, ct=flat), label_map, 0)
        hu = draw_hu("native", context.rng("ct/subject"), context.rng("ct/scanner")).mean
        spongy, cortical, muscle = (hu[tissue_id(name)] for name in ("trabecular_bone", "cortical_bone", "muscle"))
        excess.append((image - np.where(bone, spongy, muscle)).sum() * mm**3 / (cortical - spongy))
    area = 4 * np.pi * 15**2
    assert all(0.4 * area < value < 1.1 * area for value in excess), excess


def test_skin_is_a_closed_line_where_voxels_are_too_coarse_for_it() -> None:
    body = small_body((72, 56, 16), (3.5, 3.5, 3.5))
    image = render(body, texture=0.0, noise=0.0)
    inside = ndimage.binary_erosion(body.voxels > 0, border_value=1)
    outermost = (body.voxels > 0) & ~inside
    beneath = (
        inside & ~ndimage.binary_erosion(inside, iterations=2, border_value=1) & (body.tissues == tissue_id("subcutaneous_fat"))
    )
    assert np.median(image[beneath]) < -80
    assert image[outermost].std() < 120
    assert image[outermost].min() > -700


def test_fat_between_organs_holds_strands_and_muscles_part_at_fat_planes(body: LabelMap) -> None:
    vocabulary, size = load_vocabulary("maisi"), (60, 60, 30)
    labels = np.full(size, vocabulary.label("body").id, np.uint8)
    fat = np.full(size, tissue_id("visceral_fat"), np.uint8)
    mesentery = LabelMap(labels, np.diag([1.5, 1.5, 1.5, 1.0]), vocabulary, fat)
    values = render(mesentery, noise=0.0)
    assert 0.005 < (values > np.median(values) + 60).mean() < 0.15
    labels = labels.copy()
    labels[30:] = vocabulary.label("left iliopsoas").id
    muscles = replace(mesentery, voxels=labels, tissues=np.full(size, tissue_id("muscle"), np.uint8))
    values = render(muscles, noise=0.0)
    assert np.median(values[29]) < np.median(values[10:26]) - 20


# The real abdomen ----------------------------------------------------------------------------------------------------


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("label", "low", "high"),
    [
        ("liver", 35, 75),
        ("spleen", 33, 60),
        ("aorta", 28, 60),
        ("inferior vena cava", 26, 60),
        ("gallbladder", -12, 24),
        ("bladder", -8, 24),
        ("left kidney", 8, 50),
        ("right kidney", 8, 50),
        ("left iliopsoas", 25, 70),
        ("left gluteus maximus", 15, 70),
        ("right lung lower lobe", -920, -760),
        ("costal cartilages", 75, 140),
    ],
)
def test_native_medians_lie_in_the_ranges_of_the_population(
    abdomen: tuple[LabelMap, np.ndarray], native: np.ndarray, label: str, low: float, high: float
) -> None:
    assert low <= np.median(native[inside(abdomen[0], label)]) <= high


@pytest.mark.real_data
@pytest.mark.parametrize("label", [f"vertebrae L{n}" for n in range(1, 6)] + ["left hip", "right hip"])
def test_bones_have_a_dense_shell_around_trabecular_bone(
    abdomen: tuple[LabelMap, np.ndarray], native: np.ndarray, label: str
) -> None:
    label_map, _ = abdomen
    whole, core = label_map.voxels == label_map.vocabulary.label(label).id, inside(label_map, label)
    shell = whole & ~core
    assert 71 < np.median(native[whole]) < 330
    assert 60 < np.median(native[core]) < 260
    assert np.median(native[shell]) > np.median(native[core]) + 20
    assert np.quantile(native[shell], 0.9) > 350


@pytest.mark.real_data
def test_liver_noise_is_as_strong_and_as_correlated_as_in_the_real_scan(
    abdomen: tuple[LabelMap, np.ndarray], native: np.ndarray
) -> None:
    label_map, real = abdomen
    liver = inside(label_map, "liver", 3)
    detail = [np.std((v - ndimage.gaussian_filter(v, 2))[liver]) for v in (native.astype(float), real.astype(float))]
    assert 0.6 < detail[0] / detail[1] < 1.7
    for axis in range(3):
        assert 0.1 < neighbour_correlation(native, liver, axis) < 0.5


@pytest.mark.real_data
def test_template_intensities_give_every_organ_its_own_median_and_spread(abdomen: tuple[LabelMap, np.ndarray]) -> None:
    label_map, real = abdomen
    large = [int(label) for label in np.unique(label_map.voxels) if label and (label_map.voxels == label).sum() > 500]
    measured = {
        label: LabelIntensity(float(np.median(real[label_map.voxels == label])), float(real[label_map.voxels == label].std()))
        for label in large
    }
    image = render(replace(label_map, intensities={"ct": measured}), intensities="template")
    for label, value in measured.items():
        voxels = image[label_map.voxels == label]
        name = label_map.vocabulary.label(label).name
        assert abs(np.median(voxels) - value.median) <= 5, name
        assert 0.6 <= voxels.std() / value.spread <= 1.4, name


def test_template_intensities_fall_back_to_the_population(body: LabelMap) -> None:
    assert np.array_equal(render(body), render(body)), "the same case twice"
    images = TissueEngine().render(make_case(body, intensities="template"), body, 0)
    assert images.parameters["ct"]["intensities"] == "population"
