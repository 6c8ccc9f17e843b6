"""How a series was acquired, as far as its engine recorded it: attributes of DICOM's CT Image and MR Image modules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydicom.dataset import Dataset

from ctmr_core.exchange.dicom.study import decimal

#: Pulse sequence -> ScanningSequence and SequenceVariant (PS3.3 C.8.3.1.1): SE spin echo, IR inversion recovery, GR gradient
#: echo, RM not one of these; SK segmented k-space, SP spoiled, MP magnetisation prepared.
_PULSE_SEQUENCES: dict[str, tuple[list[str], list[str]]] = {
    "spin_echo": (["SE"], ["SK"]),
    "flair": (["SE", "IR"], ["SK"]),
    "mprage": (["GR", "IR"], ["SP", "MP"]),
    "spoiled_gre": (["GR"], ["SP"]),
    "swi": (["GR"], ["SP"]),
}
_UNKNOWN = (["RM"], ["NONE"])
_FAT_SATURATION = "FS"
_SHORT_STRING = 16  # characters of a value of VR SH

#: Record of the engine -> attribute, both in ms, degrees or tesla.
_MR_NUMBERS = {
    "tr_ms": "RepetitionTime",
    "te_ms": "EchoTime",
    "ti_ms": "InversionTime",
    "flip_deg": "FlipAngle",
    "field_strength_t": "MagneticFieldStrength",
}


def describe_mr(ds: Dataset, record: Mapping[str, Any]) -> None:
    """Set the attributes of the MR Image module; times that are not recorded are empty where DICOM asks for them (type 2)."""
    ds.ScanningSequence, ds.SequenceVariant = _PULSE_SEQUENCES.get(str(record.get("pulse_sequence")), _UNKNOWN)
    ds.ScanOptions = _FAT_SATURATION if record.get("fat_suppression") else ""
    ds.MRAcquisitionType = "3D"
    ds.RepetitionTime = ds.EchoTime = ds.EchoTrainLength = ""
    for name, attribute in _MR_NUMBERS.items():
        if name in record:
            setattr(ds, attribute, decimal(record[name]))
    if "protocol" in record:
        ds.SequenceName = str(record["protocol"])[:_SHORT_STRING]


def describe_ct(ds: Dataset, record: Mapping[str, Any], sequence: str) -> None:
    """Set the attributes of the CT Image module, and of Contrast/Bolus for ``ct_contrast``; a tube voltage is not simulated."""
    ds.KVP = ""
    if "kernel" in record:
        ds.ConvolutionKernel = str(record["kernel"])[:_SHORT_STRING]
    if "slice_thickness_mm" in record:
        ds.SliceThickness = decimal(record["slice_thickness_mm"])
    if sequence == "ct_contrast":
        phase = record.get("phase")
        ds.ContrastBolusAgent = f"iodine, {phase} phase" if phase else "iodine"
