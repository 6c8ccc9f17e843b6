"""The Medical Segmentation Decathlon layout with the data list that MONAI reads."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ctmr_core.anatomy.sequences import is_ct
from ctmr_core.anatomy.vocabulary import load_vocabulary
from ctmr_core.exchange.base import CaseEntry, ExportCase, ExportPlan, FormatOptions, Record
from ctmr_core.exchange.folds import fold_of
from ctmr_core.exchange.label_tables import LabelTable, Numbering, label_table
from ctmr_core.exchange.nifti import NiftiExporter, Suffix
from ctmr_core.exchange.planning import one_sequence_set, one_vocabulary

KEYS = {"train": "training", "val": "validation", "test": "test"}


class MonaiOptions(FormatOptions):
    """numbering: ``contiguous`` (1, 2, 3 ... over the labels that occur: as many classes as a network needs) or ``true`` ids."""

    numbering: Numbering = "contiguous"
    suffix: Suffix = "nii.gz"


class MonaiExporter(NiftiExporter):
    """``dataset.json`` for ``monai.data.load_decathlon_datalist`` and Auto3DSeg; several sequences are a list of images."""

    name: ClassVar[str] = "monai"
    consumer: ClassVar[str] = "MONAI, Auto3DSeg, Medical Segmentation Decathlon"
    Options: ClassVar[type[FormatOptions]] = MonaiOptions
    _table: LabelTable
    _channels: tuple[str, ...]

    @property
    def _set(self) -> MonaiOptions:
        assert isinstance(self.options, MonaiOptions)  # noqa: S101 - what the registry made
        return self.options

    @property
    def suffix(self) -> str:
        """How the files end."""
        return self._set.suffix

    def prepare(self, plan: ExportPlan) -> Mapping[str, Any]:
        """One vocabulary, the same channels in every case."""
        vocabulary = load_vocabulary(one_vocabulary(plan, self.name))
        self._channels = one_sequence_set(plan, self.name)
        self._table = label_table(vocabulary, plan.label_ids[vocabulary.name], self._set.numbering)
        return {"numbers": sorted(self._table.numbers.items()), "channels": self._channels}

    def image_name(self, entry: CaseEntry, sequence: str) -> str:
        folder = "imagesTs" if entry.split == "test" else "imagesTr"
        return f"{folder}/{entry.case_id}_{sequence}.{self.suffix}"

    def label_name(self, entry: CaseEntry) -> str:
        folder = "labelsTs" if entry.split == "test" else "labelsTr"
        return f"{folder}/{entry.case_id}.{self.suffix}"

    def exported_labels(self, case: ExportCase) -> np.ndarray:
        """In the numbers that were asked for."""
        return self._table.apply(case.labels())

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
            "tensorImageSize": "4D" if len(self._channels) > 1 else "3D",
            "modality": {str(number): "CT" if is_ct(name) else name for number, name in enumerate(self._channels)},
            "labels": {str(number): name for name, number in self._table.names.items()},
            "numTraining": len(lists["training"]),
            "numTest": len(lists["test"]),
            **lists,
        }
        (folder / "dataset.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
