"""nnU-Net v2's preprocessed format: what ``nnUNetv2_plan_and_preprocess`` would make of the raw export."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field, field_validator

from ctmr_core.cases.seeds import case_rng
from ctmr_core.errors import ExchangeError
from ctmr_core.exchange.base import CaseEntry, ExportCase, ExportPlan, ExportUnit, FormatOptions, Record
from ctmr_core.exchange.label_tables import LabelTable
from ctmr_core.exchange.nifti import write_nifti
from ctmr_core.exchange.nnunet import NnunetExporter, NnunetOptions, write_json
from ctmr_core.exchange.nnunet_preprocessed.files import class_locations, write_array, write_properties
from ctmr_core.exchange.nnunet_preprocessed.plans import Fingerprint, Intensities, Plans, make_plans, read_plans
from ctmr_core.exchange.nnunet_preprocessed.preprocessing import bounding_box, nonzero_region, preprocessed
from ctmr_core.exchange.numbered import channel_name
from ctmr_core.exchange.registry import needs
from ctmr_core.store import Dataset, Volume

_SAMPLED_CASES = 16  # whose voxels are looked at when plans are made: those with the smallest case keys
_SAMPLED_VOXELS = 50_000  # labelled ones, of each
_LPS = np.diag([-1.0, -1.0, 1.0])


class NnunetPreprocessedOptions(NnunetOptions):
    """As for nnunet. plans: ``nnUNetPlans.json`` of nnU-Net or of another export; default made from the cases.

    configuration: the one of the plans to preprocess for. patch: "z,y,x" in voxels, when plans are made; default about 128^3.
    locations: voxels of each class to remember, for patches around them.
    """

    plans: Path | None = None
    configuration: str = "3d_fullres"
    patch: tuple[Annotated[int, Field(ge=16, le=1024)], ...] = Field(default=(), max_length=3)
    locations: Annotated[int, Field(ge=1, le=100_000)] = 1000

    @field_validator("patch", mode="before")
    @classmethod
    def _edges(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) and value else value

    @field_validator("patch")
    @classmethod
    def _three(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(value) not in (0, 3):
            raise ValueError("a patch has three edges: z,y,x")
        return value


class NnunetPreprocessedExporter(NnunetExporter):
    """``<data identifier>/<case>.b2nd`` and beside it labels and properties, ``gt_segmentations``; train and val cases."""

    name: ClassVar[str] = "nnunet-preprocessed"
    consumer: ClassVar[str] = "nnU-Net v2 (nnUNet_preprocessed)"
    Options: ClassVar[type[FormatOptions]] = NnunetPreprocessedOptions
    options: NnunetPreprocessedOptions
    plans: Plans
    fingerprint: Fingerprint

    def prepare(self, plan: ExportPlan) -> Mapping[str, Any]:
        """Labels and channels as in raw data, and plans: read, or made from sizes, spacings and a sample of the cases."""
        try:
            import blosc2  # noqa: F401
        except ImportError as error:
            raise needs("blosc2") from error
        facts = super().prepare(plan)
        channels = [channel_name(sequence) for sequence in self.channels]
        if self.options.plans is None:
            self.fingerprint = _fingerprint(plan, self.channels, self.table)
            self.plans = make_plans(self.fingerprint, channels, self.options.patch or None, self.folder)
        elif self.options.patch:
            raise ExchangeError("the patch is in the plans", where="--set patch", fix="leave out one of patch and plans")
        else:
            self.plans = read_plans(self.options.plans, self.options.configuration, self.folder, len(channels))
            spacings, sizes = _geometry(plan)
            self.fingerprint = Fingerprint(spacings, sizes, 1.0, self.plans.intensities)
        return {**facts, "plans": self.plans.document, "regions": self.regions}

    def units(self, plan: ExportPlan) -> Iterator[ExportUnit]:
        """Train and val cases: nnU-Net predicts test cases from raw images."""
        return (unit for unit in super().units(plan) if unit.cases[0].split != "test")

    def label_name(self, entry: CaseEntry) -> str:
        return f"{self.folder}/gt_segmentations/{entry.case_id}.{self.suffix}"

    def write_case(self, case: ExportCase, folder: Path) -> None:
        """Write image, labels and properties as nnU-Net's own preprocessor would, and the label map on its own grid."""
        numbered = self.exported_labels(case)
        write_nifti(folder / self.label_name(case.entry), numbered, case)
        order = self.plans.transpose
        turn = tuple(2 - axis for axis in order)  # [x, y, z] -> [z, y, x] -> the order of the plans
        images = np.stack([case.image(sequence).transpose(turn) for sequence in self.channels])
        spacing = [case.spacing[axis] for axis in turn]
        configuration = self.plans.configuration
        data, labels, box = preprocessed(images, numbered.transpose(turn), spacing, configuration, self.plans.intensities)
        place = folder / self.folder / configuration.data_identifier / case.entry.case_id
        write_array(place.with_name(f"{place.name}.b2nd"), data, configuration.patch_size)
        write_array(place.with_name(f"{place.name}_seg.b2nd"), labels[None], configuration.patch_size)
        rng = case_rng(case.entry.case_key, 0, "export/nnunet locations")
        properties = {
            **_geometry_properties(case),
            "shape_before_cropping": tuple(images.shape[1:]),
            "bbox_used_for_cropping": [[side.start, side.stop] for side in box],
            "shape_after_cropping_and_before_resampling": tuple(side.stop - side.start for side in box),
            "class_locations": class_locations(labels, self._classes(), self.options.locations, rng),
        }
        write_properties(place.with_name(f"{place.name}.pkl"), properties)

    def _classes(self) -> list[int | tuple[int, ...]]:
        """What patches are centred on: regions if there are any of several labels, else every label."""
        if any(len(members) > 1 for members in self.regions.values()):
            return [tuple(members) for members in self.regions.values()]
        return sorted(self.table.numbers.values())

    def finish(self, plan: ExportPlan, records: Callable[[], Iterator[Record]], folder: Path) -> None:
        """Write what raw data has as well, the plans and the fingerprint."""
        super().finish(plan, records, folder)
        write_json(folder / self.folder / f"{self.plans.name}.json", self.plans.document)
        write_json(folder / self.folder / "dataset_fingerprint.json", self.fingerprint.document())


