"""Noised latents and what the networks should make of them, on MONAI's schedulers; and modality codes made vaguer."""

from __future__ import annotations

from typing import Any

import torch
from monai.networks.schedulers import DDPMScheduler, RFlowScheduler

from ctmr_core.errors import LearningError

UNKNOWN, CT, MR, FIRST_DETAILED_CT, LAST_CT, FIRST_DETAILED_MR = 0, 1, 8, 2, 7, 9


def random_times(scheduler: Any, latents: torch.Tensor) -> torch.Tensor:
    """One timestep per latent [B,4,x,y,z], drawn by PyTorch's global generator; rectified flow: float, shifted by the size."""
    if isinstance(scheduler, RFlowScheduler):
        times: torch.Tensor = scheduler.sample_timesteps(latents)
        return times
    return torch.randint(0, scheduler.num_train_timesteps, (latents.shape[0],), device=latents.device).long()


def spread_times(scheduler: Any, latents: torch.Tensor, count: int) -> list[torch.Tensor]:
    """``count`` noise levels from low to high, the same every time: the middles of equal shares of all timesteps, unshifted."""
    total = scheduler.num_train_timesteps
    levels = [(number + 0.5) / count * total for number in range(count)]
    whole = isinstance(scheduler, DDPMScheduler)
    return [torch.full((latents.shape[0],), int(level) if whole else level, device=latents.device) for level in levels]


def noised(scheduler: Any, latents: torch.Tensor, noise: torch.Tensor, times: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents with noise, and the target: the velocity (latent - noise) of rectified flow, the noise of DDPM."""
    mixed: torch.Tensor = scheduler.add_noise(original_samples=latents, noise=noise, timesteps=times)
    if isinstance(scheduler, RFlowScheduler):
        return mixed, latents - noise
    kind = str(getattr(scheduler, "prediction_type", "epsilon"))
    if kind != "epsilon":
        raise LearningError("this kind of prediction is not trained here", found=kind, allowed="epsilon")
    return mixed, noise


def noise_like(latents: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Standard normal noise, drawn on the CPU so that a seed means the same on every device."""
    return torch.randn(latents.shape, generator=rng).to(latents.device)


def augmented_codes(codes: torch.Tensor, share: float, rng: torch.Generator) -> torch.Tensor:
    """Modality codes int64 [B] of which some lose detail, so that the networks know the vague ones, too.

    With probability ``share`` kinds of CT (2 to 7) become plain CT, likewise kinds of MR (9 and more) plain MR, and then any code
    unknown (0), the unconditional class of guidance (NV-Generate-CTMR, ``scripts/diff_model_train.py``).
    """
    draws = torch.rand((3, len(codes)), generator=rng).to(codes.device) < share
    detailed_ct = (codes >= FIRST_DETAILED_CT) & (codes <= LAST_CT)
    codes = torch.where(draws[0] & detailed_ct, CT, codes)
    codes = torch.where(draws[1] & (codes >= FIRST_DETAILED_MR), MR, codes)
    return torch.where(draws[2], UNKNOWN, codes)


def network_inputs(batch: dict[str, Any], network: torch.nn.Module, codes: torch.Tensor) -> dict[str, Any]:
    """What the diffusion U-Net is told: modality, spacing and regions, as far as it takes them. network: unwrapped."""
    inputs: dict[str, Any] = {}
    if getattr(network, "num_class_embeds", None) is not None:
        inputs["class_labels"] = codes
    if getattr(network, "include_spacing_input", False):
        inputs["spacing_tensor"] = batch["spacing"]
    if getattr(network, "include_top_region_index_input", False):
        inputs["top_region_index_tensor"] = batch["top_region"]
    if getattr(network, "include_bottom_region_index_input", False):
        inputs["bottom_region_index_tensor"] = batch["bottom_region"]
    return inputs
