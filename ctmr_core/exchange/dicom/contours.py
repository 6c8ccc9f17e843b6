"""DICOM RT Structure Set: the outline of every label on every slice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from contourpy import LineType, contour_generator
from pydicom.charset import default_encoding
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from pydicom.uid import UID, ImplicitVRLittleEndian, RTStructureSetStorage
from scipy.ndimage import find_objects

from ctmr_core.anatomy.vocabulary import Label
from ctmr_core.exchange.base import ExportCase
from ctmr_core.exchange.dicom.study import LPS, begin, mark_of, save, uid_of

_CONTOUR_DATA = Tag("ContourData")
_STUDY_MANAGEMENT = "1.2.840.10008.3.1.2.3.1"  # retired Detached Study Management, which PS3.3 C.8.8.5 still asks for
_HALF_WAY = 0.5  # between voxel centres inside and outside


def write_structure_set(case: ExportCase, labels: np.ndarray, images: list[Dataset], path: Path) -> None:
    """Write the outlines of the label map [x, y, z] over the slices of ``images``; nothing for a case without labels.

    Outlines run half-way between the voxel centres inside and outside, on the planes of the slices. Holes are contours of their
    own inside the outer one (exclusive or, as planning systems read it).
    """
    boxes = find_objects(labels)
    present = [number for number, box in enumerate(boxes, start=1) if box is not None]
    if not present:
        return
    ds = _header(case, images)
    references = [_reference(image) for image in images]
    structures, outlines, observations = [], [], []
    for number, label_id in enumerate(present, start=1):
        label = case.vocabulary.label(label_id)
        lines = _outlines(labels, label_id, boxes[label_id - 1], case.affine)
        contours = [_contour(points, references[place]) for place, points in lines]
        structures.append(_structure(number, label, case.vocabulary.name, ds.FrameOfReferenceUID))
        outlines.append(_item(ReferencedROINumber=number, ROIDisplayColor=list(label.rgb), ContourSequence=Sequence(contours)))
        kind = "EXTERNAL" if label.name == "body" else "ORGAN"
        observations.append(
            _item(ObservationNumber=number, ReferencedROINumber=number, RTROIInterpretedType=kind, ROIInterpreter="")
        )
    ds.StructureSetROISequence = Sequence(structures)
    ds.ROIContourSequence = Sequence(outlines)
    ds.RTROIObservationsSequence = Sequence(observations)
    save(ds, path)


def _header(case: ExportCase, images: list[Dataset]) -> Dataset:
    key = case.entry.case_key
    ds = begin(case, RTStructureSetStorage, uid_of(key, "structure set"), "RTSTRUCT")
    ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian  # explicit VR has no room for outlines beyond 64 kB
    ds.SeriesInstanceUID = uid_of(key, "structure set series")
    ds.SeriesNumber = 101
    ds.InstanceNumber = 1
    ds.SeriesDescription = f"{mark_of(case)} {case.vocabulary.name} outlines"
    ds.OperatorsName = ""
    ds.StructureSetLabel = "LABELS"
    ds.StructureSetDate = ds.StructureSetTime = ""
    ds.ApprovalStatus = "UNAPPROVED"
    ds.ReferencedFrameOfReferenceSequence = Sequence([_frame_of_reference(ds, images)])
    return ds


def _structure(number: int, label: Label, vocabulary: str, frame: UID) -> Dataset:
    return _item(
        ROINumber=number,
        ReferencedFrameOfReferenceUID=frame,
        ROIName=label.name,
        ROIDescription=f"{vocabulary} {label.id}",
        ROIGenerationAlgorithm="AUTOMATIC",
    )


def _item(**attributes: Any) -> Dataset:
    """An item of a sequence, said to be encoded as the file will be: pydicom then writes raw elements as they are."""
    item = Dataset()
    item.set_original_encoding(is_implicit_vr=True, is_little_endian=True, character_encoding=default_encoding)
    for name, value in attributes.items():
        setattr(item, name, value)
    return item


def _outlines(labels: np.ndarray, label: int, box: tuple[slice, ...], affine: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """(slice number, closed polygon [points, 3] in LPS mm) of one label."""
    mask = labels[box] == label
    corner = np.array([box[0].start, box[1].start]) - 1  # planes are padded by one
    for place in range(mask.shape[2]):
        plane = np.pad(mask[:, :, place], 1).astype(np.float32)
        if not plane.any():
            continue
        z = place + box[2].start
        for line in contour_generator(z=plane.T, line_type=LineType.Separate).lines(_HALF_WAY):
            index = np.empty((len(line) - 1, 4))  # the last point is the first again
            index[:, :2] = np.asarray(line)[:-1] + corner
            index[:, 2], index[:, 3] = z, 1
            yield z, (index @ affine.T)[:, :3] * LPS


def _contour(points: np.ndarray, reference: Dataset) -> Dataset:
    item = _item(
        ContourImageSequence=Sequence([reference]), ContourGeometricType="CLOSED_PLANAR", NumberOfContourPoints=len(points)
    )
    text = "\\".join([f"{value:.3f}" for value in (np.round(points, 3) + 0.0).ravel().tolist()]).encode("ascii")
    text += b" " * (len(text) % 2)
    item[_CONTOUR_DATA] = RawDataElement(_CONTOUR_DATA, "DS", len(text), text, 0, True, True)  # as read: not checked one by one
    return item


def _reference(image: Dataset) -> Dataset:
    return _item(ReferencedSOPClassUID=image.SOPClassUID, ReferencedSOPInstanceUID=image.SOPInstanceUID)


def _frame_of_reference(ds: Dataset, images: list[Dataset]) -> Dataset:
    series = _item(
        SeriesInstanceUID=images[0].SeriesInstanceUID, ContourImageSequence=Sequence(_reference(image) for image in images)
    )
    study = _item(
        ReferencedSOPClassUID=_STUDY_MANAGEMENT,
        ReferencedSOPInstanceUID=ds.StudyInstanceUID,
        RTReferencedSeriesSequence=Sequence([series]),
    )
    return _item(FrameOfReferenceUID=ds.FrameOfReferenceUID, RTReferencedStudySequence=Sequence([study]))