def _geometry_properties(case: ExportCase) -> dict[str, Any]:
    """Spacing, origin and direction as nnU-Net's ``SimpleITKIO`` reads them from the NIfTI file (LPS)."""
    direction = _LPS @ case.affine[:3, :3] / np.asarray(case.spacing)
    geometry = {
        "spacing": tuple(float(mm) for mm in case.spacing),
        "origin": tuple((_LPS @ case.affine[:3, 3]).tolist()),
        "direction": tuple(direction.ravel().tolist()),
    }
    return {"sitk_stuff": geometry, "spacing": [float(mm) for mm in case.spacing[::-1]]}


def _geometry(plan: ExportPlan) -> tuple[np.ndarray, np.ndarray]:
    """(spacings in mm, sizes) of the cases to train with, [cases, 3], [z, y, x]."""
    train = np.array([split != "test" for split in plan.table["split"].to_pylist()])
    spacings, sizes = (np.array(plan.table[column].to_pylist())[train, ::-1] for column in ("spacing", "size"))
    return spacings.astype(np.float64), sizes


def _fingerprint(plan: ExportPlan, channels: tuple[str, ...], table: LabelTable) -> Fingerprint:
    """Spacings and sizes of all cases; intensities of the labelled voxels of some, one of them in memory at a time."""
    sampled = sorted((entry.case_key, entry.case_id) for entry in plan.entries() if entry.split != "test")[:_SAMPLED_CASES]
    dataset = Dataset.open(plan.dataset, plan.snapshot or None)
    looks = [_look(dataset[case_id], case_key, channels, table) for case_key, case_id in sampled]
    values = [np.concatenate([look[channel] for _, look in looks]) for channel in range(len(channels))]
    if not values[0].size:
        raise ExchangeError("no labelled voxel in the cases that were looked at", found=[case_id for _, case_id in sampled])
    relative = float(np.median([left for left, _ in looks]))
    return Fingerprint(*_geometry(plan), relative, [Intensities.of(one) for one in values])


def _look(volume: Volume, case_key: str, channels: tuple[str, ...], table: LabelTable) -> tuple[float, list[np.ndarray]]:
    """(share of the volume that is left without its empty border, values of labelled voxels of every channel) of one case."""
    images = np.stack([volume.images[sequence][...].T for sequence in channels])  # as stored, which costs no copy
    box = bounding_box(nonzero_region(images))
    left = float(np.prod([side.stop - side.start for side in box])) / images[0].size
    places = np.flatnonzero(table.apply(volume.labels[...].T))
    if places.size > _SAMPLED_VOXELS:
        places = case_rng(case_key, 0, "export/nnunet intensities").choice(places, _SAMPLED_VOXELS, replace=False, shuffle=False)
    return left, [image.ravel()[places] for image in images]
