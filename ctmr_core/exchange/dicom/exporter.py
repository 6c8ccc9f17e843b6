"""DICOM studies: an image series per sequence, the label map as SEG, and outlines as RT Structure Set if asked for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from ctmr_core.exchange.base import CaseExporter, ExportCase, ExportPlan, FormatOptions
from ctmr_core.exchange.registry import needs


class DicomOptions(FormatOptions):
    """seg: encoding of the segmentation, ``binary`` (read everywhere), ``labelmap`` (much faster to write; for readers of DICOM
    2024d and later) or ``none``. rtstruct: write outlines as well. Both refer to the images of the first sequence.
    """

    seg: Literal["binary", "labelmap", "none"] = "binary"
    rtstruct: bool = False


class DicomExporter(CaseExporter):
    """``<case>/<sequence>/0001.dcm`` ..., ``<case>/seg.dcm``, ``<case>/rtstruct.dcm``; one study per case."""

    name: ClassVar[str] = "dicom"
    version: ClassVar[str] = "2"
    consumer: ClassVar[str] = "PACS, OHIF, 3D Slicer, treatment planning"
    Options: ClassVar[type[FormatOptions]] = DicomOptions
    options: DicomOptions

    def prepare(self, plan: ExportPlan) -> Mapping[str, Any]:
        """Refuse early where the libraries are missing."""
        try:
            import highdicom  # noqa: F401
            import pydicom  # noqa: F401
        except ImportError as error:
            raise needs("pydicom and highdicom") from error
        return super().prepare(plan)

    def write_case(self, case: ExportCase, folder: Path) -> None:
        """Write the study of one case."""
        from ctmr_core.exchange.dicom.contours import write_structure_set
        from ctmr_core.exchange.dicom.images import write_series
        from ctmr_core.exchange.dicom.segmentation import write_segmentation

        root = folder / case.entry.case_id
        series = [
            write_series(case, sequence, number, root / sequence) for number, sequence in enumerate(case.entry.sequences, start=1)
        ]
        labels = case.labels()
        if self.options.seg != "none":
            write_segmentation(case, labels, series[0], self.options.seg, root / "seg.dcm")
        if self.options.rtstruct:
            write_structure_set(case, labels, series[0], root / "rtstruct.dcm")
