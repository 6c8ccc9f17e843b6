"""nnU-Net v2 raw data: ``Dataset###_Name`` with dataset.json, imagesTr, labelsTr and splits.

After nnU-Net's ``dataset_conversion`` conventions: ``{case}_{channel:04d}.nii.gz``, labels numbered 0, 1, 2 ... without gaps;
a channel named "CT" selects its CT normalisation.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field, field_validator
from ruamel.yaml import YAML

from ctmr_core.errors import ExchangeError
from ctmr_core.exchange.base import CaseEntry, ExportPlan, FormatOptions, Record
from ctmr_core.exchange.folds import splits_of
from ctmr_core.exchange.label_tables import label_ids
from ctmr_core.exchange.nifti import NiftiOptions
from ctmr_core.exchange.numbered import NumberedExporter, channel_name


class NnunetOptions(NiftiOptions):
    """id: 1..999 and name: of the dataset. labels: comma-separated names of labels or groups to keep; default all that occur.

    regions: YAML file, region name -> list of labels or groups, larger regions first, for region-based training.
    """

    id: Annotated[int, Field(ge=1, le=999)] = 1
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9]{1,40}$")] = "Synthetic"
    labels: tuple[str, ...] = ()
    regions: Path | None = None

    @field_validator("labels", mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


class NnunetExporter(NumberedExporter):
    """nnU-Net v2 raw: train and val cases in ``imagesTr``/``labelsTr``, test cases in ``imagesTs``/``labelsTs``."""

    name: ClassVar[str] = "nnunet"
    consumer: ClassVar[str] = "nnU-Net v2 (nnUNet_raw)"
    Options: ClassVar[type[FormatOptions]] = NnunetOptions
    options: NnunetOptions
    regions: dict[str, list[int]]

    @property
    def folder(self) -> str:
        """``Dataset###_Name``."""
        return f"Dataset{self.options.id:03d}_{self.options.name}"

    def prepare(self, plan: ExportPlan) -> Mapping[str, Any]:
        """One vocabulary, the same channels in every case; numbers for the labels that occur."""
        regions = _read_regions(self.options.regions) if self.options.regions else {}
        facts = self.number(plan, "contiguous", [*self.options.labels, *(name for names in regions.values() for name in names)])
        numbers = self.table.numbers
        self.regions = {
            name: sorted(numbers[label] for label in label_ids(self.table.vocabulary, names) if label in numbers)
            for name, names in regions.items()
        }
        if empty := [name for name, members in self.regions.items() if not members]:
            raise ExchangeError("no case has a label of this region", where=str(self.options.regions), found=empty[0])
        if not any(split != "test" for split in plan.table["split"].to_pylist()):
            raise ExchangeError("nnU-Net needs cases to train with; all of these are of the test split", found=len(plan))
        return facts

    def image_name(self, entry: CaseEntry, sequence: str) -> str:
        channel = self.channels.index(sequence)
        return f"{self.folder}/images{_place(entry)}/{entry.case_id}_{channel:04d}.{self.suffix}"

    def label_name(self, entry: CaseEntry) -> str:
        return f"{self.folder}/labels{_place(entry)}/{entry.case_id}.{self.suffix}"

    def finish(self, plan: ExportPlan, records: Callable[[], Iterator[Record]], folder: Path) -> None:  # noqa: ARG002
        """Write ``dataset.json``, ``splits_final.json`` and the true id of every number."""
        root = folder / self.folder
        root.mkdir()
        cases = [(one.case_id, one.split, one.body_identity) for one in plan.entries() if one.split != "test"]
        write_json(root / "dataset.json", self.description(plan, len(cases)))
        write_json(root / "splits_final.json", splits_of(cases))
        numbers = {
            str(number): {"id": label, "name": self.table.vocabulary.label(label).name}
            for label, number in self.table.numbers.items()
        }
        write_json(root / "label_ids.json", {"vocabulary": self.table.vocabulary.name, "labels": numbers})

    def description(self, plan: ExportPlan, training: int) -> dict[str, Any]:
        """``dataset.json``; training: number of cases that are not of the test split."""
        document: dict[str, Any] = {
            "channel_names": {str(number): channel_name(name) for number, name in enumerate(self.channels)},
            "labels": self.table.names,
            "numTraining": training,
            "file_ending": f".{self.suffix}",
            "name": self.folder,
            "description": f"{plan.name}: synthetic volumes made by ctmr-factory, cases {plan.content_digest}",
            "licence": ", ".join(plan.licences),
            "converted_by": "ctmr-factory",
        }
        if self.regions:
            document["labels"] = {"background": 0, **self.regions}
            document["regions_class_order"] = _class_order(list(self.regions.values()))
        return document


def _class_order(regions: list[list[int]]) -> list[int]:
    """What nnU-Net writes for each region, later ones over earlier ones: a number no later region has, if there is one."""
    order = []
    for position, members in enumerate(regions):
        later = {member for other in regions[position + 1 :] for member in other}
        order.append(next((member for member in members if member not in later), members[0]))
    return order


def _place(entry: CaseEntry) -> str:
    return "Ts" if entry.split == "test" else "Tr"


def _read_regions(path: Path) -> dict[str, list[str]]:
    try:
        document = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ExchangeError("can not read the regions", where=str(path), found=error.strerror) from error
    if not isinstance(document, dict) or not document or not all(isinstance(names, list) for names in document.values()):
        raise ExchangeError("not a list of regions", where=str(path), allowed="whole_liver: [liver, hepatic tumor]")
    return {str(name): [str(one) for one in names] for name, names in document.items()}


def write_json(path: Path, document: Any) -> None:
    """Write an indented JSON document."""
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
