"""DICOM SEG: the label map as one segment per label, with coded names and colours."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Literal

import highdicom as hd
import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from ctmr_core.anatomy.vocabulary import Label
from ctmr_core.exchange.base import ExportCase
from ctmr_core.exchange.dicom.codes import LATERALITY, category_of, color_of, type_of
from ctmr_core.exchange.dicom.images import as_slices
from ctmr_core.exchange.dicom.study import IMPLEMENTATION, MANUFACTURER, mark_of, save, uid_of

Encoding = Literal["binary", "labelmap"]


def write_segmentation(case: ExportCase, labels: np.ndarray, images: list[Dataset], encoding: Encoding, path: Path) -> None:
    """Write the label map [x, y, z] on the slices of ``images`` (headers, from the feet to the head).

    encoding: ``binary`` (one bit plane per label and slice that has it; read everywhere) or ``labelmap`` (one plane per slice,
    DICOM Supplement 243: quick and small). Segments are numbered 1, 2, 3 ... by label id; the id is in the segment's description.
    Writes nothing for a case without labels.
    """
    present = [int(label) for label in np.unique(labels) if label]
    if not present:
        return
    numbers = np.zeros(int(labels.max()) + 1, np.uint8 if len(present) < 256 else np.uint16)
    numbers[present] = np.arange(1, len(present) + 1)
    key = case.entry.case_key
    kinds = hd.seg.SegmentationTypeValues
    seg = hd.seg.Segmentation(
        source_images=images,
        pixel_array=np.ascontiguousarray(numbers[as_slices(labels)]),
        segmentation_type=kinds.BINARY if encoding == "binary" else kinds.LABELMAP,
        segment_descriptions=[
            _segment(number, case.vocabulary.label(label), case) for number, label in enumerate(present, start=1)
        ],
        series_instance_uid=uid_of(key, "segmentation series"),
        series_number=100,
        sop_instance_uid=uid_of(key, "segmentation"),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=str(case.row["engine"])[:64],
        software_versions=version("ctmr-factory"),
        device_serial_number="0",
        content_label="LABELS",
        content_description=f"{case.vocabulary.name} label map",
        series_description=f"{mark_of(case)} {case.vocabulary.name} labels",
    )
    for segment, label in zip((one for one in seg.SegmentSequence if one.SegmentLabel != "Background"), present, strict=True):
        _add_side(segment, case.vocabulary.label(label))
    _make_repeatable(seg, key)
    save(seg, path)


def _segment(number: int, label: Label, case: ExportCase) -> hd.seg.SegmentDescription:
    segment = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=label.name[:64],
        segmented_property_category=category_of(label),
        segmented_property_type=type_of(label, case.vocabulary.name),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=MANUFACTURER,
            version=version("ctmr-factory"),
            family=hd.sr.CodedConcept(value="113076", scheme_designator="DCM", meaning="Segmentation"),
        ),
        display_color=color_of(label),
    )
    segment.SegmentDescription = f"{case.vocabulary.name} {label.id}"
    return segment


def _add_side(segment: Dataset, label: Label) -> None:
    if label.side:
        value, meaning = LATERALITY[label.side]
        side = Dataset()
        side.CodeValue, side.CodingSchemeDesignator, side.CodeMeaning = value, "SCT", meaning
        segment.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = Sequence([side])


def _make_repeatable(seg: Dataset, key: str) -> None:
    """Take out what differs from one writing to the next: times of writing and random identifiers."""
    for name in ("InstanceCreationDate", "InstanceCreationTime", "SeriesDate", "SeriesTime"):
        if name in seg:
            delattr(seg, name)
    for equipment in seg.get("ContributingEquipmentSequence", ()):
        if "ContributionDateTime" in equipment:
            del equipment.ContributionDateTime
    seg.ContentDate, seg.ContentTime = "20000101", "000000"  # type 1: something must stand there
    organization = uid_of(key, "segmentation dimensions")
    seg.DimensionOrganizationSequence[0].DimensionOrganizationUID = organization
    for index in seg.DimensionIndexSequence:
        index.DimensionOrganizationUID = organization
    seg.file_meta.ImplementationClassUID = IMPLEMENTATION
