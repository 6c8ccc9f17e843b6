"""NIfTI-1 files: one per image and one per label map, and a table of the labels."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar, Literal

import nibabel as nib
import numpy as np

from ctmr_core.anatomy.vocabulary import load_vocabulary
from ctmr_core.exchange.base import CaseEntry, CaseExporter, ExportCase, ExportPlan, FormatOptions, Record

SYNTHETIC = "SYNTHETIC"
SCANNER = 1  # NIFTI_XFORM_SCANNER_ANAT
_DESCRIPTION_BYTES = 79  # the field has 80, one of them for the end

Suffix = Literal["nii.gz", "nii"]


class NiftiOptions(FormatOptions):
    """suffix: ``nii.gz`` (compression level 1, which reads as fast as any) or ``nii``."""

    suffix: Suffix = "nii.gz"


class NiftiExporter(CaseExporter):
    """``images/<case>_<sequence>.nii.gz`` int16, ``labels/<case>.nii.gz`` in true ids, ``labels_<vocabulary>.json``."""

    name: ClassVar[str] = "nifti"
    consumer: ClassVar[str] = "nibabel, SimpleITK, 3D Slicer, ITK-SNAP, TorchIO"
    Options: ClassVar[type[FormatOptions]] = NiftiOptions
    options: NiftiOptions

    @property
    def suffix(self) -> str:
        """How the files end."""
        return self.options.suffix

    def image_name(self, entry: CaseEntry, sequence: str) -> str:
        """The name of an image below the export."""
        return f"images/{entry.case_id}_{sequence}.{self.suffix}"

    def label_name(self, entry: CaseEntry) -> str:
        """The name of the label map below the export."""
        return f"labels/{entry.case_id}.{self.suffix}"

    def write_case(self, case: ExportCase, folder: Path) -> None:
        """Write the images, then the label map."""
        for sequence in case.entry.sequences:
            write_nifti(folder / self.image_name(case.entry, sequence), case.image(sequence), case)
        write_nifti(folder / self.label_name(case.entry), self.exported_labels(case), case)

    def exported_labels(self, case: ExportCase) -> np.ndarray:
        """The label map as it is written."""
        return case.labels()

    def finish(self, plan: ExportPlan, records: Callable[[], Iterator[Record]], folder: Path) -> None:  # noqa: ARG002
        """Write the table of labels of every vocabulary."""
        for vocabulary in plan.label_ids:
            write_label_list(folder / f"labels_{vocabulary}.json", vocabulary)


def write_nifti(path: Path, voxels: np.ndarray, case: ExportCase) -> None:
    """Write voxels of a case as :func:`nifti_image`, gzip level 1 where the name ends in gz; equal input gives equal bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nifti_image(voxels, case), path)


def nifti_image(voxels: np.ndarray, case: ExportCase) -> nib.Nifti1Image:
    """[x, y, z] voxels of a case as NIfTI-1: qform and sform are its affine, units mm, no scaling.

    The description says SYNTHETIC and the beginning of the case key; imported scans are not called synthetic.
    """
    image = nib.Nifti1Image(voxels, case.affine, dtype=voxels.dtype)
    image.header.set_data_dtype(voxels.dtype)
    image.header.set_xyzt_units("mm", "sec")
    image.set_qform(case.affine, SCANNER)
    image.set_sform(case.affine, SCANNER)
    image.header.set_slope_inter(1, 0)
    image.header["descrip"] = description(case).encode("ascii")[:_DESCRIPTION_BYTES]
    return image


def description(case: ExportCase) -> str:
    """What the header says of the case, in less than 80 characters."""
    return f"{SYNTHETIC if case.synthetic else 'imported'} ctmr-factory case key {case.entry.case_key[:32]}"


def write_label_list(path: Path, vocabulary: str) -> None:
    """Every label of a vocabulary: id, name, group, colour (``#rrggbb``)."""
    labels = [{"id": one.id, "name": one.name, "group": one.group, "color": one.color} for one in load_vocabulary(vocabulary)]
    document = {"vocabulary": vocabulary, "background": 0, "labels": labels}
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
