"""The sampling loop: noise -> latent, with ControlNet and classifier-free guidance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import torch

from ctmr_core.engines.maisi.conditioning import Conditioning
from ctmr_core.engines.maisi.models import MaisiModels
from ctmr_core.engines.maisi.schedulers import Sampler
from ctmr_core.errors import EngineError

Predictor = Callable[[torch.Tensor, float], torch.Tensor]


def check_guidance(guidance: float) -> float:
    """A classifier-free guidance scale: 0 (none) or more, or an ``EngineError``."""
    scale = float(guidance)
    if not 0 <= scale < float("inf"):
        raise EngineError("impossible guidance scale", found=guidance, allowed="0 (off) or more")
    return scale


def denoise(
    predict: Predictor, sampler: Sampler, latent: torch.Tensor, generator: torch.Generator, device: torch.device
) -> torch.Tensor:
    """Run all steps of the sampler. latent [1,4,x,y,z] is noise and may be changed in place; the result is on ``device``."""
    for index, timestep in enumerate(sampler.timesteps):
        output = predict(latent.to(device), timestep)
        latent = sampler.step(index, output, latent, generator)
    return latent.to(device)


def image_predictor(models: MaisiModels, conditioning: Conditioning) -> Predictor:
    """The diffusion U-Net under one conditioning, with the ControlNet where there is a mask."""

    def predict(latent: torch.Tensor, timestep: float) -> torch.Tensor:
        return _predict(models, conditioning, latent, timestep)

    return predict


def guided_predictor(
    models: MaisiModels, conditional: Conditioning, unconditional: Conditioning, guidance: float, *, paired: bool
) -> Predictor:
    """Classifier-free guidance: unconditional + guidance x (conditional - unconditional).

    paired: both halves in one batch of two (conditional first), otherwise one after another.
    """
    both = _batched(conditional, unconditional) if paired else None

    def predict(latent: torch.Tensor, timestep: float) -> torch.Tensor:
        if both is not None:
            with_condition, without = _predict(models, both, torch.cat((latent, latent)), timestep).chunk(2)
        else:
            with_condition = _predict(models, conditional, latent, timestep)
            without = _predict(models, unconditional, latent, timestep)
        return without + guidance * (with_condition - without)

    return predict


def _batched(first: Conditioning, second: Conditioning) -> Conditioning:
    def joined(name: str) -> torch.Tensor | None:
        one, two = getattr(first, name), getattr(second, name)
        return None if one is None else torch.cat((one, two))

    return Conditioning(**{entry.name: joined(entry.name) for entry in fields(Conditioning)})


def _predict(models: MaisiModels, conditioning: Conditioning, latent: torch.Tensor, timestep: float) -> torch.Tensor:
    times = torch.full((latent.shape[0],), timestep, dtype=torch.float32, device=latent.device)
    inputs: dict[str, Any] = {"x": latent, "timesteps": times}
    if conditioning.modality is not None:
        inputs["class_labels"] = conditioning.modality
    extra: dict[str, Any] = {}
    with models.autocast():
        if conditioning.mask is not None:
            down, middle = models.controlnet.network(**inputs, controlnet_cond=conditioning.mask)
            extra = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
        if conditioning.spacing is not None:
            extra["spacing_tensor"] = conditioning.spacing
        if conditioning.top_region is not None:
            extra["top_region_index_tensor"] = conditioning.top_region
            extra["bottom_region_index_tensor"] = conditioning.bottom_region
        output: torch.Tensor = models.diffusion_unet(**inputs, **extra)
    return output
