"""WebDataset shards: tar files of some dozens of cases, read from front to back."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from ctmr_core.exchange.base import CaseEntry, ExportCase, Exporter, ExportPlan, ExportUnit, FormatOptions, Record
from ctmr_core.exchange.nifti import nifti_image, write_label_list
from ctmr_core.exchange.registry import needs


class WebDatasetOptions(FormatOptions):
    """voxels: ``npy`` (fast to decode, four times the size) or ``nii.gz``. cases_per_shard: 64 of 256^3 are about 1 GB."""

    voxels: Literal["npy", "nii.gz"] = "nii.gz"
    cases_per_shard: Annotated[int, Field(ge=1, le=100_000)] = 64


class WebDatasetExporter(Exporter):
    """``<split>-000000.tar``; of each case ``<case>.<sequence>.nii.gz``, ``<case>.labels.nii.gz`` and ``<case>.json``."""

    name: ClassVar[str] = "webdataset"
    consumer: ClassVar[str] = "webdataset, torchdata, HF datasets (streaming)"
    Options: ClassVar[type[FormatOptions]] = WebDatasetOptions
    options: WebDatasetOptions

    def units(self, plan: ExportPlan) -> Iterator[ExportUnit]:
        """Shards: so many cases of one split, by case id."""
        open_shards: dict[str, list[CaseEntry]] = {}
        count: dict[str, int] = {}
        for entry in plan.entries():
            cases = open_shards.setdefault(entry.split, [])
            cases.append(entry)
            if len(cases) == self.options.cases_per_shard:
                yield self._shard(entry.split, count, cases)
                open_shards[entry.split] = []
        for split, cases in open_shards.items():
            if cases:
                yield self._shard(split, count, cases)

    def _shard(self, split: str, count: dict[str, int], cases: list[CaseEntry]) -> ExportUnit:
        number = count.get(split, 0)
        count[split] = number + 1
        return ExportUnit(f"{split}-{number:06d}", tuple(cases))

    def write(self, unit: ExportUnit, cases: Iterator[ExportCase], folder: Path) -> None:
        """Write one tar file; one case in memory at a time."""
        try:
            from webdataset import TarWriter
        except ImportError as error:
            raise needs("webdataset") from error
        with (folder / f"{unit.name}.tar").open("wb") as file, TarWriter(file, encoder=False, mtime=0) as tar:
            for case in cases:
                tar.write(self._sample(case))

    def _sample(self, case: ExportCase) -> dict[str, Any]:
        sample: dict[str, Any] = {"__key__": case.entry.case_id}
        for sequence in case.entry.sequences:
            sample[f"{sequence}.{self.options.voxels}"] = self._encoded(case.image(sequence), case)
        sample[f"labels.{self.options.voxels}"] = self._encoded(case.labels(), case)
        sample["json"] = json.dumps(_facts(case), sort_keys=True).encode()
        return sample

    def _encoded(self, voxels: np.ndarray, case: ExportCase) -> bytes:
        if self.options.voxels == "npy":
            buffer = io.BytesIO()
            np.save(buffer, voxels)
            return buffer.getvalue()
        return gzip.compress(nifti_image(voxels, case).to_bytes(), compresslevel=1, mtime=0)

    def finish(self, plan: ExportPlan, records: Callable[[], Iterator[Record]], folder: Path) -> None:
        """Write ``shards.json``: split -> names and number of cases; and the tables of labels."""
        shards: dict[str, dict[str, Any]] = {}
        for record in records():
            entry = shards.setdefault(record["split"], {"cases": 0, "shards": set()})
            entry["cases"] += 1
            entry["shards"].add(f"{record['unit']}.tar")
        document = {split: {**entry, "shards": sorted(entry["shards"])} for split, entry in sorted(shards.items())}
        (folder / "shards.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        for vocabulary in plan.label_ids:
            write_label_list(folder / f"labels_{vocabulary}.json", vocabulary)


def _facts(case: ExportCase) -> dict[str, Any]:
    """What a loader needs beside the voxels; arrays are [x, y, z], RAS+, mm."""
    return {
        "case_id": case.entry.case_id,
        "case_key": case.entry.case_key,
        "split": case.entry.split,
        "body_identity": case.entry.body_identity,
        "synthetic": case.synthetic,
        "sequences": list(case.entry.sequences),
        "vocabulary": case.entry.vocabulary,
        "spacing": list(case.spacing),
        "affine": case.affine.tolist(),
        "label_ids": case.row["label_ids"],
        "label_voxels": case.row["label_voxels"],
    }
