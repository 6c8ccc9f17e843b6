"""Sampling steps on MONAI's rectified-flow and DDPM schedulers."""

from __future__ import annotations

import copy
from typing import Any, Protocol

import numpy as np
import torch
from monai.networks.schedulers import DDPMScheduler, RFlowScheduler
from monai.networks.schedulers.rectified_flow import timestep_transform

from ctmr_core.engines.maisi.behaviour import Behaviour
from ctmr_core.errors import EngineError


class Sampler(Protocol):
    """Which timesteps the network sees, and how a latent moves from one to the next."""

    timesteps: list[float]

    def step(self, index: int, output: torch.Tensor, latent: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """The latent after step ``index``, given the network's output for ``timesteps[index]``."""
        ...


def make_sampler(scheduler: Any, steps: int, latent_size: tuple[int, ...], switches: Behaviour) -> Sampler:
    """The sampler of ``steps`` steps for latents of ``latent_size`` (x, y, z)."""
    most = scheduler.num_train_timesteps
    if isinstance(steps, bool) or not isinstance(steps, (int, np.integer)) or not 1 <= steps <= most:
        raise EngineError("impossible number of sampling steps", found=steps, allowed=f"1 to {most}")
    if isinstance(scheduler, RFlowScheduler):
        if switches.half_timesteps and switches.truncated_timesteps:
            return ReferenceFlow(scheduler, int(steps), latent_size)
        return ExactFlow(scheduler, int(steps), latent_size)
    if isinstance(scheduler, DDPMScheduler):
        return Ddpm(scheduler, int(steps), switches)
    raise EngineError("no sampler for this scheduler", found=type(scheduler).__name__, allowed="RFlowScheduler, DDPMScheduler")


class ReferenceFlow:
    """Rectified flow as the reference does it: float16 timesteps, the end of each step cut to an integer."""

    def __init__(self, scheduler: RFlowScheduler, steps: int, latent_size: tuple[int, ...]) -> None:
        # a tensor, not an integer: the transform of the timesteps is then computed in float32
        scheduler.set_timesteps(steps, input_img_size_numel=torch.prod(torch.tensor(latent_size)))  # type: ignore[arg-type]
        self._scheduler = scheduler
        self._starts = list(scheduler.timesteps)
        self._ends = [*self._starts[1:], torch.zeros((), dtype=scheduler.timesteps.dtype)]
        self.timesteps = [float(t) for t in self._starts]

    @property
    def step_sizes(self) -> list[float]:
        """Length of each step as a share of the whole flow."""
        train = self._scheduler.num_train_timesteps
        return [float(start - int(end)) / train for start, end in zip(self._starts, self._ends, strict=True)]

    def step(self, index: int, output: torch.Tensor, latent: torch.Tensor, generator: torch.Generator) -> torch.Tensor:  # noqa: ARG002
        """Euler step along the predicted velocity."""
        moved: torch.Tensor
        moved, _ = self._scheduler.step(output, self._starts[index], latent, self._ends[index])  # type: ignore[arg-type]
        return moved


class ExactFlow:
    """Rectified flow with exact timesteps: the steps add up to 1."""

    def __init__(self, scheduler: RFlowScheduler, steps: int, latent_size: tuple[int, ...]) -> None:
        train = scheduler.num_train_timesteps
        times = [(1 - i / steps) * train for i in range(steps)]
        if scheduler.use_timestep_transform:
            times = [
                timestep_transform(
                    t,
                    input_img_size_numel=float(np.prod(latent_size)),
                    base_img_size_numel=scheduler.base_img_size_numel,
                    num_train_timesteps=train,
                    spatial_dim=scheduler.spatial_dim,
                )
                for t in times
            ]
        self.timesteps = [float(t) for t in times]
        ends = [*self.timesteps[1:], 0.0]
        self.step_sizes = [(start - end) / train for start, end in zip(self.timesteps, ends, strict=True)]

    def step(self, index: int, output: torch.Tensor, latent: torch.Tensor, generator: torch.Generator) -> torch.Tensor:  # noqa: ARG002
        """Euler step along the predicted velocity; ``latent`` is changed in place where it is on the output's device."""
        return latent.to(output.device).add_(output.to(latent.dtype), alpha=self.step_sizes[index])


class Ddpm:
    """DDPM with fixed small variance.

    Timesteps are evenly spaced and end at 0, as in MONAI 1.6 (1.5 used a grid that starts lower for fewer than all steps).
    """

    def __init__(self, scheduler: DDPMScheduler, steps: int, switches: Behaviour) -> None:
        train = scheduler.num_train_timesteps
        indices = torch.linspace(train - 1, 0, steps).round().long()
        self.timesteps = [float(t) for t in indices]
        self._scheduler = scheduler
        self._indices = indices.tolist()
        if steps < train and not switches.unit_stride_ddpm:
            self._scheduler = _respaced(scheduler, indices)
            self._indices = list(range(steps - 1, -1, -1))

    def mixture(self, index: int) -> tuple[float, float]:
        """Factors of the clean latent and of the noise in the latent before step ``index``."""
        kept = float(self._scheduler.alphas_cumprod[self._indices[index]])
        return kept**0.5, (1 - kept) ** 0.5

    def step(self, index: int, output: torch.Tensor, latent: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Ancestral step; the noise comes from ``generator``, on whose device the step is computed."""
        place = generator.device
        moved: torch.Tensor
        moved, _ = self._scheduler.step(output.to(place), self._indices[index], latent.to(place), generator)
        return moved


def _respaced(scheduler: DDPMScheduler, indices: torch.Tensor) -> DDPMScheduler:
    """A scheduler over a part of the timesteps (Nichol and Dhariwal 2021, section 4): betas of the wider steps."""
    kept = scheduler.alphas_cumprod.double()[indices.flip(0)]
    before = torch.cat((torch.ones(1, dtype=torch.float64), kept[:-1]))
    respaced = copy.copy(scheduler)
    respaced.num_train_timesteps = len(indices)
    respaced.betas = (1 - kept / before).float()
    respaced.alphas = (kept / before).float()
    respaced.alphas_cumprod = kept.float()
    return respaced
