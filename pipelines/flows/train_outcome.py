"""How a training ended, for who called and for Prefect."""

from __future__ import annotations

import csv
from pathlib import Path

from ctmr_core.learning.segmentation.config import SegmentationConfig
from ctmr_core.learning.segmentation.trainer import TrainingSummary
from ctmr_core.learning.training.board import EVENTS
from pipelines.flows.train_options import TrainOptions, TrainOutcome


def outcome_of(
    options: TrainOptions, config: SegmentationConfig, snapshots: dict[str, str], summary: TrainingSummary, seconds: float
) -> TrainOutcome:
    """The outcome as plain data. seconds: of this run."""
    folder = Path(summary.folder)
    return TrainOutcome(
        config=options.config,
        folder=summary.folder,
        reason=summary.reason,
        step=summary.steps,
        steps=config.training.steps,
        best_by=summary.best_by,
        score=summary.best_score,
        best_step=summary.best_step,
        scores=summary.scores,
        table=read_table(summary.table),
        last=summary.last,
        best=summary.best,
        tensorboard=str(folder / EVENTS) if config.training.logging.tensorboard else None,
        workers=options.workers if options.on_ray else 1,
        seconds=round(seconds, 3),
        snapshots=snapshots,
    )


def read_table(markdown: str | None) -> list[dict[str, str]]:
    """The rows of the last validation, by the CSV file beside its Markdown table; none without a validation."""
    if markdown is None:
        return []
    with Path(markdown).with_suffix(".csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def markdown_of(outcome: TrainOutcome, table: str | None) -> str:
    """The outcome as a page of Markdown. table: the file with the last validation's table."""
    best = "" if outcome.score is None else f" Best {outcome.best_by}: {outcome.score:.4f} at step {outcome.best_step}."
    lines = [f"`{outcome.config}`: {outcome.reason} after {outcome.step} of {outcome.steps} steps.{best}", ""]
    lines += [f"* {dataset}: snapshot {name}" for dataset, name in outcome.snapshots.items()]
    lines += [f"* {name}: `{path}`" for name, path in (("last", outcome.last), ("best", outcome.best)) if path]
    if table is not None:
        lines += ["", Path(table).read_text(encoding="utf-8")]
    return "\n".join(lines)
