"""Reading the released checkpoint files.

Formats (documentation and scripts of NVIDIA NV-Generate-CTMR): autoencoders are plain state dictionaries, or wrapped in
``unet_state_dict``; diffusion U-Nets hold ``unet_state_dict`` and ``scale_factor`` (0-dimensional tensor) beside training
records; ControlNets hold ``controlnet_state_dict``. Files are read without running code from them.
"""

from __future__ import annotations

import hashlib
import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ctmr_core.engines.maisi.variants import (
    AUTOENCODER,
    CONTROLNET,
    DIFFUSION_UNET,
    MASK_AUTOENCODER,
    MASK_DIFFUSION,
    Variant,
)
from ctmr_core.errors import EngineError

WRAPPERS: dict[str, str] = {
    AUTOENCODER: "unet_state_dict",
    MASK_AUTOENCODER: "unet_state_dict",
    DIFFUSION_UNET: "unet_state_dict",
    MASK_DIFFUSION: "unet_state_dict",
    CONTROLNET: "controlnet_state_dict",
}
MAY_BE_PLAIN = frozenset({AUTOENCODER, MASK_AUTOENCODER})
CARRIES_SCALE = frozenset({DIFFUSION_UNET, MASK_DIFFUSION})
UNUSED_PROJECTION = re.compile(r"(^|\.)attn\.out_proj\.(weight|bias)$")
"""Entries of the released ddpm-ct files that their networks (``include_fc`` false) lack (Project-MONAI/tutorials #2042)."""
NAMED_KEYS = 5

# training records (loss, epoch) may have been saved as NumPy scalars
_RECORD_TYPES: list[Any] = [
    np.float64(0).__reduce__()[0],
    np.dtype,
    *(type(np.dtype(kind)) for kind in (np.float64, np.float32, np.int64)),
]


@dataclass(frozen=True)
class Checkpoint:
    """The weights of one network: state dictionary and, for diffusion U-Nets, the latent scale."""

    path: Path
    state: Mapping[str, torch.Tensor]
    scale_factor: float | None


def find_file(chosen: Variant, network: str, root: Path) -> Path:
    """The released file of a network, in ``root/models`` or in ``root``; ``EngineError`` where there is none."""
    if network not in chosen.files:
        raise EngineError(
            f"{chosen.name} has no {network}", allowed=chosen.files, fix="use rflow-ct or ddpm-ct to start from label maps"
        )
    name = chosen.files[network]
    for path in (root / "models" / name, root / name):
        if path.is_file():
            return path
    raise EngineError(
        "weights are missing",
        where=str(root),
        found=None,
        allowed=f"models/{name} or {name}",
        fix=f"download models/{name} of {chosen.repositories[network]} from Hugging Face ({chosen.licence})",
    )


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_checkpoint(path: Path, network: str) -> Checkpoint:
    """Read a released file. Weights stay memory-mapped where the format allows, so that processes share their pages."""
    content = _load(path)
    if not isinstance(content, Mapping):
        raise EngineError("not a checkpoint", where=str(path), found=type(content).__name__, allowed="a dictionary")
    wrapper = WRAPPERS[network]
    if wrapper in content:
        state = content[wrapper]
    elif network in MAY_BE_PLAIN:
        state = content
    else:
        raise EngineError(
            f"not a {network} checkpoint", where=str(path), found=sorted(map(str, content))[:NAMED_KEYS], allowed=wrapper
        )
    if not isinstance(state, Mapping) or not all(isinstance(entry, torch.Tensor) for entry in state.values()):
        raise EngineError("the state dictionary holds more than tensors", where=f"{path}, {wrapper}")
    scale = _scale_factor(content, path) if network in CARRIES_SCALE else None
    return Checkpoint(path, state, scale)


def load_into(network: torch.nn.Module, checkpoint: Checkpoint, device: torch.device) -> None:
    """Give the network its weights as float32 on ``device``.

    Missing, unexpected and misshapen entries are refused by name; only a network whose attention has no output projection
    may get a file that carries one (released ddpm-ct files).
    """
    expected = network.state_dict()
    found = dict(checkpoint.state)
    if not any(UNUSED_PROJECTION.search(key) for key in expected):
        found = {key: value for key, value in found.items() if key in expected or not UNUSED_PROJECTION.search(key)}
    problems = {
        "missing": [key for key in expected if key not in found],
        "unexpected": [key for key in found if key not in expected],
        "misshapen": [
            f"{key} {tuple(found[key].shape)} instead of {tuple(entry.shape)}"
            for key, entry in expected.items()
            if key in found and found[key].shape != entry.shape
        ],
    }
    if any(problems.values()):
        raise EngineError(
            "the checkpoint does not fit the network",
            where=str(checkpoint.path),
            found="; ".join(f"{len(keys)} {kind}: {_some(keys)}" for kind, keys in problems.items() if keys),
            fix="use the file that belongs to this variant, or give the network configuration it was trained with",
        )
    network.load_state_dict({key: value.to(device, torch.float32) for key, value in found.items()}, assign=True)


def _some(keys: list[str]) -> str:
    more = f" and {len(keys) - NAMED_KEYS} more" if len(keys) > NAMED_KEYS else ""
    return ", ".join(keys[:NAMED_KEYS]) + more


def _load(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(_RECORD_TYPES):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (pickle.UnpicklingError, OSError, RuntimeError, EOFError, KeyError, ValueError) as problem:
        if "Unsupported global" not in str(problem):  # how PyTorch's reader names what it will not call
            raise EngineError("the checkpoint can't be read", where=str(path), found=_first_line(problem)) from problem
        raise EngineError(
            "the checkpoint holds more than weights and is not opened, because reading it could run code",
            where=str(path),
            fix="use the released file, or save a state dictionary of tensors again",
        ) from problem


def _first_line(problem: Exception) -> str:
    return (str(problem) or type(problem).__name__).splitlines()[0]


def _scale_factor(content: Mapping[str, Any], path: Path) -> float:
    value = content.get("scale_factor")
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        value = value.item()
    if not isinstance(value, (int, float)) or not np.isfinite(value) or value <= 0:
        raise EngineError(
            "the latent scale is missing or impossible",
            where=f"{path}, scale_factor",
            found=value,
            allowed="a positive number or a tensor with one element",
        )
    return float(value)
