"""Training the image autoencoder on patches, against a discriminator of patches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from monai.inferers import sliding_window_inference
from monai.losses import PatchAdversarialLoss
from monai.networks.nets import PatchDiscriminator
from torch.nn import functional

from ctmr_core.engines.maisi.variants import AUTOENCODER
from ctmr_core.errors import LearningError
from ctmr_core.learning.maisi.base import base_models, trainable
from ctmr_core.learning.maisi.batches import SizedBatches, to_device
from ctmr_core.learning.maisi.losses import latent_divergence
from ctmr_core.learning.maisi.patch_items import PatchItems, prepared
from ctmr_core.learning.maisi.settings import AutoencoderConfig
from ctmr_core.learning.maisi.sources import Source, sources_of
from ctmr_core.learning.training import Step, Task
from ctmr_core.learning.training.ranks import gathered, rank, ranks
from ctmr_core.learning.training.task import Loss, Networks

_SMALLEST_PATCH = 24
"""Along each axis: three halvings and a kernel of 4 must leave the discriminator more than one voxel to normalise."""


class AutoencoderTask(Task):
    """Reconstruction, divergence of the latent, perceptual and adversarial loss; whole held-out images are scored.

    Latents of a trained autoencoder are not those of the old one: make them again and train the diffusion U-Net on them. Raises
    ``LearningError`` for patches the network can't halve evenly and where nothing is held out.
    """

    name = "maisi autoencoder"
    best_by: str | None = "loss"
    higher_is_better = False
    network = AUTOENCODER
    origins: tuple[str, ...] = ()

    def __init__(self, config: AutoencoderConfig) -> None:
        self.config = config
        self.models = base_models(config)
        stride = self.models.latent_stride
        if any(n % stride for n in (*config.patch, *config.validation_window)):
            found = (config.patch, config.validation_window)
            raise LearningError(
                "the autoencoder can't halve patches evenly", found=found, allowed=f"multiples of {stride} voxels"
            )
        if config.loss.adversarial > 0 and min(config.patch) < _SMALLEST_PATCH:
            allowed = f"{_SMALLEST_PATCH} voxels or more"
            raise LearningError(
                "the discriminator needs larger patches", where="field patch", found=config.patch, allowed=allowed
            )
        sources = sources_of(config.images, config.folds)
        self.held_out = [one for one in sources if config.validation_fold is not None and one.fold == config.validation_fold]
        self.training = [one for one in sources if one not in self.held_out]
        if not self.training or (config.validation_fold is not None and not self.held_out):
            raise LearningError(
                "no images to train on" if not self.training else "no images are held out",
                where="field validation_fold",
                found=config.validation_fold,
                allowed=sorted({one.fold for one in sources}),
                fix="name a fold that some images are in, or none (`validation_fold: null`); split val of a dataset is fold 0",
            )
        self.batches: SizedBatches = SizedBatches(PatchItems(self.training, config), config.training, config.seed)
        self.modules = {"autoencoder": trainable(self.models, AUTOENCODER, seed=config.seed, released=config.start == "released")}
        self._adversarial = PatchAdversarialLoss(criterion="least_squares")
        self._perceptual = _perceptual_loss() if config.loss.perceptual > 0 else None
        if config.loss.adversarial > 0:
            self.modules["discriminator"] = _discriminator(config)
        if self._perceptual is not None:
            self.modules["perceptual"] = self._perceptual
        self._made: list[torch.Tensor] = []
        self.origins = (AUTOENCODER,) if config.start == "released" else ()
        if config.validation_fold is None:
            self.best_by = None

    @property
    def players(self) -> Mapping[str, tuple[str, ...]]:
        return {name: (name,) for name in ("autoencoder", "discriminator") if name in self.modules}

    @property
    def identity(self) -> Mapping[str, Any]:
        released = self.config.start == "released"
        return {
            "variant": self.config.variant,
            "mode": self.config.mode,
            "start": self.config.start,
            "patch": list(self.config.patch),
            "loss": self.config.loss.model_dump(),
            "base": self.models.digests([AUTOENCODER]) if released else {},
        }

    @property
    def records(self) -> Mapping[str, Any]:
        both = [*self.training, *self.held_out]
        return {
            "images": self.config.images.dataset or str(self.config.images.list),
            "items": len(self.training),
            "held_out": len(self.held_out),
            "licences_of_data": sorted({licence for source in both for licence in source.licences}),
        }

    def loss(self, batch: Any, networks: Networks, step: Step) -> Loss:
        image = to_device(batch, step.device)["image"]
        if step.player == "discriminator":
            return self._told_apart(image, self._made.pop(0), networks), {}
        made, mean, spread = networks["autoencoder"](image)
        weights = self.config.loss
        parts = {"reconstruction": self._difference(made, image), "kl": latent_divergence(mean.float(), spread.float())}
        total = parts["reconstruction"] + weights.kl * parts["kl"]
        if self._perceptual is not None:
            parts["perceptual"] = networks["perceptual"](made.float(), image.float())
            total = total + weights.perceptual * parts["perceptual"]
        if weights.adversarial > 0:
            verdict = networks["discriminator"](made.contiguous().float())[-1]
            parts["adversarial"] = self._adversarial(verdict, target_is_real=True, for_discriminator=False)
            total = total + weights.adversarial * parts["adversarial"]
            self._made.append(made.detach())
        parts["latent_scale"] = 1 / mean.detach().float().std()
        return total, parts

    def validate(self, networks: Networks, step: Step) -> Mapping[str, float]:
        mine = self.held_out[: self.config.validation_items][rank() :: ranks()]
        found = gathered([self._scores(networks["autoencoder"], source, step.device) for source in mine])
        return {name: sum(row[name] for row in found) / len(found) for name in (found[0] if found else {})}

    def content(self, weights: Mapping[str, Any], step: int, loss: float) -> dict[str, Any]:
        """The checkpoint in the released format: the weights alone."""
        del step, loss
        return dict(weights["autoencoder"])

    def _difference(self, made: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
        measure = functional.l1_loss if self.config.loss.reconstruction == "l1" else functional.mse_loss
        return measure(made.float(), image.float())

    def _told_apart(self, image: torch.Tensor, made: torch.Tensor, networks: Networks) -> torch.Tensor:
        fake = networks["discriminator"](made.contiguous().float())[-1]
        real = networks["discriminator"](image.contiguous().float())[-1]
        losses = [
            self._adversarial(verdict, target_is_real=is_real, for_discriminator=True)
            for verdict, is_real in ((fake, False), (real, True))
        ]
        total: torch.Tensor = 0.5 * (losses[0] + losses[1])
        return total

    def _scores(self, autoencoder: torch.nn.Module, source: Source, device: torch.device) -> dict[str, float]:
        """Of one whole image, reconstructed from the mean of its latent, window by window."""
        from monai.transforms import DivisiblePad

        volume = torch.as_tensor(DivisiblePad(self.models.latent_stride)(prepared(source, self.config)))[None]
        divergences, spreads = [], []

        def reconstructed(window: torch.Tensor) -> torch.Tensor:
            mean, spread = autoencoder.encode(window)  # type: ignore[operator]
            divergences.append(float(latent_divergence(mean, spread)))
            spreads.append(float(mean.std()))
            made: torch.Tensor = autoencoder.decode(mean)  # type: ignore[operator]
            return made

        roi = [min(w, n) for w, n in zip(self.config.validation_window, volume.shape[2:], strict=True)]
        made: Any = sliding_window_inference(
            volume, roi, 1, reconstructed, overlap=0, sw_device=device, device=torch.device("cpu")
        )
        reconstruction = float(self._difference(made, volume))
        kl = sum(divergences) / len(divergences)
        error = float(functional.mse_loss(made, volume))
        return {
            "loss": reconstruction + self.config.loss.kl * kl,
            "reconstruction": reconstruction,
            "kl": kl,
            "psnr": -10 * float(torch.log10(torch.tensor(max(error, 1e-12)))),
            "latent_scale": len(spreads) / max(sum(spreads), 1e-12),
        }


def _discriminator(config: AutoencoderConfig) -> torch.nn.Module:
    """MONAI's discriminator of patches with the settings of NVIDIA's ``train_vae_tutorial.ipynb``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed + 1)
        network: torch.nn.Module = PatchDiscriminator(
            spatial_dims=3,
            num_layers_d=3,
            channels=config.discriminator_channels,
            in_channels=1,
            out_channels=1,
            norm="INSTANCE",
        )
    return network


def _perceptual_loss() -> torch.nn.Module:
    """LPIPS of a SqueezeNet on slices; its weights are fetched by torchvision when it is first made."""
    try:
        from monai.losses import PerceptualLoss

        network: torch.nn.Module = PerceptualLoss(spatial_dims=3, network_type="squeeze", is_fake_3d=True, fake_3d_ratio=0.2)
    except (ImportError, OSError) as error:
        raise LearningError(
            "the perceptual loss can not be made",
            where="field loss.perceptual",
            found=str(error),
            fix="`pip install lpips` and let torchvision fetch SqueezeNet once, or set it to 0",
        ) from error
    return network
