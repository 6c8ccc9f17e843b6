"""Shrunken MAISI networks with weights filled by a rule, written to disk in the released checkpoint formats.

    config = shrink(golden.network("rflow"))
    write_checkpoints(folder, "rflow-ct", config, netseed=200)        # every file the variant has
    MaisiModels.load("rflow-ct", root=folder, network_config=config)

The networks are built here by MONAI's own ``ConfigParser``, so the tests do not lean on the code under test.
"""

from __future__ import annotations

import copy
import json
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle import ConfigParser

AUTOENCODER = "autoencoder"
DIFFUSION_UNET = "diffusion_unet"
CONTROLNET = "controlnet"
MASK_AUTOENCODER = "mask_generation_autoencoder"
MASK_DIFFUSION = "mask_generation_diffusion"

RELEASED_FILES = {
    "rflow-ct": {
        AUTOENCODER: "autoencoder_v1.pt",
        DIFFUSION_UNET: "diff_unet_3d_rflow-ct.pt",
        CONTROLNET: "controlnet_3d_rflow-ct.pt",
        MASK_AUTOENCODER: "mask_generation_autoencoder.pt",
        MASK_DIFFUSION: "mask_generation_diffusion_unet.pt",
    },
    "ddpm-ct": {
        AUTOENCODER: "autoencoder_v1.pt",
        DIFFUSION_UNET: "diff_unet_3d_ddpm-ct.pt",
        CONTROLNET: "controlnet_3d_ddpm-ct.pt",
        MASK_AUTOENCODER: "mask_generation_autoencoder.pt",
        MASK_DIFFUSION: "mask_generation_diffusion_unet.pt",
    },
    "rflow-mr": {AUTOENCODER: "autoencoder_v2.pt", DIFFUSION_UNET: "diff_unet_3d_rflow-mr.pt"},
    "rflow-mr-brain": {AUTOENCODER: "autoencoder_v1.pt", DIFFUSION_UNET: "diff_unet_3d_rflow-mr-brain_v1.pt"},
}
SEED_OFFSETS = {AUTOENCODER: 0, DIFFUSION_UNET: 1, CONTROLNET: 2, MASK_AUTOENCODER: 0, MASK_DIFFUSION: 1}


@dataclass(frozen=True)
class Golden:
    """The folder of golden vectors: settings (JSON) and inputs with the expected output (NPZ)."""

    folder: Path

    def network(self, name: str) -> dict[str, Any]:
        """The reference network configuration ``rflow`` or ``ddpm``, full size."""
        return json.loads((self.folder / f"network_{name}.json").read_text())

    def settings(self, name: str) -> dict[str, Any]:
        return json.loads((self.folder / f"{name}.json").read_text())

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        with np.load(self.folder / f"{name}.npz") as arrays:
            return {key: arrays[key] for key in arrays.files}

    def names(self, kind: str) -> list[str]:
        """The cases of one kind (``image_only``, ``image_from_mask``, ``mask_generation``), sorted."""
        cases = sorted(path.stem for path in self.folder.glob("*.json") if not path.stem.startswith("network_"))
        return [name for name in cases if self.settings(name)["kind"] == kind]


def for_cpu(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration with what only a GPU can do switched off."""
    adapted = copy.deepcopy(config)
    for definition in adapted.values():
        if isinstance(definition, dict):
            for key in ("use_flash_attention", "norm_float16", "use_checkpointing"):
                if key in definition:
                    definition[key] = False
    return adapted


def shrink(config: dict[str, Any]) -> dict[str, Any]:
    """The reference architecture with a few channels, for the CPU: what the golden vectors were computed with."""
    small = for_cpu(config)
    for name in ("autoencoder_def", "mask_generation_autoencoder_def"):
        small[name].update(num_channels=[8, 16, 16], norm_num_groups=8, num_res_blocks=[1, 1, 1], num_splits=2)
    for name in ("diffusion_unet_def", "controlnet_def"):
        small[name].update(num_channels=[32, 32, 64, 64], num_head_channels=[0, 0, 16, 16], num_res_blocks=1)
    small["controlnet_def"].update(conditioning_embedding_num_channels=[8, 16, 16], use_checkpointing=False)
    small["mask_generation_diffusion_def"].update(channels=[32, 32, 64, 64], num_head_channels=[0, 0, 16, 16], num_res_blocks=1)
    return small


def fill_entry(name: str, shape: Iterable[int], seed: int) -> torch.Tensor:
    """The weights of one ``state_dict`` entry: drawn from its own generator, whatever the order of entries."""
    shape = tuple(shape)
    values = np.random.default_rng([seed, zlib.crc32(name.encode())]).standard_normal(shape).astype(np.float32)
    if len(shape) == 1:
        values = 1 + np.float32(0.1) * values if name.endswith("weight") else np.float32(0.02) * values
    elif len(shape) > 1:
        values = values / np.sqrt(np.prod(shape[1:]))  # in float64, rounded once at the end
    if name.startswith("decoder.blocks.7.") and shape and shape[0] == 1:
        values = values * 0.12 if len(shape) > 1 else np.full(shape, 0.45)
    return torch.from_numpy(np.asarray(values, np.float32))


def filled_state(network: torch.nn.Module, seed: int) -> dict[str, torch.Tensor]:
    """A state dictionary of the network, filled by the rule."""
    return {name: fill_entry(name, entry.shape, seed) for name, entry in network.state_dict().items()}


def build(config: dict[str, Any], network: str) -> torch.nn.Module:
    """One network of the configuration, for example ``controlnet``."""
    parser = ConfigParser(config)
    parser.parse(True)
    return parser.get_parsed_content(f"{network}_def", instantiate=True)


def checkpoint(network: str, state: dict[str, torch.Tensor], scale_factor: float) -> dict[str, Any]:
    """The content of a released file: plain state dictionaries for autoencoders, wrapped ones for the others."""
    if network in (AUTOENCODER, MASK_AUTOENCODER):
        return state
    if network == CONTROLNET:
        return {"epoch": 100, "loss": 0.1, "controlnet_state_dict": state}
    scale = torch.tensor(scale_factor)
    if network == MASK_DIFFUSION:
        return {"unet_state_dict": state, "scale_factor": scale}
    return {"epoch": 100, "loss": 0.1, "num_train_timesteps": 1000, "scale_factor": scale, "unet_state_dict": state}


def write_checkpoints(
    folder: Path,
    variant: str,
    config: dict[str, Any],
    *,
    netseed: int,
    scale_factor: float = 0.9,
    networks: Iterable[str] | None = None,
) -> Path:
    """Write the released files of a variant, ``folder/models/*.pt``, and return ``folder``.

    networks: which ones (default: all of the variant). The image networks and the mask networks of a golden case
    each count their seeds from ``netseed``.
    """
    for network in RELEASED_FILES[variant] if networks is None else networks:
        path = folder / "models" / RELEASED_FILES[variant][network]
        path.parent.mkdir(parents=True, exist_ok=True)
        state = filled_state(build(config, network), netseed + SEED_OFFSETS[network])
        torch.save(checkpoint(network, state, scale_factor), path)
    return folder
