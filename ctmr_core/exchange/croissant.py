"""NIfTI files described in Croissant 1.1 (MLCommons), so that loaders and catalogues of datasets understand them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pyarrow.parquet as pq

from ctmr_core.exchange.base import ExportPlan, FormatOptions, Record
from ctmr_core.exchange.case_table import case_table
from ctmr_core.exchange.nifti import NiftiExporter, NiftiOptions
from ctmr_core.exchange.registry import needs

TABLE = "cases.parquet"
METADATA = "croissant.json"
_FILES = {"images": "int16 images, CT in HU", "labels": "label maps in true ids"}
_COLUMNS = {
    "case_id": "Name of the case.",
    "case_key": "SHA-256 of all that decides the case.",
    "split": "train, val or test.",
    "body_identity": "The body; never in two splits.",
    "engine": "What rendered the images.",
    "vocabulary": "What the label ids mean.",
}


class CroissantOptions(NiftiOptions):
    """url: where the dataset will be published. licence: of the whole, an SPDX name or address; default those of the cases."""

    url: str = "https://example.org/"
    licence: str = ""
    creator: str = "ctmr-factory"


class CroissantExporter(NiftiExporter):
    """NIfTI files, ``cases.parquet`` with their digests, and ``croissant.json``."""

    name: ClassVar[str] = "croissant"
    consumer: ClassVar[str] = "mlcroissant, Google Dataset Search, TensorFlow Datasets"
    Options: ClassVar[type[FormatOptions]] = CroissantOptions
    options: CroissantOptions

    def finish(self, plan: ExportPlan, records: Callable[[], Iterator[Record]], folder: Path) -> None:
        """Write the table and its description."""
        super().finish(plan, records, folder)
        table = case_table(plan, records)
        pq.write_table(table, folder / TABLE, compression="zstd", row_group_size=1024)
        digest = hashlib.sha256((folder / TABLE).read_bytes()).hexdigest()
        document = self._metadata(plan, digest)
        (folder / METADATA).write_text(json.dumps(document, indent=2, sort_keys=True, default=str) + "\n", encoding="utf-8")

    def _metadata(self, plan: ExportPlan, digest: str) -> dict[str, Any]:
        try:
            import mlcroissant as mlc
        except ImportError as error:
            raise needs("mlcroissant") from error
        file = mlc.FileObject(
            id="case-table",
            name="case-table",
            description="One row per case: what it is and the files it consists of, with their SHA-256.",
            content_url=TABLE,
            encoding_formats=["application/x-parquet"],
            sha256=digest,
        )
        volumes = [
            mlc.FileSet(
                id=f"{kind}-files",
                name=f"{kind}-files",
                description=f"NIfTI-1, RAS+ affine in mm: {text}.",
                encoding_formats=["application/x-nifti"],
                includes=[f"{kind}/*.{self.suffix}"],
            )
            for kind, text in _FILES.items()
        ]
        fields = [
            mlc.Field(
                id=f"cases/{column}",
                name=column,
                description=text,
                data_types=mlc.DataType.TEXT,
                source=mlc.Source(file_object=file.id, extract=mlc.Extract(column=column)),
            )
            for column, text in _COLUMNS.items()
        ]
        metadata = mlc.Metadata(
            name=plan.name,
            description=f"{len(plan)} labelled synthetic CT and MR volumes made by ctmr-factory.",
            url=self.options.url,
            license=[self.options.licence] if self.options.licence else list(plan.licences) or ["unspecified"],
            creators=[mlc.Organization(name=self.options.creator)],
            version="1.0.0",
            date_published=None,
            cite_as=f"{plan.name}, cases {plan.content_digest}",
            distribution=[file, *volumes],
            record_sets=[mlc.RecordSet(id="cases", name="cases", description="The cases.", fields=fields)],
        )
        document: dict[str, Any] = metadata.to_json()
        return document
