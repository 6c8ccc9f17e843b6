from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from ctmr_core.anatomy.deformation import random_displacement
from ctmr_core.anatomy.label_map import LabelMap
from ctmr_core.anatomy.resample import resample
from ctmr_core.anatomy.vocabulary import load_vocabulary
from tests.anatomy.real_label_maps import abdomen, head, volumes_ml
from tests.anatomy.test_field_of_view import oblique

MAISI = load_vocabulary("maisi")


def ball(radius_mm: float, spacing: tuple[float, float, float], turn: float = 0.0) -> LabelMap:
    """A liver-labelled ball in a body that fills the volume."""
    size = [int(70 / mm) for mm in spacing]
    x, y, z = (np.arange(n) * mm - n * mm / 2 - 3 for n, mm in zip(size, spacing, strict=True))
    inside = x[:, None, None] ** 2 + y[None, :, None] ** 2 + z[None, None] ** 2 < radius_mm**2
    return LabelMap(np.where(inside, 1, 200).astype(np.uint8), oblique(spacing, turn, (7, -3, 11)), MAISI)


def centroid_mm(label_map: LabelMap, label: int) -> np.ndarray:
    places = np.stack(np.nonzero(label_map.voxels == label), -1)
    return label_map.affine[:3, :3] @ places.mean(axis=0) + label_map.affine[:3, 3]


def test_same_grid_returns_the_same_voxels(real_data: Path) -> None:
    source = abdomen(real_data)
    out = resample(source, source.size, source.spacing)
    np.testing.assert_array_equal(out.voxels, source.voxels)
    np.testing.assert_allclose(out.affine, source.affine)


def test_whole_voxel_shift_copies_voxels_and_pads_with_background(real_data: Path) -> None:
    source = abdomen(real_data)
    out = resample(source, (40, 40, 40), source.spacing, center_index=(5.5, 50.5, 60.5))
    np.testing.assert_array_equal(out.voxels[14:], source.voxels[:26, 31:71, 41:81])
    assert not out.voxels[:14].any()


def test_finer_grid_keeps_the_volume_of_every_structure(real_data: Path) -> None:
    source = abdomen(real_data)
    out = resample(source, (245, 203, 225), (1.5, 1.5, 1.5))
    before, after = volumes_ml(source), volumes_ml(out)
    counts = np.bincount(source.voxels.ravel(), minlength=600)
    for label in np.flatnonzero(counts[1:] > 500) + 1:
        assert after[label] == pytest.approx(before[label], rel=0.05), MAISI.by_id[label].name
    for label in np.flatnonzero(counts[1:] > 60) + 1:
        assert after[label] == pytest.approx(before[label], rel=0.15), MAISI.by_id[label].name


def test_coarser_grid_keeps_ribs_and_vessels(real_data: Path) -> None:
    source = abdomen(real_data)
    out = resample(source, (61, 51, 56), (6.0, 6.0, 6.0))
    before, after = volumes_ml(source), volumes_ml(out)
    present = np.flatnonzero(before > 2)
    assert set(present) <= set(np.flatnonzero(after))
    for label in present:
        assert after[label] > 0.6 * before[label], label


def test_finer_and_back_is_the_same_map(real_data: Path) -> None:
    source = abdomen(real_data)
    fine = resample(source, (244, 202, 224), (1.5, 1.5, 1.5))
    back = resample(fine, source.size, source.spacing)
    assert (back.voxels == source.voxels).mean() > 0.995


def test_boundaries_are_smooth_where_nearest_neighbours_are_blocky() -> None:
    source = ball(25, (3.0, 3.0, 3.0))
    out = resample(source, (138, 138, 138), (0.5, 0.5, 0.5))
    blocky = np.repeat(np.repeat(np.repeat(source.voxels, 6, 0), 6, 1), 6, 2)

    def roughness(voxels: np.ndarray) -> float:
        mask = voxels == 1
        surface = mask & ~ndimage.binary_erosion(mask)
        places = np.stack(np.nonzero(surface), -1) * 0.5
        return float(np.linalg.norm(places - places.mean(axis=0), axis=1).std())

    assert roughness(out.voxels) < 0.6 * roughness(blocky)


