"""Training the ControlNet on latents with label maps; the diffusion U-Net is frozen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from ctmr_core.engines.maisi.conditioning import MASK_BITS
from ctmr_core.engines.maisi.variants import CONTROLNET, DIFFUSION_UNET, VARIANTS
from ctmr_core.errors import LearningError
from ctmr_core.learning.maisi.base import base_models, trainable
from ctmr_core.learning.maisi.batches import SizedBatches, to_device
from ctmr_core.learning.maisi.diffusion import data_digest, facts_of, refuse_missing_facts, refuse_other_autoencoder, single
from ctmr_core.learning.maisi.latent_files import read_latents
from ctmr_core.learning.maisi.latent_items import LatentItems, divided
from ctmr_core.learning.maisi.losses import region_contrast, roi_weights, weighted_l1
from ctmr_core.learning.maisi.noising import network_inputs, noise_like, noised, random_times, spread_times
from ctmr_core.learning.maisi.settings import ControlNetConfig
from ctmr_core.learning.training import Step, Task
from ctmr_core.learning.training.ranks import gathered, rank, ranks
from ctmr_core.learning.training.task import Loss, Networks


class ControlNetTask(Task):
    """L1 as of the diffusion U-Net, with heavier tumours, and the region contrastive loss.

    Raises ``LearningError`` for latents without label maps.
    """

    name = "maisi controlnet"
    best_by: str | None = "loss"
    higher_is_better = False
    network = CONTROLNET
    origins: tuple[str, ...] = (DIFFUSION_UNET,)  # from scratch it begins with its weights

    def __init__(self, config: ControlNetConfig) -> None:
        self.config = config
        self.models = base_models(config)
        if CONTROLNET not in self.models.variant.files:
            allowed = [name for name, one in VARIANTS.items() if CONTROLNET in one.files]
            raise LearningError("this variant has no ControlNet", where="field variant", found=config.variant, allowed=allowed)
        sets = read_latents(config.latents)
        refuse_other_autoencoder(self.models, sets)
        self.training, self.held_out = divided(sets, config.validation_fold)
        places = [*self.training, *self.held_out]
        refuse_missing_facts(self.models, places)
        bare = [item.image for _, item in places if item.label is None]
        if bare:
            raise LearningError("latents have no label maps", found=bare[:8], fix="make them with `labels: true`")
        self.scheduler = self.models.scheduler()
        self.scale_factor = self.models.scale_factor
        free = config.compat if config.contrast.weight > 0 else None
        self.items = LatentItems(self.training, labelled=True, tumour_free=free)
        self.batches: SizedBatches = SizedBatches(self.items, config.training, config.seed)
        unet = trainable(self.models, DIFFUSION_UNET, seed=config.seed, released=True)
        controlnet = trainable(self.models, CONTROLNET, seed=config.seed, released=config.start == "released")
        if config.start == "scratch":
            _copy_encoder(controlnet, unet)
        else:
            self.origins = (DIFFUSION_UNET, CONTROLNET)
        self.modules = {"controlnet": controlnet, "unet": unet}
        if config.validation_fold is None:
            self.best_by = None

    @property
    def players(self) -> Mapping[str, tuple[str, ...]]:
        return {"controlnet": ("controlnet",)}

    @property
    def identity(self) -> Mapping[str, Any]:
        networks = [DIFFUSION_UNET, CONTROLNET] if self.config.start == "released" else [DIFFUSION_UNET]
        return {
            "variant": self.config.variant,
            "mode": self.config.mode,
            "start": self.config.start,
            "base": self.models.digests(networks),
            "data": data_digest([*self.training, *self.held_out]),
        }

    @property
    def records(self) -> Mapping[str, Any]:
        return facts_of(self.config.latents, self.training, self.held_out)

    def loss(self, batch: Any, networks: Networks, step: Step) -> Loss:
        batch = to_device(batch, step.device)
        latents = batch["latent"] * self.scale_factor
        noise = noise_like(latents, step.rng)
        times = random_times(self.scheduler, latents)
        mixed, target = noised(self.scheduler, latents, noise, times)
        output = self._predicted(networks, batch, mixed, times, batch["labels"])
        weights = roi_weights(batch["labels"], latents, self.config.roi_labels, self.config.roi_weight)
        total = prediction = weighted_l1(output, target, weights)
        contrast = self.config.contrast
        if contrast.weight == 0:
            return total, {}
        free = self._predicted(networks, batch, mixed, times, batch["tumour_free"])
        reference = target if contrast.background == "target" else output
        within, outside = region_contrast(output, free, reference, batch["changed"], batch["apart"], contrast.delta)
        total = total + contrast.at(step.number) * (within + outside)
        return total, {"prediction": prediction, "tumours": within, "background": outside}

    def validate(self, networks: Networks, step: Step) -> Mapping[str, float]:
        rows = []
        items = LatentItems(self.held_out[: self.config.validation_items], labelled=True)
        for index in range(rank(), len(items), ranks()):
            batch = to_device(single(items, index), step.device)
            latents = batch["latent"] * self.scale_factor
            noise = noise_like(latents, torch.Generator().manual_seed(index))
            for times in spread_times(self.scheduler, latents, self.config.validation_times):
                mixed, target = noised(self.scheduler, latents, noise, times)
                rows.append(float(weighted_l1(self._predicted(networks, batch, mixed, times, batch["labels"]), target)))
        found = gathered(rows)
        return {"loss": sum(found) / len(found)} if found else {}

    def content(self, weights: Mapping[str, Any], step: int, loss: float) -> dict[str, Any]:
        """The checkpoint in the released format."""
        return {"epoch": step, "loss": loss, "controlnet_state_dict": dict(weights["controlnet"])}

    def _predicted(
        self, networks: Networks, batch: dict[str, Any], mixed: torch.Tensor, times: torch.Tensor, labels: torch.Tensor
    ) -> torch.Tensor:
        inputs = network_inputs(batch, self.modules["unet"], batch["modality"])
        codes = {name: value for name, value in inputs.items() if name == "class_labels"}
        down, middle = networks["controlnet"](x=mixed, timesteps=times, controlnet_cond=bit_code(labels), **codes)
        output: torch.Tensor = networks["unet"](
            x=mixed,
            timesteps=times,
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
            **inputs,
        )
        return output


def bit_code(labels: torch.Tensor) -> torch.Tensor:
    """The 8-bit code of label maps uint8 [B,1,X,Y,Z], lowest bit first: float32 [B,8,X,Y,Z]."""
    return torch.cat([(labels >> bit) & 1 for bit in range(MASK_BITS)], dim=1).float()


def _copy_encoder(controlnet: torch.nn.Module, unet: torch.nn.Module) -> None:
    """Give the ControlNet the weights of the U-Net that it has, too."""
    own = controlnet.state_dict()
    shared = {key: value for key, value in unet.state_dict().items() if key in own and own[key].shape == value.shape}
    controlnet.load_state_dict(shared, strict=False)
