"""Label maps from files: what is remarked, refused, and moved to a grid of the CT variants."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctmr_core.anatomy.label_map import LabelMap
from ctmr_core.anatomy.vocabulary import load_vocabulary
from ctmr_core.engines.maisi.mask_input import nearest_ct_grid, placed_on, read_mask
from ctmr_core.engines.maisi.variants import CT_DEPTHS, CT_PLANE_SIZES
from ctmr_core.errors import AnatomyError


def saved(folder, voxels, affine=None):
    path = folder / "mask.nii.gz"
    nib.save(nib.Nifti1Image(voxels, np.diag([2.0, 2.0, 3.0, 1.0]) if affine is None else affine), path)
    return path


def body(*labels: int, dtype=np.uint8) -> np.ndarray:
    voxels = np.full((20, 16, 12), 200, dtype)
    for index, label in enumerate(labels):
        voxels[index] = label
    return voxels


def test_a_map_of_known_labels_with_a_body_needs_no_remark(tmp_path):
    label_map, remarks = read_mask(saved(tmp_path, body(0, 1, 3)))
    assert remarks == []
    assert label_map.vocabulary.name == "maisi"
    assert label_map.spacing == (2.0, 2.0, 3.0)


def test_unknown_labels_and_a_missing_body_are_remarked(tmp_path):
    voxels = body(0, 1, 150)
    voxels[voxels == 200] = 0
    remarks = read_mask(saved(tmp_path, voxels))[1]
    assert any("150" in remark for remark in remarks)
    assert any("200 (body)" in remark for remark in remarks)


def test_ids_that_eight_bits_cannot_hold_are_refused(tmp_path):
    with pytest.raises(AnatomyError, match="8 bits"):
        read_mask(saved(tmp_path, body(401, dtype=np.int16)))


spacings = st.tuples(st.floats(0.3, 6), st.floats(0.3, 6), st.floats(0.3, 8))
sizes = st.tuples(st.integers(40, 700), st.integers(40, 700), st.integers(20, 900))


@given(sizes, spacings)
def test_the_nearest_grid_is_one_the_weights_know_and_is_its_own_nearest(size, spacing):
    (x, y, z), mm = nearest_ct_grid(size, spacing)
    assert x == y
    assert x in CT_PLANE_SIZES
    assert z in CT_DEPTHS
    assert mm[0] == mm[1]
    assert 0.5 <= mm[0] <= 3
    assert 0.5 <= mm[2] <= 5
    assert nearest_ct_grid((x, y, z), mm) == ((x, y, z), mm)


def test_the_nearest_grid_keeps_the_field_of_view_where_the_spacing_allows():
    size, spacing = nearest_ct_grid((500, 480, 140), (0.8, 0.8, 2.5))
    assert size == (512, 512, 128)
    np.testing.assert_allclose(np.multiply(size, spacing), (392, 392, 350))


@pytest.mark.parametrize("compat", [False, True])
def test_structures_stay_where_they_are_in_the_patient(compat):
    """An oblique map, moved to finer and larger voxels: the middle of a block is found at the same place in mm."""
    turn = np.array([[0.98, -0.199, 0], [0.199, 0.98, 0], [0, 0, 1.0]])
    affine = np.eye(4)
    affine[:3, :3] = turn * (3.0, 3.0, 5.0)
    affine[:3, 3] = (-40, 12, 100)
    voxels = np.zeros((30, 28, 20), np.uint8)
    voxels[6:24, 6:22, 4:16] = 200
    voxels[10:16, 9:15, 6:12] = 1
    label_map = LabelMap(voxels, affine, load_vocabulary("maisi"))
    if compat:  # MONAI's resampling keeps the first voxel's corner; axis-aligned maps are what the reference accepts
        affine[:3, :3] = np.diag([3.0, 3.0, 5.0])
        label_map = LabelMap(voxels, affine, load_vocabulary("maisi"))
    moved = placed_on(label_map, (48, 48, 40), (2.0, 2.0, 3.0), compat=compat)
    assert moved.size == (48, 48, 40)
    np.testing.assert_allclose(moved.spacing, (2, 2, 3), rtol=1e-6)
    centre, expected = (
        nib.affines.apply_affine(part.affine, np.argwhere(part.voxels == 1).mean(0)) for part in (moved, label_map)
    )
    np.testing.assert_allclose(centre, expected, atol=2.0)


def test_the_same_grid_is_the_same_map(tmp_path):
    label_map, _ = read_mask(saved(tmp_path, body(1)))
    assert placed_on(label_map, label_map.size, label_map.spacing, compat=False) is label_map
