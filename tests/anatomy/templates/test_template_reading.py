import gzip

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

from ctmr_core.anatomy.templates.reading import is_readable_name, read_label_scan, read_scan, scan_stem
from ctmr_core.errors import AnatomyError

ORIENTATIONS = ["RAS", "LPS", "LAS", "PIR", "SAR", "ILA", "RSA"]
AFFINE = np.array([[1.5, 0.0, 0.0, -20.0], [0.0, 2.0, 0.0, 10.0], [0.0, 0.0, 3.0, 5.0], [0.0, 0.0, 0.0, 1.0]])


def corner_map() -> np.ndarray:
    voxels = np.zeros((5, 6, 7), np.int16)
    voxels[4, 0, 0], voxels[0, 5, 0], voxels[0, 0, 6] = 1, 2, 3  # rightmost, foremost, topmost
    return voxels


def write(path, voxels, affine=AFFINE, orientation="RAS"):
    transform = ornt_transform(io_orientation(affine), axcodes2ornt(orientation))
    turned = apply_orientation(voxels, transform)
    nib.save(nib.Nifti1Image(turned, affine @ inv_ornt_aff(transform, voxels.shape)), path)
    return path


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_every_storage_order_reads_as_the_same_ras_volume(tmp_path, orientation):
    scan = read_label_scan(write(tmp_path / "map.nii.gz", corner_map(), orientation=orientation))
    assert np.array_equal(scan.voxels, corner_map())
    assert np.allclose(scan.affine, AFFINE)
    assert scan.spacing == pytest.approx((1.5, 2.0, 3.0))


@pytest.mark.parametrize("suffix", ["nrrd", "mha", "mhd"])
def test_itk_formats_read_like_nifti(tmp_path, suffix):
    write(tmp_path / "map.nii.gz", corner_map(), orientation="LPS")
    sitk.WriteImage(sitk.ReadImage(str(tmp_path / "map.nii.gz")), str(tmp_path / f"map.{suffix}"))
    scan = read_label_scan(tmp_path / f"map.{suffix}")
    assert np.array_equal(scan.voxels, corner_map())
    assert np.allclose(scan.affine, AFFINE, atol=1e-4)


@settings(max_examples=15, deadline=None)
@given(angle=st.floats(-40, 40), spacing=st.floats(0.4, 4))
def test_oblique_volumes_keep_their_angle_and_true_spacing(tmp_path_factory, angle, spacing):
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    affine = np.eye(4)
    affine[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.diag([spacing, spacing, 2.0])
    path = write(tmp_path_factory.mktemp("oblique") / "map.nii", corner_map(), affine)
    scan = read_label_scan(path)
    assert scan.spacing == pytest.approx((spacing, spacing, 2.0), abs=1e-4)
    assert np.allclose(scan.affine, affine, atol=1e-4)


def test_mgz_with_anterior_inferior_axes_reads_in_ras(real_data):
    scan = read_label_scan(real_data / "t1_brain" / "labels_freesurfer.mgz")
    left, right = (np.argwhere(scan.voxels == label)[:, 0].mean() for label in (10, 49))
    assert left < right
    assert scan.spacing == pytest.approx((1, 1, 1), abs=1e-3)


def test_float_storage_of_whole_labels_is_read_as_integers(tmp_path):
    scan = read_label_scan(write(tmp_path / "map.nii.gz", corner_map().astype(np.float32)))
    assert scan.voxels.dtype == np.uint8
    assert scan.voxels.max() == 3


def test_a_header_without_orientation_is_known_to_be_a_guess(tmp_path):
    image = nib.Nifti1Image(corner_map(), None)
    nib.save(image, tmp_path / "map.nii")
    assert not read_label_scan(tmp_path / "map.nii").orientation_known
    assert read_label_scan(write(tmp_path / "known.nii", corner_map())).orientation_known


def test_a_trailing_axis_of_one_is_a_volume(tmp_path):
    nib.save(nib.Nifti1Image(corner_map()[..., None], AFFINE), tmp_path / "map.nii")
    assert read_label_scan(tmp_path / "map.nii").voxels.shape == (5, 6, 7)


def broken_voxels(kind: str) -> np.ndarray:
    voxels = corner_map().astype(np.float32)
    if kind == "half":
        voxels[1, 2, 3] = 1.5
    if kind == "nan":
        voxels[1, 2, 3] = np.nan
    if kind == "negative":
        voxels[1, 2, 3] = -4
    if kind == "empty":
        voxels[:] = 0
    if kind == "4d":
        voxels = np.stack([voxels, voxels], axis=-1)
    return voxels


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("half", r"voxel \(1, 2, 3\)(.|\n)*1\.5"),
        ("nan", r"voxel \(1, 2, 3\)(.|\n)*nan"),
        ("negative", r"voxel \(1, 2, 3\)(.|\n)*-4"),
        ("empty", "empty"),
        ("4d", "3-D"),
    ],
)
def test_maps_that_are_not_label_maps_are_refused_with_the_place(tmp_path, kind, message):
    nib.save(nib.Nifti1Image(broken_voxels(kind), AFFINE), tmp_path / "map.nii")
    with pytest.raises(AnatomyError, match=message) as caught:
        read_label_scan(tmp_path / "map.nii")
    assert "map.nii" in str(caught.value)


def test_truncated_and_foreign_files_are_refused_by_name(tmp_path):
    whole = write(tmp_path / "whole.nii.gz", np.arange(64**3, dtype=np.int32).reshape(64, 64, 64) % 97).read_bytes()
    (tmp_path / "cut.nii.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "flipped.nii.gz").write_bytes(whole[:3000] + bytes([whole[3000] ^ 255]) + whole[3001:])
    (tmp_path / "text.nii").write_text("not a volume at all")
    (tmp_path / "text.nrrd").write_text("not a volume at all")
    (tmp_path / "zeros.nii.gz").write_bytes(gzip.compress(b"\0" * 400))
    (tmp_path / "empty.mgz").write_bytes(b"")
    for name in ("cut.nii.gz", "flipped.nii.gz", "text.nii", "text.nrrd", "zeros.nii.gz", "empty.mgz"):
        with pytest.raises(AnatomyError, match=name.replace(".", r"\.")):
            read_label_scan(tmp_path / name)
    with pytest.raises(AnatomyError, match="no such file"):
        read_scan(tmp_path / "gone.nii")
    (tmp_path / "x.png").write_bytes(b"x")
    with pytest.raises(AnatomyError, match=r"\.nrrd"):
        read_scan(tmp_path / "x.png")


@pytest.mark.parametrize("spacing", [0.0, np.nan])
def test_headers_without_usable_spacing_are_refused(tmp_path, spacing):
    image = nib.Nifti1Image(corner_map(), AFFINE)
    image.header["srow_x"] = [spacing, 0, 0, 0]
    image.header["sform_code"] = 1
    image.header["qform_code"] = 0
    path = tmp_path / "map.nii"
    path.write_bytes(bytes(image.header.binaryblock) + b"\0" * 4 + corner_map().tobytes(order="F"))
    with pytest.raises(AnatomyError, match="geometry"):
        read_label_scan(path)


def test_file_names():
    from pathlib import Path

    assert scan_stem(Path("a/b.c.nii.gz")) == "b.c"
    assert scan_stem(Path("x.MGZ")) == "x"
    assert is_readable_name(Path("x.NRRD"))
    assert not is_readable_name(Path("x.txt"))
