"""DICOM studies, read back by SimpleITK, pydicom and highdicom: every voxel at its place in LPS, and marked as synthetic."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st

from ctmr_core.exchange import Selection, export, load_exporter
from ctmr_core.exchange.dicom.images import as_slices, slice_affine
from ctmr_core.exchange.dicom.study import uid_of
from ctmr_core.store import Dataset
from tests.exchange.exchange_maker import (
    BODY,
    LEFT_KIDNEY,
    LIVER,
    SIZE,
    TUMOR,
    exchange_case,
    exchange_dataset,
    label_voxels,
    oblique_affine,
    straight_affine,
)
from tests.exchange.test_driver import contents

LPS = np.array([-1.0, -1.0, 1.0])
AFFINES = {"straight": straight_affine(), "oblique": oblique_affine()}


@pytest.fixture(scope="module", params=list(AFFINES))
def study(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Dataset, np.ndarray]:
    folder = tmp_path_factory.mktemp("dicom")
    affine = AFFINES[request.param]
    dataset = exchange_dataset(folder / "set", [exchange_case(0, sequences=("ct", "mri_t1"))], affine=affine)
    export(dataset, load_exporter("dicom", {"rtstruct": "yes"}), folder / "out")
    return folder / "out/case-0000", dataset, affine


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One case of every kind of object, with what the engine recorded of its scans."""
    folder = tmp_path_factory.mktemp("scans")
    sequences = ("ct", "ct_contrast", "mri_t1", "mri_t2", "mri_flair")
    dataset = exchange_dataset(folder / "set", [exchange_case(0, sequences=sequences)], affine=oblique_affine())
    export(dataset, load_exporter("dicom", {"rtstruct": "yes"}), folder / "binary")
    export(dataset, load_exporter("dicom", {"seg": "labelmap"}), folder / "labelmap", selection=Selection(sequences=("ct",)))
    return folder


def test_series_say_how_they_were_acquired(scans: Path) -> None:
    def first(sequence: str) -> pydicom.Dataset:
        return pydicom.dcmread(scans / f"binary/case-0000/{sequence}/0001.dcm", stop_before_pixels=True)

    mprage, tse, unknown = first("mri_t1"), first("mri_t2"), first("mri_flair")
    assert (mprage.RepetitionTime, mprage.EchoTime, mprage.InversionTime, mprage.FlipAngle) == (2300.25, 3.1, 900, 9)
    assert (mprage.MagneticFieldStrength, mprage.SequenceName, mprage.ScanOptions) == (1.5, "mprage", "")
    assert (list(mprage.ScanningSequence), list(mprage.SequenceVariant)) == (["GR", "IR"], ["SP", "MP"])
    assert (tse.RepetitionTime, tse.EchoTime, tse.MagneticFieldStrength) == (5000, 92.5, 3)
    assert (tse.ScanningSequence, tse.ScanOptions, "InversionTime" in tse, "FlipAngle" in tse) == ("SE", "FS", False, False)
    assert (unknown.ScanningSequence, unknown.RepetitionTime, unknown.EchoTime) == ("RM", None, None)
    ct, contrast = first("ct"), first("ct_contrast")
    assert (ct.ConvolutionKernel, ct.SliceThickness, ct.BodyPartExamined) == ("soft", 2.5, "ABDOMEN")
    assert contrast.ContrastBolusAgent == "iodine, portal phase"
    assert "ContrastBolusAgent" not in ct


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (Debian: dicom3tools) is not installed")
def test_dciodvfy_finds_no_error(scans: Path) -> None:
    """David Clunie's validator; its Debian release does not know label map segmentations yet (DICOM 2024d)."""
    case = scans / "binary/case-0000"
    names = [*sorted(case.glob("*/0001.dcm")), case / "seg.dcm", case / "rtstruct.dcm"]
    assert len(names) == 7
    for name in [*names, scans / "labelmap/case-0000/seg.dcm"]:
        found = subprocess.run(["dciodvfy", "-new", str(name)], capture_output=True, text=True, check=False).stderr
        errors = [line for line in found.splitlines() if line.startswith("Error")]
        if "labelmap" in name.parts:
            errors = [line for line in errors if "Information Object Not found" not in line and "SegmentNumber of 0" not in line]
        assert not errors, name


def world(affine: np.ndarray, place: tuple[int, ...]) -> np.ndarray:
    """LPS mm of a voxel."""
    return (affine @ [*place, 1])[:3] * LPS


