"""Building MONAI's MAISI networks and schedulers from a network configuration.

Only the classes in ``CLASSES`` are built; nothing else a configuration names is ever imported.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch

from ctmr_core.engines.maisi.network_config import NetworkConfig
from ctmr_core.errors import EngineError

CLASSES = (
    "monai.apps.generation.maisi.networks.autoencoderkl_maisi.AutoencoderKlMaisi",
    "monai.apps.generation.maisi.networks.controlnet_maisi.ControlNetMaisi",
    "monai.apps.generation.maisi.networks.diffusion_model_unet_maisi.DiffusionModelUNetMaisi",
    "monai.networks.nets.diffusion_model_unet.DiffusionModelUNet",
    "monai.networks.schedulers.ddpm.DDPMScheduler",
    "monai.networks.schedulers.rectified_flow.RFlowScheduler",
)


def build_network(config: NetworkConfig, name: str, *, device: torch.device, half: bool) -> torch.nn.Module:
    """The network ``<name>_def`` of a resolved configuration, in evaluation mode, without memory for its weights.

    Parameters live on PyTorch's meta device until a checkpoint is loaded. Float16 group norms are switched off outside of
    CUDA's float16 autocast (``half``). Activation checkpointing is for training and ``save_mem`` empties the CUDA cache
    after every operation: both off. Where the configuration asks for memory-efficient attention (``use_flash_attention``),
    a CPU gets PyTorch's too, though MONAI's constructors only let it through on CUDA: plain attention on the latent of a
    512 x 512 x 128 volume takes 2 GB per attention matrix.
    """
    arguments = _definition(config, f"{name}_def")
    constructor = _constructor(arguments.pop("_target_", None), f"{name}_def")
    accepted = inspect.signature(constructor).parameters
    on_cuda = device.type == "cuda"
    efficient_attention = bool(arguments.get("use_flash_attention", False))
    adapted = {
        "use_flash_attention": on_cuda and efficient_attention,
        "norm_float16": on_cuda and half and bool(arguments.get("norm_float16", False)),
        "use_checkpointing": False,
        "save_mem": False,
    }
    arguments.update({key: value for key, value in adapted.items() if key in accepted})
    with torch.device("meta"):
        network: torch.nn.Module = _construct(constructor, arguments, f"{name}_def")
    if efficient_attention:
        _use_efficient_attention(network)
    return network.eval().requires_grad_(False)


def build_trainable(config: NetworkConfig, name: str, *, seed: int) -> torch.nn.Module:
    """The network ``<name>_def`` on the CPU with MONAI's initial weights, drawn by ``seed``, in training mode.

    Activation checkpointing is as the configuration says; norms are float32 (mixed precision casts around them), convolutions
    are not split, attention is PyTorch's memory-efficient one where the configuration asks for it.
    """
    arguments = _definition(config, f"{name}_def")
    constructor = _constructor(arguments.pop("_target_", None), f"{name}_def")
    efficient_attention = bool(arguments.get("use_flash_attention", False))
    adapted = {"use_flash_attention": False, "norm_float16": False, "save_mem": False, "num_splits": 1}
    accepted = inspect.signature(constructor).parameters
    arguments.update({key: value for key, value in adapted.items() if key in accepted})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network: torch.nn.Module = _construct(constructor, arguments, f"{name}_def")
    if efficient_attention:
        _use_efficient_attention(network)
    return network.train()


def _use_efficient_attention(network: torch.nn.Module) -> None:
    for module in network.modules():
        if hasattr(module, "use_flash_attention"):
            module.use_flash_attention = True  # type: ignore[assignment]


def build_scheduler(config: NetworkConfig, name: str = "noise_scheduler") -> Any:
    """The noise scheduler ``name`` (``noise_scheduler`` or ``mask_generation_noise_scheduler``) of a configuration."""
    arguments = _definition(config, name)
    return _construct(_constructor(arguments.pop("_target_", None), name), arguments, name)


def _definition(config: NetworkConfig, key: str) -> dict[str, Any]:
    definition = config.get(key)
    if not isinstance(definition, dict):
        raise EngineError("the network configuration lacks a definition", where=key, allowed=sorted(config))
    return dict(definition)


def _constructor(target: object, where: str) -> Callable[..., Any]:
    if target not in CLASSES:
        raise EngineError("not a class this engine builds", where=f"{where}._target_", found=target, allowed=CLASSES)
    module, _, name = str(target).rpartition(".")
    constructor: Callable[..., Any] = getattr(import_module(module), name)
    return constructor


def _construct(constructor: Callable[..., Any], arguments: dict[str, Any], where: str) -> Any:
    parameters = inspect.signature(constructor).parameters
    open_ended = any(entry.kind is inspect.Parameter.VAR_KEYWORD for entry in parameters.values())
    unknown = sorted(key for key in arguments if key not in parameters)
    if unknown and not open_ended:
        raise EngineError("unknown arguments", where=where, found=unknown, allowed=sorted(parameters))
    try:
        return constructor(**arguments)
    except (TypeError, ValueError) as problem:
        raise EngineError("MONAI refuses this definition", where=where, found=str(problem)) from problem
