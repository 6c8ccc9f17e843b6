"""Validation on whole volumes: of datasets, and of scans from files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from ctmr_core.errors import LearningError
from ctmr_core.learning.datasets.classes import Classes
from ctmr_core.learning.datasets.volume_dataset import VolumeDataset
from ctmr_core.learning.segmentation.config import SegmentationConfig, ValidationSettings
from ctmr_core.learning.segmentation.scans import LabelledVolume, LabelMeanings, read_volume, scans_of
from ctmr_core.store.dataset import Dataset


class ValidationSet(Protocol):
    """Volumes with labels, read one by one."""

    name: str

    def __len__(self) -> int: ...

    def volume(self, number: int) -> LabelledVolume: ...


class StoredVolumes:
    """Cases of a dataset or snapshot."""

    def __init__(self, settings: ValidationSettings, sequences: tuple[str, ...], classes: Classes) -> None:
        assert settings.dataset is not None  # noqa: S101 - checked by the configuration
        self.name = settings.name
        self.sequences = sequences
        dataset = Dataset.open(settings.dataset, snapshot=settings.snapshot)
        self._volumes = VolumeDataset(dataset, sequences, classes, splits=settings.splits)
        self._length = min(len(self._volumes), settings.limit or len(self._volumes))
        self._classes = classes
        self.record = {
            "dataset": dataset.uri,
            "digest": None if dataset.snapshot is None else dataset.snapshot.digest,
            "cases": self._length,
        }

    def __len__(self) -> int:
        return self._length

    def volume(self, number: int) -> LabelledVolume:
        """A case, and which classes its vocabulary has."""
        item = self._volumes[number]
        image = item["image"].numpy()
        table = self._classes.table(self._volumes.table.vocabulary(number))
        return LabelledVolume(
            name=str(item["image"].meta["case_id"]),
            images=tuple((name, image[channel]) for channel, name in enumerate(self.sequences)),
            labels=item["label"].numpy()[0],
            affine=np.asarray(item["image"].affine),
            scored=frozenset(int(one) for one in np.unique(table) if one),
        )


class ScanVolumes:
    """Scans from files."""

    def __init__(self, settings: ValidationSettings, sequences: tuple[str, ...], classes: Classes) -> None:
        self.name = settings.name
        self.sequences = sequences
        self._meanings = LabelMeanings(settings, classes)
        self._scans = scans_of(settings.scans)[: settings.limit]
        for scan in self._scans:
            for path in (*scan.images, scan.label):
                if not path.is_file():
                    raise LearningError("there is no such file", where=str(path))
        self.record = {"scans": [scan.name for scan in self._scans]}

    def __len__(self) -> int:
        return len(self._scans)

    def volume(self, number: int) -> LabelledVolume:
        """A scan on its own grid."""
        return read_volume(self._scans[number], self.sequences, self._meanings)


def validation_sets(config: SegmentationConfig) -> list[StoredVolumes | ScanVolumes]:
    """The configured sets; files are looked for, not read."""
    return list(_sets(config))


def _sets(config: SegmentationConfig) -> Iterator[StoredVolumes | ScanVolumes]:
    for settings in config.validation:
        sequences = settings.sequences or config.sequences
        kind = StoredVolumes if settings.dataset is not None else ScanVolumes
        try:
            yield kind(settings, sequences, config.class_table)
        except LearningError as error:
            located = error.located(f"validation set {settings.name}")
            raise located from error
