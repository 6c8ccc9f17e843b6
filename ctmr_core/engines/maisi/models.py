"""The networks of a variant, loaded when first used."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ctmr_core.engines.maisi.compiling import check_backend, compiled
from ctmr_core.engines.maisi.network_config import NetworkConfig, read_network_config
from ctmr_core.engines.maisi.networks import build_network, build_scheduler
from ctmr_core.engines.maisi.variants import (
    AUTOENCODER,
    CONTROLNET,
    DIFFUSION_UNET,
    MASK_AUTOENCODER,
    MASK_DIFFUSION,
    Variant,
    variant,
)
from ctmr_core.engines.maisi.weights import Checkpoint, file_digest, find_file, load_into, read_checkpoint
from ctmr_core.errors import EngineError

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class ControlNetParts:
    """A ControlNet in two parts, because its conditioning embedding is the same in every step.

    embedding: [1,8,X,Y,Z] mask code -> [1,C,X/4,Y/4,Z/4]. network: the rest, which takes the embedded mask as condition.
    """

    embedding: torch.nn.Module
    network: torch.nn.Module


class MaisiModels:
    """Networks, latent scales and schedulers of one variant; each file is read when first needed and kept.

    Not safe for use by several threads at once.
    """

    def __init__(
        self,
        chosen: Variant,
        root: Path,
        config: NetworkConfig,
        device: torch.device,
        dtype: torch.dtype,
        files: Mapping[str, Path],
        compiler: str | None = None,
    ) -> None:
        self.variant = chosen
        self.root = root
        self.config = config
        self.device = device
        self.dtype = dtype
        self._files = dict(files)
        self._compiler = compiler
        self._networks: dict[str, Any] = {}
        self._scales: dict[str, float] = {}
        self._digests: dict[Path, tuple[tuple[int, int], str]] = {}

    @classmethod
    def load(
        cls,
        name: str,
        *,
        root: str | Path,
        network_config: NetworkConfig | str | Path | None = None,
        device: str | torch.device = "cpu",
        dtype: str = "float32",
        files: Mapping[str, str | Path] | None = None,
        compiler: str | None = None,
    ) -> MaisiModels:
        """Prepare a variant (``rflow-ct``, ``ddpm-ct``, ``rflow-mr``, ``rflow-mr-brain``); no weights are read yet.

        root: folder with the released files, in ``root/models`` or directly. network_config: dictionary or JSON file of
        the reference's structure (default: the reference). dtype: of CUDA autocast, ``float32`` for none; a CPU computes
        in float32. files: network name -> path, for weights of your own. compiler: backend of ``torch.compile`` for the
        diffusion U-Net and the ControlNet (``inductor``, ``tensorrt`` where installed); None runs them as they are.
        Raises ``EngineError``.
        """
        place = torch.device(device)
        if dtype not in DTYPES:
            raise EngineError("unknown dtype", found=dtype, allowed=DTYPES)
        if place.type != "cuda" and dtype != "float32":
            raise EngineError("reduced precision needs a CUDA device", found=f"{dtype} on {place}", allowed="float32")
        if place.type == "cuda" and not torch.cuda.is_available():
            raise EngineError("no CUDA device here", found=str(place), allowed="cpu")
        check_backend(compiler)
        chosen = variant(name)
        own = {network: Path(path) for network, path in (files or {}).items()}
        unknown = sorted(set(own) - set(chosen.files))
        if unknown:
            raise EngineError(f"{name} has no such networks", found=unknown, allowed=chosen.files)
        return cls(chosen, Path(root), read_network_config(network_config, name), place, DTYPES[dtype], own, compiler)

    @property
    def autoencoder(self) -> torch.nn.Module:
        """Image autoencoder: latent [1,4,X/4,Y/4,Z/4] <-> image [1,1,X,Y,Z] in 0-1."""
        return self._network(AUTOENCODER)

    @property
    def diffusion_unet(self) -> torch.nn.Module:
        """Image diffusion U-Net on latents."""
        if DIFFUSION_UNET not in self._networks:
            self._networks[DIFFUSION_UNET] = compiled(self._loaded(DIFFUSION_UNET), self._compiler)
        network: torch.nn.Module = self._networks[DIFFUSION_UNET]
        return network

    @property
    def controlnet(self) -> ControlNetParts:
        """ControlNet from label maps, CT variants only."""
        if CONTROLNET not in self._networks:
            network = self._loaded(CONTROLNET)
            embedding: Any = network.controlnet_cond_embedding
            network.controlnet_cond_embedding = torch.nn.Identity()
            self._networks[CONTROLNET] = ControlNetParts(embedding, compiled(network, self._compiler))
        parts: ControlNetParts = self._networks[CONTROLNET]
        return parts

    @property
    def mask_autoencoder(self) -> torch.nn.Module:
        """Label-map autoencoder: latent -> logits of 125 classes, CT variants only."""
        return self._network(MASK_AUTOENCODER)

    @property
    def mask_diffusion(self) -> torch.nn.Module:
        """Diffusion U-Net on label-map latents, conditioned on ten anatomy sizes, CT variants only."""
        return self._network(MASK_DIFFUSION)

    @property
    def scale_factor(self) -> float:
        """Latent scale of the image networks (latent = encoder output x scale)."""
        return self._scale(DIFFUSION_UNET)

    @property
    def mask_scale_factor(self) -> float:
        """Latent scale of the mask networks."""
        return self._scale(MASK_DIFFUSION)

    @property
    def latent_channels(self) -> int:
        """Channels of the image latent."""
        return int(self.config["autoencoder_def"]["latent_channels"])

    @property
    def latent_stride(self) -> int:
        """Voxels per latent voxel along each axis."""
        return int(2 ** (len(self.config["autoencoder_def"]["num_channels"]) - 1))

    @property
    def size_multiple(self) -> int:
        """Image sizes must be multiples of this many voxels, so that each level of the diffusion U-Net halves evenly."""
        return self.latent_stride * int(2 ** (len(self.config["diffusion_unet_def"]["num_channels"]) - 1))

    @property
    def has_modality_input(self) -> bool:
        """Whether the diffusion U-Net takes a modality code."""
        return self.config["diffusion_unet_def"].get("num_class_embeds") is not None

    @property
    def has_region_input(self) -> bool:
        """Whether the diffusion U-Net takes the body region."""
        return bool(self.config["diffusion_unet_def"].get("include_top_region_index_input"))

    @property
    def has_spacing_input(self) -> bool:
        """Whether the diffusion U-Net takes the voxel spacing."""
        return bool(self.config["diffusion_unet_def"].get("include_spacing_input"))

    def scheduler(self, name: str = "noise_scheduler") -> Any:
        """A new scheduler: ``noise_scheduler`` or ``mask_generation_noise_scheduler``."""
        return build_scheduler(self.config, name)

    def autocast(self) -> AbstractContextManager[Any]:
        """Autocast to ``dtype`` on CUDA; nothing elsewhere."""
        if self.device.type == "cuda" and self.dtype is not torch.float32:
            return torch.autocast("cuda", dtype=self.dtype)
        return nullcontext()

    @property
    def half(self) -> bool:
        """Whether networks compute in float16."""
        return self.dtype is torch.float16

    def path(self, network: str) -> Path:
        """The weight file of a network."""
        return self._files.get(network) or find_file(self.variant, network, self.root)

    def digests(self, networks: Iterable[str]) -> dict[str, str]:
        """File name -> SHA-256 of the weight files of these networks, without loading them."""
        found = {}
        for network in networks:
            path = self.path(network)
            state = path.stat()
            version = (state.st_size, state.st_mtime_ns)
            if self._digests.get(path, (None, ""))[0] != version:
                self._digests[path] = (version, file_digest(path))
            found[path.name] = self._digests[path][1]
        return found

    def close(self) -> None:
        """Forget the networks and give their memory back."""
        self._networks.clear()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _scale(self, network: str) -> float:
        if network not in self._scales:
            scale = read_checkpoint(self.path(network), network).scale_factor
            assert scale is not None  # noqa: S101 - files of diffusion networks without one are refused
            self._scales[network] = scale
        return self._scales[network]

    def _network(self, network: str) -> Any:
        if network not in self._networks:
            self._networks[network] = self._loaded(network)
        return self._networks[network]

    def _loaded(self, network: str) -> torch.nn.Module:
        checkpoint: Checkpoint = read_checkpoint(self.path(network), network)
        built = build_network(self.config, network, device=self.device, half=self.half)
        load_into(built, checkpoint, self.device)
        if checkpoint.scale_factor is not None:
            self._scales[network] = checkpoint.scale_factor
        return built
