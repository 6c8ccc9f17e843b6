"""Training the diffusion U-Net on latents."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from ctmr_core.engines.maisi.models import MaisiModels
from ctmr_core.engines.maisi.variants import AUTOENCODER, DIFFUSION_UNET
from ctmr_core.errors import LearningError
from ctmr_core.learning.maisi.base import base_models, trainable
from ctmr_core.learning.maisi.batches import SizedBatches, to_device
from ctmr_core.learning.maisi.latent_files import LatentItem, LatentSet, read_latent, read_latents
from ctmr_core.learning.maisi.latent_items import LatentItems, divided
from ctmr_core.learning.maisi.losses import weighted_l1
from ctmr_core.learning.maisi.noising import (
    augmented_codes,
    network_inputs,
    noise_like,
    noised,
    random_times,
    spread_times,
)
from ctmr_core.learning.maisi.settings import DiffusionConfig
from ctmr_core.learning.training import Step, Task
from ctmr_core.learning.training.ranks import gathered, rank, ranks
from ctmr_core.learning.training.task import Loss, Networks

Places = list[tuple[Path, LatentItem]]


class DiffusionTask(Task):
    """L1 between what the U-Net makes of noised latents and the velocity (rectified flow) or the noise (DDPM).

    Held-out latents are scored with the same noise at the same noise levels every time. Raises ``LearningError`` for latents of
    another autoencoder and for facts the network needs that latents lack.
    """

    name = "maisi diffusion"
    best_by: str | None = "loss"
    higher_is_better = False
    network = DIFFUSION_UNET
    origins: tuple[str, ...] = ()

    def __init__(self, config: DiffusionConfig) -> None:
        self.config = config
        self.models = base_models(config)
        sets = read_latents(config.latents)
        refuse_other_autoencoder(self.models, sets)
        self.training, self.held_out = divided(sets, config.validation_fold)
        refuse_missing_facts(self.models, [*self.training, *self.held_out])
        self.scheduler = self.models.scheduler()
        self.items = LatentItems(self.training)
        self.batches: SizedBatches = SizedBatches(self.items, config.training, config.seed)
        self.scale_factor = self._scale_factor()
        unet = trainable(self.models, DIFFUSION_UNET, seed=config.seed, released=config.start == "released")
        self.modules = {"unet": unet}
        self.origins = (DIFFUSION_UNET,) if config.start == "released" else ()
        if config.validation_fold is None:
            self.best_by = None

    @property
    def identity(self) -> Mapping[str, Any]:
        return {
            "variant": self.config.variant,
            "mode": self.config.mode,
            "start": self.config.start,
            "scale_factor": self.scale_factor,
            "base": self._base,
            "data": data_digest([*self.training, *self.held_out]),
        }

    @cached_property
    def _base(self) -> dict[str, str]:
        return self.models.digests([DIFFUSION_UNET]) if self.config.start == "released" else {}

    @property
    def records(self) -> Mapping[str, Any]:
        return facts_of(self.config.latents, self.training, self.held_out)

    def loss(self, batch: Any, networks: Networks, step: Step) -> Loss:
        batch = to_device(batch, step.device)
        latents = batch["latent"] * self.scale_factor
        codes = augmented_codes(batch["modality"], self.config.label_dropout, step.rng)
        noise = noise_like(latents, step.rng)
        times = random_times(self.scheduler, latents)
        mixed, target = noised(self.scheduler, latents, noise, times)
        inputs = network_inputs(batch, self.modules["unet"], codes)
        output = networks["unet"](x=mixed, timesteps=times, **inputs)
        return weighted_l1(output, target), {}

    def validate(self, networks: Networks, step: Step) -> Mapping[str, float]:
        rows = []
        items = LatentItems(self.held_out[: self.config.validation_items])
        for index in range(rank(), len(items), ranks()):
            batch = to_device(single(items, index), step.device)
            latents = batch["latent"] * self.scale_factor
            noise = noise_like(latents, torch.Generator().manual_seed(index))
            inputs = network_inputs(batch, networks["unet"], batch["modality"])
            for times in spread_times(self.scheduler, latents, self.config.validation_times):
                mixed, target = noised(self.scheduler, latents, noise, times)
                rows.append(float(weighted_l1(networks["unet"](x=mixed, timesteps=times, **inputs), target)))
        found = gathered(rows)
        return {"loss": sum(found) / len(found)} if found else {}

    def content(self, weights: Mapping[str, Any], step: int, loss: float) -> dict[str, Any]:
        """The checkpoint in the released format."""
        return {
            "epoch": step,
            "loss": loss,
            "num_train_timesteps": int(self.scheduler.num_train_timesteps),
            "scale_factor": torch.tensor(self.scale_factor),
            "unet_state_dict": dict(weights["unet"]),
        }

    def _scale_factor(self) -> float:
        """The scale the latents are multiplied with; the reference measures the first batch at every start."""
        asked = self.config.scale_factor
        if self.config.compat:
            return _measured([self.training[index] for _, index in self.batches.plan(0)[0]])
        if isinstance(asked, float | int):
            return float(asked)
        if asked == "keep" and self.config.start == "released":
            return self.models.scale_factor
        count = min(self.config.scale_items, len(self.training))
        return _measured([self.training[number * len(self.training) // count] for number in range(count)])


def _measured(places: Places) -> float:
    """1 / standard deviation over all voxels of some latents."""
    count, total, squares = 0, 0.0, 0.0
    for root, item in places:
        values = read_latent(root / item.image).astype("float64")
        count, total, squares = count + values.size, total + float(values.sum()), squares + float((values**2).sum())
    variance = (squares - total * total / count) / max(count - 1, 1)
    if not variance > 0:
        raise LearningError("the latents are constant", where=str(places[0][0] / places[0][1].image))
    return float(variance**-0.5)


def single(items: LatentItems, index: int) -> dict[str, Any]:
    """One item as a batch."""
    batch: dict[str, Any] = torch.utils.data.default_collate([items[0, index]])
    return batch


def refuse_other_autoencoder(models: MaisiModels, sets: list[LatentSet]) -> None:
    """``LearningError`` for latents that are known to come from another autoencoder than the one images will be decoded with."""
    known = {one.autoencoder: one.root for one in sets if one.autoencoder}
    if not known:
        return
    own = next(iter(models.digests([AUTOENCODER]).values()))
    for digest, root in known.items():
        if digest != own:
            raise LearningError(
                "the latents are of another autoencoder",
                where=str(root),
                found=digest[:16],
                allowed=f"{own[:16]}, that of {models.path(AUTOENCODER)}",
                fix="make them again with `ctmr train latents`",
            )


def refuse_missing_facts(models: MaisiModels, places: Places) -> None:
    """``LearningError`` for latents that do not tell the body region to networks that take it."""
    lacking = [item.image for _, item in places if item.top_region_index is None or item.bottom_region_index is None]
    if models.has_region_input and lacking:
        raise LearningError("latents lack the body region", where=models.variant.name, found=lacking[:8])
    for _, item in places:
        if any(n % (models.size_multiple // models.latent_stride) for n in item.dim):
            raise LearningError(
                "the networks can't halve this latent evenly",
                where=item.image,
                found=item.dim,
                allowed=f"multiples of {models.size_multiple // models.latent_stride}",
            )


def data_digest(places: Places) -> str:
    """Changes whenever other latents are trained on, or others held out."""
    text = "\n".join(f"{item.image} {item.fold} {item.made_of}" for _, item in places)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def facts_of(latents: tuple[Path, ...], training: Places, held_out: Places) -> dict[str, Any]:
    """What was trained on, JSON-able."""
    both = [*training, *held_out]
    return {
        "latents": [str(place) for place in latents],
        "items": len(training),
        "held_out": len(held_out),
        "licences_of_data": sorted({licence for _, item in both for licence in item.licences}),
    }
