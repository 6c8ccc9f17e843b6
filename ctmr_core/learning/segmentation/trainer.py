"""Training a segmentation network from a configuration."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from ctmr_core.learning.segmentation.config import SegmentationConfig, load_segmentation_config
from ctmr_core.learning.segmentation.task import VALIDATION, SegmentationTask
from ctmr_core.learning.training import ranks
from ctmr_core.learning.training.loop import Report, fit

CONFIG = "config.yaml"
SUMMARY = "summary.json"


@dataclass(frozen=True)
class TrainingSummary:
    """How a training ended; as JSON in ``summary.json`` of its folder.

    reason: ``finished``, ``out of time`` or ``stopped`` (run it again to go on). steps: updates done in all. scores: of the last
    validation, ``<set>/dice`` and so on. best_score, best_step: of the checkpoint ``best``. table: Markdown table of the last
    validation. sources: what was trained on.
    """

    folder: str
    reason: str
    steps: int
    scores: dict[str, float]
    best_by: str | None
    best_score: float | None
    best_step: int | None
    last: str
    best: str | None
    table: str | None
    sources: list[dict[str, Any]]

    @property
    def finished(self) -> bool:
        return self.reason != "stopped"

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


def train(
    config: SegmentationConfig | Path | str,
    out: Path | str,
    *,
    resume: bool = True,
    should_stop: Callable[[], bool] | None = None,
    on_report: Callable[[Report], None] | None = None,
) -> TrainingSummary:
    """Train as ``config`` says (also the path of a YAML file), in folder ``out``; goes on where a training there was stopped.

    Writes ``checkpoints/last.pt`` and ``best.pt``, ``metrics.jsonl``, ``tensorboard/``, ``validation/step-*`` (Parquet, CSV,
    Markdown), ``config.yaml`` and ``summary.json``. should_stop, on_report: see ``training.fit``. With several ranks
    (``torch.distributed`` initialised) every rank calls this; ``out`` is a folder they share.

    Raises ``LearningError`` for what can't be trained, before anything is written.
    """
    if not isinstance(config, SegmentationConfig):
        config = load_segmentation_config(config)
    out = Path(out)
    task = SegmentationTask(config)
    result = fit(task, config.training, out, seed=config.seed, resume=resume, should_stop=should_stop, on_report=on_report)
    tables = sorted((out / VALIDATION).glob("step-*.md"))
    summary = TrainingSummary(
        folder=str(out),
        reason=result.reason,
        steps=result.step,
        scores=result.scores,
        best_by=task.best_by,
        best_score=result.best_score,
        best_step=result.best_step,
        last=str(result.last),
        best=None if result.best is None else str(result.best),
        table=str(tables[-1]) if tables else None,
        sources=list(task.records["sources"]),
    )
    if ranks.rank() == 0:
        (out / SUMMARY).write_text(json.dumps(summary.as_dict(), indent=1) + "\n", encoding="utf-8")
        writer = YAML()
        writer.width = 130
        with (out / CONFIG).open("w", encoding="utf-8") as stream:
            writer.dump(config.model_dump(mode="json"), stream)
    return summary
