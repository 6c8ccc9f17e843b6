"""DICOM RT Structure Set: the outline of every label on every slice."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from contourpy import LineType, contour_generator
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from pydicom.uid import ImplicitVRLittleEndian, RTStructureSetStorage
from scipy.ndimage import find_objects

from ctmr_core.exchange.base import ExportCase
from ctmr_core.exchange.dicom.study import LPS, begin, save, uid_of

_CONTOUR_DATA = Tag("ContourData")
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
    key = case.entry.case_key
    ds = begin(case, RTStructureSetStorage, uid_of(key, "structure set"), "RTSTRUCT")
    ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian  # explicit VR has no room for outlines beyond 64 kB
    ds.SeriesInstanceUID = uid_of(key, "structure set series")
    ds.SeriesNumber = 101
    ds.InstanceNumber = 1
    ds.SeriesDescription = f"{'SYNTHETIC' if case.synthetic else 'IMPORTED'} {case.vocabulary.name} outlines"
    ds.OperatorsName = ""
    ds.StructureSetLabel = "LABELS"
    ds.StructureSetDate = ds.StructureSetTime = ""
    ds.ApprovalStatus = "UNAPPROVED"
    ds.ReferencedFrameOfReferenceSequence = Sequence([_frame_of_reference(ds, images)])
    structures, outlines, observations = [], [], []
    references = [_reference(image) for image in images]
    for number, label_id in enumerate(present, start=1):
        label = case.vocabulary.label(label_id)
        structure, contour, observation = Dataset(), Dataset(), Dataset()
        structure.ROINumber = contour.ReferencedROINumber = observation.ReferencedROINumber = number
        structure.ReferencedFrameOfReferenceUID = ds.FrameOfReferenceUID
        structure.ROIName = label.name
        structure.ROIDescription = f"{case.vocabulary.name} {label.id}"
        structure.ROIGenerationAlgorithm = "AUTOMATIC"
        contour.ROIDisplayColor = list(label.rgb)
        contour.ContourSequence = Sequence(
            _contour(points, references[place]) for place, points in _outlines(labels, label_id, boxes[label_id - 1], case.affine)
        )
        observation.ObservationNumber = number
        observation.RTROIInterpretedType = "EXTERNAL" if label.name == "body" else "ORGAN"
        observation.ROIInterpreter = ""
        structures.append(structure)
        outlines.append(contour)
        observations.append(observation)
    ds.StructureSetROISequence = Sequence(structures)
    ds.ROIContourSequence = Sequence(outlines)
    ds.RTROIObservationsSequence = Sequence(observations)
    save(ds, path)


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
    item = Dataset()
    item.ContourImageSequence = Sequence([reference])
    item.ContourGeometricType = "CLOSED_PLANAR"
    item.NumberOfContourPoints = len(points)
    text = "\\".join([f"{value:.3f}" for value in (np.round(points, 3) + 0.0).ravel().tolist()]).encode("ascii")
    text += b" " * (len(text) % 2)
    item[_CONTOUR_DATA] = RawDataElement(_CONTOUR_DATA, "DS", len(text), text, 0, True, True)  # as read: not checked one by one
    return item


def _reference(image: Dataset) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID = image.SOPClassUID
    reference.ReferencedSOPInstanceUID = image.SOPInstanceUID
    return reference


def _frame_of_reference(ds: Dataset, images: list[Dataset]) -> Dataset:
    series = Dataset()
    series.SeriesInstanceUID = images[0].SeriesInstanceUID
    series.ContourImageSequence = Sequence(_reference(image) for image in images)
    study = Dataset()
    study.ReferencedSOPClassUID = (
        "1.2.840.10008.3.1.2.3.1"  # retired Detached Study Management, which PS3.3 C.8.8.5 still asks for
    )
    study.ReferencedSOPInstanceUID = ds.StudyInstanceUID
    study.RTReferencedSeriesSequence = Sequence([series])
    frame = Dataset()
    frame.FrameOfReferenceUID = ds.FrameOfReferenceUID
    frame.RTReferencedStudySequence = Sequence([study])
    return frame