@pytest.mark.parametrize("sequence", ["ct", "mri_t1"])
def test_a_series_has_every_voxel_at_its_place(study: tuple[Path, Dataset, np.ndarray], sequence: str) -> None:
    folder, dataset, affine = study
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder / sequence))
    assert len(names) == SIZE[2]
    image = sitk.ReadImage(names)
    voxels = np.asarray(dataset["case-0000"].images[sequence])
    for place in ((0, 0, 0), (19, 23, 17), (5, 7, 11), (14, 2, 3)):
        index = image.TransformPhysicalPointToIndex(world(affine, place))
        assert np.allclose(image.TransformIndexToPhysicalPoint(index), world(affine, place), atol=1e-3)
        assert image[index] == voxels[place]
    assert np.allclose(sorted(image.GetSpacing()), (1.5, 2.0, 3.0), atol=1e-5)


def test_pictures_are_shown_the_way_radiologists_look(study: tuple[Path, Dataset, np.ndarray]) -> None:
    folder, dataset, _ = study
    first = pydicom.dcmread(folder / "ct/0001.dcm")
    voxels = np.asarray(dataset["case-0000"].images["ct"])
    assert first.pixel_array[0, 0] == voxels[-1, -1, 0]  # right and front of the patient at the upper left, feet first
    row = np.array(first.ImageOrientationPatient[:3], float)
    assert row[0] > 0.9  # columns run to the patient's left
    last = pydicom.dcmread(folder / f"ct/{SIZE[2]:04d}.dcm")
    assert last.ImagePositionPatient[2] > first.ImagePositionPatient[2]


def test_objects_are_marked_and_belong_together(study: tuple[Path, Dataset, np.ndarray]) -> None:
    folder, dataset, _ = study
    objects = [pydicom.dcmread(path) for path in sorted(folder.rglob("*.dcm"))]
    key = dataset.row("case-0000")["case_key"]
    assert {one.StudyInstanceUID for one in objects} == {uid_of(key, "study")}
    assert len({one.SOPInstanceUID for one in objects}) == len(objects) == 2 * SIZE[2] + 2
    assert all(one.SOPInstanceUID == one.file_meta.MediaStorageSOPInstanceUID for one in objects)
    assert len({one.SeriesInstanceUID for one in objects}) == 4
    assert len({one.FrameOfReferenceUID for one in objects}) == 1
    for one in objects:
        assert str(one.PatientName).startswith("SYNTHETIC")
        assert one.PatientIdentityRemoved == "YES"
        assert one.PatientID == "parametric:torso:0"
        assert "SYNTHETIC" in one.SeriesDescription
        assert one.Manufacturer == "ctmr-factory"
        assert all(value.is_valid for value in (one.SOPInstanceUID, one.SeriesInstanceUID))
        if one.Modality in ("CT", "MR"):
            assert one.ImageType[:2] == ["DERIVED", "SECONDARY"]
            assert one.BurnedInAnnotation == "NO"
    ct = next(one for one in objects if one.Modality == "CT")
    assert (ct.RescaleIntercept, ct.RescaleSlope, ct.RescaleType) == (0, 1, "HU")


@pytest.mark.parametrize("encoding", ["binary", "labelmap"])
@pytest.mark.parametrize("tilt", list(AFFINES))
def test_the_segmentation_is_the_label_map(tmp_path: Path, encoding: str, tilt: str) -> None:
    import highdicom

    affine = AFFINES[tilt]
    dataset = exchange_dataset(tmp_path / "set", [exchange_case(0)], affine=affine)
    export(dataset, load_exporter("dicom", {"seg": encoding}), tmp_path / "out")
    seg = highdicom.seg.segread(tmp_path / "out/case-0000/seg.dcm")
    described = {
        one.segment_number: one for one in (seg.get_segment_description(n) for n in seg.segment_numbers) if n_is_real(one)
    }
    assert [one.segment_label for one in described.values()] == ["liver", "left kidney", "hepatic tumor", "body"]
    assert described[1].segmented_property_type.value == "10200004"  # SNOMED CT: liver
    assert described[1].RecommendedDisplayCIELabValue
    kidney = described[2].SegmentedPropertyTypeCodeSequence[0]
    assert (kidney.CodeMeaning, kidney.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning) == ("Kidney", "Left")
    assert described[3].segmented_property_category.meaning == "Morphologically Abnormal Structure"
    volume = seg.get_volume(combine_segments=True, relabel=False)
    true = label_voxels()
    numbers = {0: 0, LIVER: 1, LEFT_KIDNEY: 2, TUMOR: 3, BODY: 4}
    for place in ((12, 10, 7), (5, 6, 4), (11, 7, 5), (3, 4, 2), (0, 0, 0), (19, 23, 17)):
        index = np.rint(volume.map_reference_to_indices(world(affine, place)[None])[0]).astype(int)
        inside = all(0 <= i < n for i, n in zip(index, volume.spatial_shape, strict=True))  # empty slices are left out
        assert (volume.array[tuple(index)] if inside else 0) == numbers[int(true[place])]
    assert np.bincount(volume.array.ravel(), minlength=5)[1:].tolist() == [
        int((true == label).sum()) for label in list(numbers)[1:]
    ]


