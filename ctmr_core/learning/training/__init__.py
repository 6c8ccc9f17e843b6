"""The training loop, whatever is trained: steps, mixed precision, checkpoints, resuming, several ranks, logs."""

from ctmr_core.learning.training.checkpoints import Checkpoint, load_checkpoint, load_weights
from ctmr_core.learning.training.config_file import load_config, parse_config
from ctmr_core.learning.training.loop import FitResult, Report, fit
from ctmr_core.learning.training.settings import (
    LoggingSettings,
    OptimizerSettings,
    ScheduleSettings,
    TrainingSettings,
)
from ctmr_core.learning.training.task import Batches, Step, Task

__all__ = [
    "Batches",
    "Checkpoint",
    "FitResult",
    "LoggingSettings",
    "OptimizerSettings",
    "Report",
    "ScheduleSettings",
    "Step",
    "Task",
    "TrainingSettings",
    "fit",
    "load_checkpoint",
    "load_config",
    "load_weights",
    "parse_config",
]
