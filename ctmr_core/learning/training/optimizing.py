"""Optimizer, precision and averaging of one player's modules."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel

from ctmr_core.errors import LearningError
from ctmr_core.learning.training.settings import OptimizerSettings, TrainingSettings

_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """The number format of the forward pass. ``auto``: bf16 where the GPU computes in it, else fp16; float32 on a CPU.

    On a CPU bf16 has to be asked for: with AMX it is about 2.8 times as quick, but strided convolutions to a last axis of one
    voxel give random values there (https://github.com/pytorch/pytorch/issues/169688, PyTorch 2.13).
    """

    def __init__(self, asked: str, device: torch.device) -> None:
        self.device = device
        if asked == "auto":
            asked = "float32" if device.type != "cuda" else "bf16" if torch.cuda.is_bf16_supported() else "fp16"
        if asked == "fp16" and device.type != "cuda":
            raise LearningError("fp16 needs a GPU", where="field precision", found=asked, allowed="float32, bf16 on a CPU")
        self.name = asked
        self.scales = asked == "fp16"

    def autocast(self) -> AbstractContextManager[Any]:
        if self.name == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=_TYPES[self.name])


class Player:
    """The optimizer of some modules, with clipping and, in fp16, loss scaling."""

    def __init__(self, name: str, modules: Sequence[torch.nn.Module], settings: TrainingSettings, precision: Precision) -> None:
        self.name = name
        self._parameters = [one for module in modules for one in module.parameters() if one.requires_grad]
        if not self._parameters:
            raise LearningError("there is nothing to train", where=f"player {name}", fix="unfreeze a module")
        self._base = settings.optimizer.learning_rate
        self._clip = settings.clip_norm if settings.clip_norm is not None else float("inf")
        self._optimizer = _optimizer(self._parameters, settings.optimizer)
        self._scaler = torch.amp.GradScaler(precision.device.type, enabled=precision.scales)

    @property
    def learning_rate(self) -> float:
        return float(self._optimizer.param_groups[0]["lr"])

    def begin(self, factor: float) -> None:
        """No gradients, and the learning rate of this step."""
        self._optimizer.zero_grad(set_to_none=True)
        for group in self._optimizer.param_groups:
            group["lr"] = self._base * factor

    def backward(self, loss: torch.Tensor) -> None:
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def finish(self, *, skip: bool) -> bool:
        """Update the weights; False, and no update, where the gradient is not finite (loss scaling deals with that itself)."""
        if skip:
            return False
        self._scaler.unscale_(self._optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, self._clip)
        if not self._scaler.is_enabled() and not bool(torch.isfinite(norm)):
            return False
        self._scaler.step(self._optimizer)
        self._scaler.update()
        return True

    def state_dict(self) -> dict[str, Any]:
        return {"optimizer": self._optimizer.state_dict(), "scaler": self._scaler.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._optimizer.load_state_dict(state["optimizer"])
        if state["scaler"]:
            self._scaler.load_state_dict(state["scaler"])


class Average:
    """Exponential moving average of a module's weights; its buffers are copied.

    The decay is min(decay, (1 + n) / (10 + n)) after n updates, as in TensorFlow's ``ExponentialMovingAverage``, so that the
    first weights are soon forgotten.
    """

    def __init__(self, module: torch.nn.Module, decay: float) -> None:
        def average(mean: Iterable[torch.Tensor], current: Iterable[torch.Tensor], updates: Any) -> None:
            number = int(updates)
            torch._foreach_lerp_(list(mean), list(current), 1 - min(decay, (1 + number) / (10 + number)))

        self._source = module
        self._model = AveragedModel(module, multi_avg_fn=average)

    @property
    def module(self) -> torch.nn.Module:
        """The averaged module."""
        averaged: torch.nn.Module = self._model.module
        return averaged

    def update(self) -> None:
        self._model.update_parameters(self._source)

    def state_dict(self) -> dict[str, Any]:
        return dict(self._model.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._model.load_state_dict(state)


def _optimizer(parameters: list[torch.nn.Parameter], settings: OptimizerSettings) -> torch.optim.Optimizer:
    rate, decay = settings.learning_rate, settings.weight_decay
    if settings.name == "sgd":
        return torch.optim.SGD(
            parameters, lr=rate, momentum=settings.momentum, nesterov=settings.momentum > 0, weight_decay=decay
        )
    kind = torch.optim.AdamW if settings.name == "adamw" else torch.optim.Adam
    return kind(parameters, lr=rate, betas=settings.betas, weight_decay=decay)
