"""Scans with label maps from files: what their ids mean, and the volumes themselves."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from ctmr_core.anatomy.mapping import LabelMapping, count_ids, load_mapping
from ctmr_core.anatomy.templates.reading import read_label_scan, read_scan
from ctmr_core.errors import AnatomyError, LearningError
from ctmr_core.learning.datasets.classes import Classes
from ctmr_core.learning.segmentation.config import ScanSettings, SourceSettings, ValidationSettings

_LISTS = ("training", "validation", "test")
_SAME_PLACE_MM = 0.1  # label maps and images of the same grid differ by what headers round


@dataclass(frozen=True, eq=False)
class LabelledVolume:
    """A whole volume to train or validate on.

    images: sequence and voxels [x, y, z] of every channel, RAS+ axis order. labels: uint8 [x, y, z] training ids.
    affine: 4x4, voxel index -> RAS+ mm. scored: training ids its labels can tell; others are not known to be absent.
    """

    name: str
    images: tuple[tuple[str, np.ndarray], ...]
    labels: np.ndarray
    affine: np.ndarray
    scored: frozenset[int]

    @property
    def spacing(self) -> tuple[float, float, float]:
        """mm per voxel along each axis."""
        x, y, z = (float(mm) for mm in np.linalg.norm(self.affine[:3, :3], axis=0))
        return (x, y, z)


class LabelMeanings:
    """What the ids of somebody's label maps are in the classes of a training."""

    def __init__(self, settings: SourceSettings | ValidationSettings, classes: Classes) -> None:
        self._drop_unknown = settings.drop_unknown
        if settings.labels is not None:
            self._table = _from_labels(settings.labels, classes)
        else:
            self._table = _from_mapping(load_mapping(str(settings.mapping)), classes)
        self.scored = frozenset(number for number in self._table.values() if number)

    def training_ids(self, voxels: np.ndarray, where: str) -> np.ndarray:
        """uint8, of the same shape; ``LearningError`` for ids without a meaning."""
        present = count_ids(voxels)
        unknown = [number for number in present if number and number not in self._table]
        if unknown and not self._drop_unknown:
            raise LearningError(
                "label ids without a meaning",
                where=where,
                found=unknown[:20],
                fix="name them in `mapping` or `labels`, or set `drop_unknown: true`: they become background",
            )
        table = np.zeros(max(present, default=0) + 1, np.uint8)
        for number in present:
            table[number] = self._table.get(number, 0)
        return table[voxels]


def read_volume(scan: ScanSettings, sequences: Sequence[str], meanings: LabelMeanings) -> LabelledVolume:
    """A scan and its label map, which lie on the same grid; ``LearningError`` otherwise."""
    if len(scan.images) != len(sequences):
        raise LearningError("a scan has one image for every sequence", where=scan.name, found=len(scan.images), allowed=sequences)
    try:
        label = read_label_scan(scan.label)
        images = [read_scan(path) for path in scan.images]
    except AnatomyError as error:
        raise LearningError(error.what, where=error.where, allowed=error.allowed, fix=error.fix) from error
    for path, image in zip(scan.images, images, strict=True):
        if image.voxels.shape != label.voxels.shape or not np.allclose(image.affine, label.affine, atol=_SAME_PLACE_MM):
            raise LearningError(
                "image and label map lie on different grids",
                where=f"{path}, {scan.label}",
                found=f"{image.voxels.shape} and {label.voxels.shape} voxels, or another place",
                fix="resample the label map onto the image (nearest neighbour)",
            )
    return LabelledVolume(
        name=scan.name,
        images=tuple((name, image.voxels) for name, image in zip(sequences, images, strict=True)),
        labels=meanings.training_ids(label.voxels, str(scan.label)),
        affine=label.affine,
        scored=meanings.scored,
    )


def scans_of(scans: Path | tuple[ScanSettings, ...] | None) -> tuple[ScanSettings, ...]:
    """The pairs, also those a JSON file lists."""
    if not isinstance(scans, Path):
        return scans or ()
    try:
        document = json.loads(scans.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise LearningError("the list of scans can't be read", where=str(scans), found=str(error)) from error
    if isinstance(document, Mapping):
        document = next((document[name] for name in _LISTS if name in document), None)
    if not isinstance(document, list) or not document:
        raise LearningError(
            "not a list of scans", where=str(scans), allowed='[{"image": ..., "label": ...}], also below training or validation'
        )
    return tuple(_pair(entry, scans, number) for number, entry in enumerate(document))


def _pair(entry: object, file: Path, number: int) -> ScanSettings:
    try:
        pair = ScanSettings.model_validate({key: entry[key] for key in ("image", "label")})  # type: ignore[index]
    except (ValidationError, TypeError, KeyError) as error:
        raise LearningError(
            "not a pair of image and label", where=f"{file}, entry {number}", found=entry, allowed="image, label"
        ) from error
    images = tuple(file.parent / path for path in pair.images)
    return ScanSettings(image=images, label=file.parent / pair.label)


def _from_labels(labels: Mapping[str, int | tuple[int, ...]], classes: Classes) -> dict[int, int]:
    table: dict[int, int] = {}
    for number, name in enumerate(classes.members, start=1):
        ids = labels.get(name, ())
        for one in (ids,) if isinstance(ids, int) else ids:
            if one in table or one <= 0:
                raise LearningError("an id stands for one class", where=f"labels, class {name}", found=one)
            table[one] = number
    return table


def _from_mapping(mapping: LabelMapping, classes: Classes) -> dict[int, int]:
    numbers = classes.table(mapping.vocabulary.name)
    table = {source: int(numbers[target]) for source, target in mapping.table.items()}
    for source, (left, right) in mapping.sides.items():
        if numbers[left] != numbers[right]:
            raise LearningError(
                "the scans don't tell sides apart, but the classes do",
                where=f"mapping {mapping.name}",
                found=mapping.describe(source),
                fix="put both sides into one class, or leave the label out of the mapping",
            )
        table[source] = int(numbers[left])
    return table
