"""A folder that Hugging Face ``datasets`` loads: NIfTI files per split with ``metadata.parquet`` and a dataset card."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ctmr_core.exchange.base import CaseEntry, ExportPlan, Record
from ctmr_core.exchange.case_table import case_table
from ctmr_core.exchange.nifti import NiftiExporter

SPLITS = {"train": "train", "val": "validation", "test": "test"}
_SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"))


class HuggingFaceExporter(NiftiExporter):
    """``train/``, ``validation/``, ``test/``: NIfTI files, and ``metadata.parquet`` with columns ``<sequence>_file_name``."""

    name: ClassVar[str] = "huggingface"
    consumer: ClassVar[str] = "Hugging Face datasets (NiftiFolder), pandas"

    def image_name(self, entry: CaseEntry, sequence: str) -> str:
        return f"{SPLITS[entry.split]}/{entry.case_id}_{sequence}.{self.suffix}"

    def label_name(self, entry: CaseEntry) -> str:
        return f"{SPLITS[entry.split]}/{entry.case_id}_labels.{self.suffix}"

    def finish(self, plan: ExportPlan, records: Callable[[], Iterator[Record]], folder: Path) -> None:
        """Write the tables, the card and the lists of labels."""
        super().finish(plan, records, folder)
        table = case_table(plan, records)
        sequences = sorted({sequence for row in plan.sequence_sets for sequence in row})
        present = [split for split in SPLITS if split in pc.unique(table["split"]).to_pylist()]
        for split in present:
            rows = table.filter(pc.equal(table["split"], split))
            entries = [entry for entry in plan.entries() if entry.split == split]
            for sequence in sequences:
                names = [
                    self._beside(self.image_name(entry, sequence)) if sequence in entry.sequences else None for entry in entries
                ]
                rows = rows.append_column(f"{sequence}_file_name", pa.array(names, pa.string()))
            rows = rows.append_column("labels_file_name", pa.array([self._beside(self.label_name(entry)) for entry in entries]))
            (folder / SPLITS[split]).mkdir()
            pq.write_table(rows, folder / SPLITS[split] / "metadata.parquet", compression="zstd", row_group_size=1024)
        (folder / "README.md").write_text(_card(plan, present), encoding="utf-8")

    def _beside(self, name: str) -> str:
        return name.rpartition("/")[2]


def _card(plan: ExportPlan, splits: list[str]) -> str:
    size = next((text for limit, text in _SIZES if len(plan) < limit), "n>1M")
    head = {
        "pretty_name": plan.name,
        "task_categories": ["image-segmentation"],
        "tags": ["medical", "synthetic", "ct", "mri"],
        "size_categories": [size],
    }
    head_text = "\n".join(f"{key}: {json.dumps(value)}" for key, value in head.items())
    licences = "\n".join(f"- {licence}" for licence in plan.licences) or "- none recorded"
    return (
        f"---\n{head_text}\n---\n# {plan.name}\n\n{len(plan)} labelled volumes ({', '.join(splits)}), exported by ctmr-factory.\n"
        f"Affines are RAS+ in mm; images are int16 (CT in HU).\n\nSnapshot: {plan.snapshot or 'none'}\n"
        f"Cases: {plan.content_digest}\n\nLicences:\n\n{licences}\n"
    )
