"""Segmentation as a task of the training loop."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ctmr_core.errors import LearningError
from ctmr_core.learning.datasets.loading import loader
from ctmr_core.learning.segmentation.config import SegmentationConfig
from ctmr_core.learning.segmentation.inference import segment_volume
from ctmr_core.learning.segmentation.losses import make_loss
from ctmr_core.learning.segmentation.networks import make_network
from ctmr_core.learning.segmentation.pictures import overlay
from ctmr_core.learning.segmentation.scores import ClassScore, class_table, mean_dice, score_case, score_frame, write_scores
from ctmr_core.learning.segmentation.sources import training_patches, training_spacing
from ctmr_core.learning.segmentation.validation import validation_sets
from ctmr_core.learning.training import ranks
from ctmr_core.learning.training.task import Loss, Networks, Step, Task

VALIDATION = "validation"
#: Fields that may change between the parts of a resumed training: they don't change an update, or are meant to be raised.
_FREE = ("description", "validation", "best_by", "inference")
_FREE_IN_TRAINING = ("steps", "minutes", "workers", "device", "validate_every", "checkpoint_every", "logging")


class SegmentationTask(Task):
    """Everything a configuration names, opened and checked. Raises ``LearningError`` before anything is trained."""

    name = "segmentation"

    def __init__(self, config: SegmentationConfig) -> None:
        self.config = config
        self.spacing = training_spacing(config)
        self.classes = config.class_table
        self.modules = {
            "network": make_network(config.network, len(config.sequences), len(self.classes) + 1, config.patch, config.seed)
        }
        self._loss = make_loss(config.loss)
        self._sets = validation_sets(config)
        patches, self._sources = training_patches(config, self.spacing)
        several, parts = ranks.ranks(), config.training.accumulate
        if config.training.batch_size % (several * parts):
            raise LearningError(
                "a batch is divided into equal parts",
                where="field training.batch_size",
                found=config.training.batch_size,
                allowed=f"a multiple of {several * parts}: {several} ranks, accumulate {parts}",
            )
        self.batches = loader(
            patches,
            config.training.batch_size // (several * parts),
            config.training.workers,
            rank=ranks.rank(),
            ranks=several,
            pin_memory=ranks.device_of(config.training.device).type == "cuda",
        )
        best = config.best_by or (self._sets[0].name if self._sets else None)
        self.best_by = None if best is None else f"{best}/dice"

    @property
    def identity(self) -> Mapping[str, Any]:
        document = self.config.model_dump(mode="json", exclude=set(_FREE))
        document["training"] = {key: value for key, value in document["training"].items() if key not in _FREE_IN_TRAINING}
        document["network"] = {key: value for key, value in document["network"].items() if key not in {"weights", "partly"}}
        return {**document, "spacing": list(self.spacing)}

    @property
    def records(self) -> Mapping[str, Any]:
        return {
            "config": self.config.model_dump(mode="json"),
            "config_digest": self.config.digest,
            "spacing": list(self.spacing),
            "classes": list(self.classes.names),
            "sources": self._sources,
            "validation": {one.name: one.record for one in self._sets},
            "versions": {name: version(name) for name in ("ctmr-factory", "torch", "monai")},
        }

    def loss(self, batch: Any, networks: Networks, step: Step) -> Loss:
        image = batch["image"].to(step.device, non_blocking=True)
        label = batch["label"].to(step.device, non_blocking=True)
        return self._loss(networks["network"](image), label), {}

    def validate(self, networks: Networks, step: Step) -> dict[str, float]:
        """Scores ``<set>/dice``, ``<set>/hd95`` and ``<set>/dice/<class>``; tables in ``validation/``."""
        rows: list[ClassScore] = []
        jobs = [(one, number) for one in self._sets for number in range(len(one))]
        for one, number in jobs[ranks.rank() :: ranks.ranks()]:
            volume = one.volume(number)
            found = segment_volume(
                networks["network"],
                volume.images,
                volume.spacing,
                to=self.spacing,
                intensity=self.config.intensity,
                window=self.config.inference.window or self.config.patch,
                inference=self.config.inference,
                device=step.device,
            )
            if number == 0:
                name, voxels = volume.images[0]
                pixels = overlay(name, voxels, volume.labels, found, volume.spacing, self.config.intensity)
                _write_picture(step.folder / VALIDATION / f"step-{step.number:07d}-{one.name}.png", pixels)
                step.picture(one.name, pixels)
            names = {number: self.classes.names[number] for number in sorted(volume.scored)}
            rows += score_case(
                volume.labels,
                found,
                volume.spacing,
                names,
                dataset=one.name,
                case=volume.name,
                with_distances=self.config.inference.hd95,
            )
        rows = sorted(ranks.gathered(rows), key=lambda row: (row.dataset, row.case, row.number))
        if not rows:
            return {}
        frame = score_frame(rows)
        if ranks.rank() == 0:
            write_scores(frame, step.folder / VALIDATION, f"step-{step.number:07d}")
        scores: dict[str, float] = {}
        for name, table in class_table(frame).groupby("dataset", sort=False):
            scores[f"{name}/dice"] = mean_dice(table)
            scores[f"{name}/hd95"] = float(table.hd95_mean.mean())
            for label, dice in zip(table["class"], table.dice_mean, strict=True):
                scores[f"{name}/dice/{label}"] = float(dice)
        return scores


def _write_picture(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
