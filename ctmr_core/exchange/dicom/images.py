"""CT and MR image series: one file per axial slice, patient's right on the left of the picture, from the feet to the head."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, MRImageStorage

from ctmr_core.anatomy.sequences import is_ct
from ctmr_core.exchange.base import ExportCase
from ctmr_core.exchange.dicom.acquisition import describe_ct, describe_mr
from ctmr_core.exchange.dicom.study import LPS, begin, body_part, decimal, mark_of, save, uid_of

CT_WINDOW = ("40", "400")  # centre and width in HU: the usual abdominal window of radiology
_SIGNAL_PERCENTILES = (1.0, 99.5)


def as_slices(voxels: np.ndarray) -> np.ndarray:
    """[x, y, z] RAS+ -> view [slice, row, column]: rows run to the patient's back, columns to the left, slices to the head."""
    return voxels[::-1, ::-1, :].transpose(2, 1, 0)


def slice_affine(affine: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """4x4: (column, row, slice, 1) of :func:`as_slices` -> LPS mm."""
    turn = np.diag([-1.0, -1.0, 1.0, 1.0])
    turn[:2, 3] = size[0] - 1, size[1] - 1
    return np.diag([*LPS, 1.0]) @ affine @ turn


def write_series(case: ExportCase, sequence: str, number: int, folder: Path) -> list[Dataset]:
    """Write a sequence as a series into ``folder``; the headers of its slices, without pixels, from the feet to the head."""
    voxels = case.image(sequence)
    slices = as_slices(voxels)
    series = _series(case, sequence, number, voxels)
    to_lps = slice_affine(case.affine, voxels.shape)
    series.ImageOrientationPatient = [decimal(v) for v in _directions(to_lps)]
    series.PixelSpacing = [decimal(case.spacing[1]), decimal(case.spacing[0])]  # between rows, between columns
    series.Rows, series.Columns = slices.shape[1:]
    normal = np.cross(*_directions(to_lps).reshape(2, 3))
    del series.SOPInstanceUID, series.file_meta.MediaStorageSOPInstanceUID
    headers = []
    for place, pixels in enumerate(slices):
        header, header.file_meta = Dataset(), FileMetaDataset()
        header.update(series)  # shares its elements; those of the slice alone are not among them
        header.file_meta.update(series.file_meta)
        instance = uid_of(case.entry.case_key, sequence, str(place))
        header.SOPInstanceUID = instance
        header.InstanceNumber = place + 1
        position = (to_lps @ [0, 0, place, 1])[:3]
        header.ImagePositionPatient = [decimal(v) for v in position]
        header.SliceLocation = decimal(float(normal @ position))
        header.file_meta.MediaStorageSOPInstanceUID = instance
        header.PixelData = np.ascontiguousarray(pixels, "<i2").tobytes()
        save(header, folder / f"{place + 1:04d}.dcm")
        del header.PixelData
        headers.append(header)
    return headers


def _series(case: ExportCase, sequence: str, number: int, voxels: np.ndarray) -> Dataset:
    computed = is_ct(sequence)
    ds = begin(case, CTImageStorage if computed else MRImageStorage, UID(""), "CT" if computed else "MR")
    mark = mark_of(case)
    ds.SeriesInstanceUID = uid_of(case.entry.case_key, sequence)
    ds.SeriesNumber = number
    ds.SeriesDescription = f"{mark} {sequence}"
    ds.SeriesDate = ds.SeriesTime = ds.ContentDate = ds.ContentTime = ""
    ds.PatientPosition = "HFS"
    ds.ImageType = ["DERIVED", "SECONDARY", "AXIAL" if computed else "OTHER"]
    ds.DerivationDescription = f"{mark.lower()}, case key {case.entry.case_key}"
    ds.BurnedInAnnotation = "NO"
    ds.LossyImageCompression = "00"
    ds.AcquisitionNumber = 1
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated = ds.BitsStored = 16
    ds.HighBit, ds.PixelRepresentation = 15, 1
    if part := body_part(case):
        ds.BodyPartExamined = part
    else:
        ds.Laterality = ""  # whether the part is one of a pair is not known (PS3.3 C.7.3.1)
    ds.SliceThickness = decimal(case.spacing[2])
    record = case.acquisition(sequence)
    if computed:
        describe_ct(ds, record, sequence)
        ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = "0", "1", "HU"
        ds.WindowCenter, ds.WindowWidth = CT_WINDOW
    else:
        describe_mr(ds, record)
        ds.SpacingBetweenSlices = decimal(case.spacing[2])
        low, high = np.percentile(voxels[::4, ::4, ::4], _SIGNAL_PERCENTILES)
        ds.WindowCenter, ds.WindowWidth = decimal((low + high) / 2), decimal(max(high - low, 1.0))
    return ds


def _directions(to_lps: np.ndarray) -> np.ndarray:
    """Unit vectors along growing columns, then along growing rows."""
    axes = to_lps[:3, :2] / np.linalg.norm(to_lps[:3, :2], axis=0)
    return np.asarray(axes.T.reshape(6))