def test_a_rod_one_voxel_thick_survives_every_spacing() -> None:
    voxels = np.full((40, 40, 40), 200, np.uint8)
    voxels[20, 20, 5:35] = 6
    source = LabelMap(voxels, np.diag([3.0, 3.0, 3.0, 1]), MAISI)
    for mm in (0.8, 1.0, 1.7, 2.5, 3.0):
        n = int(120 / mm)
        out = resample(source, (n, n, n), (mm, mm, mm), center_index=(19.3, 19.6, 19.5))
        assert volumes_ml(out)[6] == pytest.approx(volumes_ml(source)[6], rel=0.35), mm


@settings(max_examples=10, deadline=None)
@given(
    spacing=st.tuples(*[st.floats(1.5, 4.0)] * 3),
    wanted=st.tuples(*[st.floats(1.2, 4.0)] * 3),
    shift=st.tuples(*[st.floats(-3, 3)] * 3),
    turn=st.floats(-0.6, 0.6),
)
def test_structures_stay_where_they_are_in_space(spacing, wanted, shift, turn) -> None:
    source = ball(22, spacing, turn)
    centre = tuple((np.array(source.size) - 1) / 2 + shift)
    size = tuple(int(100 / mm) for mm in wanted)
    out = resample(source, size, wanted, centre)
    np.testing.assert_allclose(centroid_mm(out, 1), centroid_mm(source, 1), atol=0.25 * max(*spacing, *wanted))
    assert volumes_ml(out)[1] == pytest.approx(volumes_ml(source)[1], rel=0.06)


def test_tissues_travel_with_their_labels(real_data: Path) -> None:
    source = abdomen(real_data)
    tissues = MAISI.tissue_table[source.voxels]
    out = resample(replace(source, tissues=tissues), (150, 120, 130), (2.1, 2.3, 2.2))
    assert out.tissues is not None
    np.testing.assert_array_equal(out.tissues, MAISI.tissue_table[out.voxels])


def test_result_does_not_depend_on_threads(real_data: Path) -> None:
    source = abdomen(real_data)
    warp = random_displacement((366.0, 303.0, 336.0), 10, np.random.default_rng(0))
    one = resample(source, (96, 96, 96), (2.4, 2.4, 2.4), displacement=warp)
    two = resample(source, (96, 96, 96), (2.4, 2.4, 2.4), displacement=warp, threads=2)
    np.testing.assert_array_equal(one.voxels, two.voxels)


def test_warp_moves_structures_by_its_displacement() -> None:
    source = ball(20, (3.0, 3.0, 3.0))
    warp = random_displacement((90.0, 90.0, 90.0), 8, np.random.default_rng(2), control_mm=120)
    out = resample(source, (90, 90, 90), (1.0, 1.0, 1.0), displacement=warp)
    after = centroid_mm(out, 1)
    index = np.linalg.solve(source.affine[:3, :3], after - source.affine[:3, 3]) * 3.0
    moved = warp.at(index[:1], index[1:2], index[2:])[:, 0, 0, 0]
    np.testing.assert_allclose(after + moved, centroid_mm(source, 1), atol=2.0)
    assert np.linalg.norm(moved) > 1.5


def test_heads_keep_their_thin_structures_at_two_millimetres(real_data: Path) -> None:
    source = head(real_data)
    out = resample(source, (128, 128, 128), (2.0, 2.0, 2.0))
    before, after = volumes_ml(source), volumes_ml(out)
    for label in (3, 42, 511, 515, 24, 17, 4):
        assert after[label] == pytest.approx(before[label], rel=0.2), label
