"""A training from its configuration to a models folder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ctmr_core.learning.maisi.base import refuse_folder, write_models
from ctmr_core.learning.maisi.settings import AutoencoderConfig, ControlNetConfig, DiffusionConfig
from ctmr_core.learning.training import Report, fit, load_checkpoint
from ctmr_core.learning.training.ranks import barrier, rank

TrainingConfig = AutoencoderConfig | DiffusionConfig | ControlNetConfig


@dataclass(frozen=True)
class Trained:
    """How a training ended. reason, step, scores: as ``training.FitResult``. file: the weights in the released format, of the
    best checkpoint by validation (``used_step``), or of the last one without validation; ``folder`` is a models folder.
    """

    folder: str
    file: str
    reason: str
    step: int
    used_step: int
    scores: dict[str, float]
    best_score: float | None

    @property
    def finished(self) -> bool:
        return self.reason != "stopped"

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


def train(
    config: TrainingConfig,
    out: Path | str,
    *,
    resume: bool = True,
    should_stop: Callable[[], bool] | None = None,
    on_report: Callable[[Report], None] | None = None,
) -> Trained:
    """Train as ``config`` says in folder ``out``, which becomes a models folder of the variant; goes on where it was stopped.

    Engines and ``ctmr models`` take that folder as they take NVIDIA's weights. Released weights are never overwritten. With
    several ranks (``torch.distributed`` initialised) every rank calls this with a folder they share. Raises ``LearningError``
    and ``EngineError`` for what can't be trained, before anything is written.
    """
    out = Path(out)
    task = _task_of(config)
    refuse_folder(task.models, task.network, out)
    result = fit(task, config.training, out, seed=config.seed, resume=resume, should_stop=should_stop, on_report=on_report)
    used = load_checkpoint(result.best or result.last)
    path = out / "models" / task.models.variant.files[task.network]
    if rank() == 0:
        loss = used.scores.get("loss", float("nan"))
        facts = {
            "task": task.name,
            "start": config.start,
            "steps": used.step,
            "scores": used.scores,
            "configuration": config.model_dump(mode="json"),
            **used.identity,
            **used.records,
        }
        write_models(task.models, task.network, task.content(used.weights, used.step, loss), out, facts, origins=task.origins)
    barrier()
    return Trained(str(out), str(path), result.reason, result.step, used.step, dict(result.scores), result.best_score)


def _task_of(config: TrainingConfig) -> Any:
    if isinstance(config, AutoencoderConfig):
        from ctmr_core.learning.maisi.autoencoder import AutoencoderTask

        return AutoencoderTask(config)
    if isinstance(config, ControlNetConfig):
        from ctmr_core.learning.maisi.controlnet import ControlNetTask

        return ControlNetTask(config)
    from ctmr_core.learning.maisi.diffusion import DiffusionTask

    return DiffusionTask(config)
