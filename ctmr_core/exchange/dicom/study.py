"""What all DICOM objects of a case have in common: identifiers, patient, study, and the marks of synthetic data."""

from __future__ import annotations

import hashlib
import uuid
from importlib.metadata import version
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from ctmr_core.anatomy.regions import regions_present
from ctmr_core.exchange.base import ExportCase

MANUFACTURER = "ctmr-factory"
IMPLEMENTATION = UID("2.25.302961586042837461906133478906283421147")  # of this software; any UUID may be written as 2.25.<number>
LPS = np.array([-1.0, -1.0, 1.0])  # RAS+ mm -> the patient coordinates of DICOM (PS3.3 C.7.6.2.1.1)
_LONG_STRING = 64  # characters of a value of VR LO
#: Regions of the body, from above -> Body Part Examined (PS3.16 Annex L).
_BODY_PARTS = {
    ("head",): "HEAD",
    ("chest",): "CHEST",
    ("abdomen",): "ABDOMEN",
    ("pelvis",): "PELVIS",
    ("chest", "abdomen"): "CHESTABDOMEN",
    ("abdomen", "pelvis"): "ABDOMENPELVIS",
    ("chest", "abdomen", "pelvis"): "CHESTABDPELVIS",
}


def uid_of(case_key: str, *parts: str) -> UID:
    """The identifier of an object of a case: always the same, and no other object's (PS3.5 B.2, UUID-derived)."""
    digest = hashlib.sha256("|".join((case_key, *parts)).encode()).digest()
    return UID(f"2.25.{uuid.UUID(bytes=digest[:16], version=5).int}")


def begin(case: ExportCase, sop_class: UID, instance: UID, modality: str) -> Dataset:
    """An object with the patient and study of the case; type 2 attributes that nothing is known of are empty.

    Synthetic cases are called so in PatientName, descriptions, ImageType (DERIVED) and the software named as manufacturer. The
    patient's id is the body: cases of one body are one patient with several studies.
    Dates are empty: equal cases are equal files.
    """
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = sop_class
    ds.file_meta.MediaStorageSOPInstanceUID = instance
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.ImplementationClassUID = IMPLEMENTATION
    ds.file_meta.ImplementationVersionName = f"CTMR_{version('ctmr-factory')}"[:16]
    ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality = sop_class, instance, modality
    mark = mark_of(case)
    ds.PatientName = f"{mark}^{case.entry.case_id}" if len(case.entry.case_id) < 50 else mark
    ds.PatientID = patient_id(case)
    ds.PatientBirthDate = ds.PatientSex = ""
    ds.PatientIdentityRemoved = "YES"
    ds.DeidentificationMethod = "no person: synthetic" if case.synthetic else "names and dates left out on export"
    ds.StudyInstanceUID = uid_of(case.entry.case_key, "study")
    ds.StudyDate = ds.StudyTime = ds.AccessionNumber = ds.ReferringPhysicianName = ""
    ds.StudyID = case.entry.case_key[:16]
    ds.StudyDescription = f"{mark} {case.entry.case_id}"[:_LONG_STRING]
    ds.FrameOfReferenceUID = uid_of(case.entry.case_key, "frame of reference")
    ds.PositionReferenceIndicator = ""
    ds.Manufacturer = MANUFACTURER
    ds.ManufacturerModelName = str(case.row["engine"])[:_LONG_STRING]
    ds.SoftwareVersions = version("ctmr-factory")
    ds.DeviceSerialNumber = "0"
    ds.SpecificCharacterSet = "ISO_IR 192"
    return ds


def mark_of(case: ExportCase) -> str:
    """What names and descriptions begin with."""
    return "SYNTHETIC" if case.synthetic else "IMPORTED"


def patient_id(case: ExportCase) -> str:
    """The body, or a digest of it where that is too long."""
    body = case.entry.body_identity
    return body if len(body) <= _LONG_STRING else hashlib.sha256(body.encode()).hexdigest()


def body_part(case: ExportCase) -> str:
    """Body Part Examined, after the labels of the case; "" when none of them tells a region."""
    regions = regions_present(case.vocabulary, case.row["label_ids"])
    return _BODY_PARTS.get(regions, "WHOLEBODY") if regions else ""


def save(ds: Dataset, path: Path) -> None:
    """Write a DICOM file (PS3.10)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True)


def decimal(value: float) -> str:
    """A number as VR DS, 16 characters at most: to a thousandth of a micrometre where it is below 10 m."""
    return f"{round(float(value), 6) + 0.0:.10g}"[:16]
