"""NVIDIA's MAISI generators (rectified flow and DDPM) on MONAI's networks.

    models = MaisiModels.load("rflow-ct", root="weights")
    image = sample_image(models, size=(256, 256, 128), spacing=(1.5, 1.5, 2.0), steps=30, seed=7)

Names are imported when first used, because PyTorch and MONAI take seconds to import.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "MaisiModels": "models",
    "Start": "starting_image",
    "sample_contrasts": "contrasts",
    "sample_image": "sampling",
    "sample_image_from_mask": "sampling",
    "sample_mask": "mask_sampling",
    "sample_pair": "paired",
}
__all__ = ["MaisiModels", "Start", "sample_contrasts", "sample_image", "sample_image_from_mask", "sample_mask", "sample_pair"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