def n_is_real(segment: pydicom.Dataset) -> bool:
    """Label maps may describe their background as well."""
    return int(segment.SegmentNumber) > 0


def test_outlines_enclose_the_label(study: tuple[Path, Dataset, np.ndarray]) -> None:
    folder, _, affine = study
    ds = pydicom.dcmread(folder / "rtstruct.dcm")
    names = {int(roi.ROINumber): roi.ROIName for roi in ds.StructureSetROISequence}
    assert list(names.values()) == ["liver", "left kidney", "hepatic tumor", "body"]
    images = {pydicom.dcmread(path).SOPInstanceUID: place for place, path in enumerate(sorted((folder / "ct").iterdir()))}
    to_index = np.linalg.inv(affine)
    labels = label_voxels()
    contours = {names[int(roi.ReferencedROINumber)]: roi for roi in ds.ROIContourSequence}
    slices = set()
    for contour in contours["left kidney"].ContourSequence:
        points = np.array(contour.ContourData, float).reshape(-1, 3)
        index = (to_index @ np.c_[points * LPS, np.ones(len(points))].T)[:3].T
        place = images[contour.ContourImageSequence[0].ReferencedSOPInstanceUID]
        assert np.allclose(index[:, 2], place, atol=2e-3)
        slices.add(place)
        lower, upper = index[:, :2].min(axis=0), index[:, :2].max(axis=0)
        assert np.allclose(lower, (3.5, 4.5), atol=2e-3)  # half a voxel outside of 4..6 and 5..8
        assert np.allclose(upper, (6.5, 8.5), atol=2e-3)
    assert slices == set(np.flatnonzero((labels == LEFT_KIDNEY).any(axis=(0, 1))))
    holes = [
        one for one in contours["liver"].ContourSequence if images[one.ContourImageSequence[0].ReferencedSOPInstanceUID] == 7
    ]
    assert len(holes) == 2  # outer line, and the tumour's place
    color = contours["liver"].ROIDisplayColor
    assert len(color) == 3


def test_the_same_case_gives_the_same_files(tmp_path: Path) -> None:
    dataset = exchange_dataset(tmp_path / "set", [exchange_case(0)])
    for name in ("one", "two"):
        export(dataset, load_exporter("dicom", {"rtstruct": "yes"}), tmp_path / name)
    assert contents(tmp_path / "one/case-0000") == contents(tmp_path / "two/case-0000")


def test_a_case_without_labels_has_images_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.exchange import exchange_maker

    monkeypatch.setattr(exchange_maker, "label_voxels", lambda vocabulary, size: np.zeros(size, np.uint8))
    dataset = exchange_dataset(tmp_path / "set", [exchange_case(0)])
    export(dataset, load_exporter("dicom", {"rtstruct": "yes"}), tmp_path / "out")
    assert [path.name for path in (tmp_path / "out/case-0000").iterdir()] == ["ct"]


@given(
    st.tuples(*[st.integers(1, 40)] * 3),
    st.tuples(*[st.integers(0, 39)] * 3),
    st.tuples(*[st.floats(0.2, 10)] * 3),
    st.floats(-0.7, 0.7),
)
def test_slices_keep_every_voxel_at_its_place(
    size: tuple[int, int, int], drawn: tuple[int, int, int], spacing: tuple[float, float, float], tilt: float
) -> None:
    place = tuple(min(i, n - 1) for i, n in zip(drawn, size, strict=True))
    affine = oblique_affine() @ np.diag([*spacing, 1.0])
    c, s = np.cos(tilt), np.sin(tilt)
    affine[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ affine[:3, :3]
    voxels = np.zeros(size, np.int16)
    voxels[place] = 7
    z, row, column = (int(i) for i in np.argwhere(as_slices(voxels) == 7)[0])
    assert np.allclose((slice_affine(affine, size) @ [column, row, z, 1])[:3], world(affine, place), atol=1e-6)
