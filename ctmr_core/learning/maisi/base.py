"""The networks a training starts from."""

from __future__ import annotations

from pathlib import Path

import torch

from ctmr_core.engines.maisi.hub import models_root
from ctmr_core.engines.maisi.identity import own_network_config
from ctmr_core.engines.maisi.memory import default_precision
from ctmr_core.engines.maisi.models import MaisiModels
from ctmr_core.learning.maisi.settings import Base


def base_root(config: Base) -> Path:
    """The folder with the weights."""
    return models_root(config.models)


def base_models(config: Base, *, device: str = "cpu") -> MaisiModels:
    """The networks of the base for inference, read when first used."""
    root = base_root(config)
    return MaisiModels.load(
        config.variant,
        root=root,
        network_config=config.network_config or own_network_config(config.variant, root),
        device=device,
        dtype=default_precision(torch.device(device)),
    )
