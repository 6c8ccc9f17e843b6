"""How to train, whatever is trained: the part of a training configuration that every task shares."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from ctmr_core.cases.distributions import Strict

Count = Annotated[int, Field(strict=True, ge=1)]
Many = Annotated[int, Field(strict=True, ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class OptimizerSettings(Strict):
    """An optimizer of PyTorch. betas: of Adam and AdamW; momentum: of SGD, which is Nesterov's where it is above 0."""

    name: Literal["adamw", "adam", "sgd"] = "adamw"
    learning_rate: Positive = 1e-3
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e-5
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    momentum: Fraction = 0.99


class ScheduleSettings(Strict):
    """The learning rate over the steps: linear warm-up, then ``constant``, ``cosine``, or ``polynomial`` with exponent ``power``.

    final: share of the learning rate that is left at the last step.
    """

    name: Literal["constant", "cosine", "polynomial"] = "cosine"
    warmup: Many = 0
    final: Fraction = 0.01
    power: Positive = 0.9

    def factor(self, step: int, steps: int) -> float:
        """What the learning rate is multiplied with in step ``step`` (from 0) of ``steps``."""
        if step < self.warmup:
            return (step + 1) / (self.warmup + 1)
        progress = min(1.0, (step - self.warmup) / max(1, steps - self.warmup))
        shapes = {
            "constant": 1.0,
            "cosine": (1 + math.cos(math.pi * progress)) / 2,
            "polynomial": (1 - progress) ** self.power,
        }
        return 1.0 if self.name == "constant" else self.final + (1 - self.final) * shapes[self.name]


class LoggingSettings(Strict):
    """every: steps between two lines of ``metrics.jsonl`` (means over these steps). tensorboard: event files as well."""

    every: Count = 10
    tensorboard: bool = True


class TrainingSettings(Strict):
    """Steps, optimizer, precision and rhythm of a training.

    steps: updates of the weights. minutes: stop earlier after so many minutes of training, over all resumed parts.
    batch_size: items an update is computed from, over all ranks; accumulate: parts it is split into to save memory.
    epoch: items between two shuffles of a loader; workers: processes that load, on every rank.
    clip_norm: gradients are scaled down to this norm. ema: decay of an exponential moving average of the weights, which is then
    what is validated and kept. precision: ``auto`` is bf16 where the GPU has it, else fp16 with loss scaling, float32 on a CPU.
    nonfinite: a loss or gradient that is not finite stops the training, or its step is skipped (ten in a row stop it).
    validate_every, checkpoint_every: steps; validation also runs at the end, 0 only there.
    """

    steps: Count = 1000
    minutes: Positive | None = None
    batch_size: Count = 2
    accumulate: Count = 1
    epoch: Count = 1000
    workers: Many = 2
    optimizer: OptimizerSettings = OptimizerSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    clip_norm: Positive | None = 12.0
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    precision: Literal["auto", "float32", "bf16", "fp16"] = "auto"
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"
    nonfinite: Literal["stop", "skip"] = "stop"
    validate_every: Many = 500
    checkpoint_every: Count = 500
    logging: LoggingSettings = LoggingSettings()
