"""Latent -> volume, at once or in overlapping windows."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from monai.inferers import sliding_window_inference

from ctmr_core.errors import EngineError


def check_window(window: Sequence[int], overlap: float) -> tuple[int, int, int]:
    """A decoding window (latent voxels) and an overlap in [0, 1), or an ``EngineError``."""
    values = tuple(int(n) for n in window)
    if len(values) != 3 or any(n < 1 for n in values):
        raise EngineError("impossible decoding window", found=tuple(window), allowed="three numbers of latent voxels")
    if not 0 <= overlap < 1:
        raise EngineError("impossible overlap of decoding windows", found=overlap, allowed="0 or more and less than 1")
    return values


def decode(
    autoencoder: torch.nn.Module,
    latent: torch.Tensor,
    window: Sequence[int],
    overlap: float,
    autocast: AbstractContextManager[Any],
    *,
    splits: int = 1,
    stitch_on_cpu: bool = False,
) -> torch.Tensor:
    """Decode a latent [1,4,x,y,z] that was divided by the latent scale: [1,C,4x,4y,4z].

    The whole latent at once where it has no more voxels than the window; else in windows (each axis clipped to the latent)
    blended with Gaussian weights (sigma 1/8 of the window; MONAI's sliding-window inference). Window size and overlap change the
    image, because group norms see one window at a time. splits: slabs into which convolutions cut their input along
    y to save memory, which does not change results. stitch_on_cpu: keep the stitched volume in host memory.
    """
    roi = check_window(window, overlap)
    size = tuple(int(n) for n in latent.shape[2:])
    if np.prod(size) <= np.prod(roi):
        set_splits(autoencoder, splits, size[1])
        with autocast:
            whole: torch.Tensor = autoencoder.decode_stage_2_outputs(latent)  # type: ignore[operator]
        return whole.cpu() if stitch_on_cpu else whole
    roi = (min(roi[0], size[0]), min(roi[1], size[1]), min(roi[2], size[2]))
    set_splits(autoencoder, splits, roi[1])
    with autocast:
        stitched = sliding_window_inference(
            latent,
            roi_size=roi,
            sw_batch_size=1,
            predictor=autoencoder.decode_stage_2_outputs,  # type: ignore[arg-type]
            overlap=overlap,
            mode="gaussian",
            sw_device=latent.device,
            device=torch.device("cpu") if stitch_on_cpu else latent.device,
        )
    if not isinstance(stitched, torch.Tensor):
        raise TypeError("one output expected of the decoder")
    return stitched


def conv_splits(definition: dict[str, Any], device: torch.device, *, compat: bool) -> int:
    """Slabs for convolutions: what the configuration asks for on a GPU, none on a CPU, where they save nothing.

    In compat what the configuration asks for everywhere: the last bit of float32 depends on the shape of a convolution.
    """
    return int(definition.get("num_splits", 1)) if compat or device.type != "cpu" else 1


THINNEST_SLAB = 4
"""Latent voxels; MONAI's slabs overlap by 3 to 4, and thinner ones come out empty."""


def set_splits(autoencoder: torch.nn.Module, splits: int, length: int) -> None:
    """Set the slabs of every convolution to the largest number up to ``splits`` that divides ``length`` latent voxels.

    MONAI's split convolution loses the remainder rows otherwise.
    """
    fitting = max(n for n in range(1, max(splits, 1) + 1) if n == 1 or (length % n == 0 and length // n >= THINNEST_SLAB))
    for module in autoencoder.modules():
        if hasattr(module, "num_splits"):
            module.num_splits = fitting  # type: ignore[assignment]
