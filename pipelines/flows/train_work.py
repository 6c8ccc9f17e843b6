"""The work of a segmentation training: its configuration as it will be trained, and the job that every rank does."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ctmr_core.errors import LearningError
from ctmr_core.learning.segmentation.config import SegmentationConfig, load_segmentation_config
from ctmr_core.learning.segmentation.trainer import TrainingSummary, train
from ctmr_core.learning.training.settings import TrainingSettings
from ctmr_core.store import Dataset
from ctmr_core.store.snapshots import list_snapshots
from pipelines.factory.training import Stopping, Tell
from pipelines.flows.train_options import NEWEST, TrainOptions


@dataclass(frozen=True)
class SegmentationJob:
    """What a rank runs; plain data, so that it can be sent to a worker. base: the folder it works in."""

    config: SegmentationConfig
    folder: Path
    base: Path

    def on(self, device: str) -> SegmentationJob:
        """The job on the device the ranks were given."""
        training = self.config.training.model_copy(update={"device": device})
        return replace(self, config=self.config.model_copy(update={"training": training}))

    def __call__(self, tell: Tell, stopping: Stopping) -> TrainingSummary:
        """Train, or go on where a training in the folder was stopped."""
        with working_in(self.base):
            return train(self.config, self.folder, resume=True, should_stop=stopping, on_report=tell)


@contextlib.contextmanager
def working_in(base: Path) -> Iterator[None]:
    """The current folder is ``base``, which relative paths of a configuration start from."""
    if not base.is_dir():
        raise LearningError("the folder that the configuration's paths start from is not here", where=str(base))
    with contextlib.chdir(base):
        yield


def base_of(options: TrainOptions) -> Path:
    """The folder that relative paths of the configuration start from, absolute."""
    return Path(options.base or ".").expanduser().absolute()


def configured(options: TrainOptions) -> tuple[SegmentationConfig, dict[str, str]]:
    """The configuration with what the options say instead, and the snapshot of every dataset that was put into it.

    ``LearningError`` when the configuration is wrong, or has no part that could read the snapshot.
    """
    base = base_of(options)
    with working_in(base):
        config = load_segmentation_config(options.config)
        changes: dict[str, Any] = {"steps": options.steps, "minutes": options.minutes, "device": options.device}
        training = config.training.model_copy(update={name: value for name, value in changes.items() if value is not None})
        config, snapshots = _with_snapshot(config, options.dataset, options.snapshot)
        if options.weights is not None:
            config = config.model_copy(update={"network": config.network.model_copy(update={"weights": Path(options.weights)})})
    _refuse_uneven_batches(training, options)
    return config.model_copy(update={"training": training}), snapshots


def _refuse_uneven_batches(training: TrainingSettings, options: TrainOptions) -> None:
    """As the ranks would, but before any is started."""
    parts = training.accumulate * (options.workers if options.on_ray else 1)
    if training.batch_size % parts:
        raise LearningError(
            "a batch is divided equally among the workers",
            where="field training.batch_size",
            found=training.batch_size,
            allowed=f"a multiple of {parts}",
            fix="another batch_size, or other --workers",
        )


def _with_snapshot(
    config: SegmentationConfig, dataset: str | None, snapshot: str | None
) -> tuple[SegmentationConfig, dict[str, str]]:
    if snapshot is None:
        return config, {}
    chosen: dict[str, str] = {}

    def follow(part: Any) -> Any:
        if part.dataset is None or part.snapshot is not None or (dataset is not None and _place(part.dataset) != _place(dataset)):
            return part
        if part.dataset not in chosen:
            chosen[part.dataset] = _newest(part.dataset) if snapshot == NEWEST else snapshot
        return part.model_copy(update={"snapshot": chosen[part.dataset]})

    sources = tuple(follow(part) for part in config.sources)
    changed = config.model_copy(update={"sources": sources, "validation": tuple(follow(part) for part in config.validation)})
    if sources == config.sources:
        raise LearningError(
            "nothing of the configuration trains on the snapshot",
            found=[f"{part.dataset} (snapshot {part.snapshot})" for part in config.sources if part.dataset] or "no dataset",
            allowed=f"a source with `dataset: {dataset or '...'}` and without a snapshot of its own",
        )
    return changed, chosen


def _place(dataset: str) -> str:
    return dataset.rstrip("/") if "://" in dataset else os.path.realpath(Path(dataset).expanduser())


def _newest(dataset: str) -> str:
    snapshots = list_snapshots(Dataset.open(dataset).storage)
    if not snapshots:
        raise LearningError("the dataset has no snapshot", where=dataset, fix="make one: `ctmr snapshot create`")
    return snapshots[-1].name
