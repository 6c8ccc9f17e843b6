"""The Medical Segmentation Decathlon layout with the data list that MONAI reads."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from ctmr_core.exchange.base import CaseEntry, ExportPlan, FormatOptions, Record
from ctmr_core.exchange.folds import fold_of
from ctmr_core.exchange.label_tables import Numbering
from ctmr_core.exchange.nifti import NiftiOptions
from ctmr_core.exchange.numbered import NumberedExporter, channel_name

KEYS = {"train": "training", "val": "validation", "test": "test"}


class MonaiOptions(NiftiOptions):
    """numbering: ``contiguous`` (1, 2, 3 ... over the labels that occur: as many classes as a network needs) or ``true`` ids."""

    numbering: Numbering = "contiguous"


class MonaiExporter(NumberedExporter):
    """``dataset.json`` for ``monai.data.load_decathlon_datalist`` and Auto3DSeg; several sequences are a list of images."""

    name: ClassVar[str] = "monai"
    consumer: ClassVar[str] = "MONAI, Auto3DSeg, Medical Segmentation Decathlon"
    Options: ClassVar[type[FormatOptions]] = MonaiOptions
    options: MonaiOptions

    def prepare(self, plan: ExportPlan) -> Mapping[str, Any]:
        """One vocabulary, the same channels in every case."""
        return self.number(plan, self.options.numbering)

    def image_name(self, entry: CaseEntry, sequence: str) -> str:
        folder = "imagesTs" if entry.split == "test" else "imagesTr"
        return f"{folder}/{entry.case_id}_{sequence}.{self.suffix}"

    def label_name(self, entry: CaseEntry) -> str:
        folder = "labelsTs" if entry.split == "test" else "labelsTr"
        return f"{folder}/{entry.case_id}.{self.suffix}"

    def finish(self, plan: ExportPlan, records: Callable[[], Iterator[Record]], folder: Path) -> None:  # noqa: ARG002
        """Write ``dataset.json``."""
        lists: dict[str, list[dict[str, Any]]] = {key: [] for key in KEYS.values()}
        for entry in plan.entries():
            images = [self.image_name(entry, sequence) for sequence in entry.sequences]
            item: dict[str, Any] = {"image": images if len(images) > 1 else images[0], "label": self.label_name(entry)}
            if entry.split == "train":
                item["fold"] = fold_of(entry.body_identity)
            lists[KEYS[entry.split]].append(item)
        document = {
            "name": plan.name,
            "description": f"synthetic volumes made by ctmr-factory, cases {plan.content_digest}",
            "licence": ", ".join(plan.licences),
            "reference": "ctmr-factory",
            "release": plan.snapshot_name,
            "tensorImageSize": "4D" if len(self.channels) > 1 else "3D",
            "modality": {str(number): channel_name(name) for number, name in enumerate(self.channels)},
            "labels": {str(number): name for name, number in self.table.names.items()},
            "numTraining": len(lists["training"]),
            "numTest": len(lists["test"]),
            **lists,
        }
        (folder / "dataset.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
