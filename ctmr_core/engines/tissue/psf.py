"""Blurring by the imaging system: small separable kernels as shifted sums, the same bytes for any number of threads."""

from __future__ import annotations

import numpy as np
import torch

_FWHM_TO_SIGMA = 1.0 / np.sqrt(8.0 * np.log(2.0))
_WIDEST = 0.55  # variance in voxels squared one 3-tap pass may have and still look like a Gaussian


def fwhm_to_sigma(fwhm: float) -> float:
    """Standard deviation of the Gaussian with this full width at half maximum."""
    return float(fwhm * _FWHM_TO_SIGMA)


def smooth_axis(volume: torch.Tensor, axis: int, weight: float) -> torch.Tensor:
    """``volume`` convolved with [weight, 1 - 2 weight, weight] along ``axis``; the border voxel is repeated. New tensor."""
    n = volume.shape[axis]
    result = volume * (1.0 - 2.0 * weight)
    if n == 1:
        return volume.clone()
    result.narrow(axis, 1, n - 1).add_(volume.narrow(axis, 0, n - 1), alpha=weight)
    result.narrow(axis, 0, n - 1).add_(volume.narrow(axis, 1, n - 1), alpha=weight)
    result.narrow(axis, 0, 1).add_(volume.narrow(axis, 0, 1), alpha=weight)
    result.narrow(axis, n - 1, 1).add_(volume.narrow(axis, n - 1, 1), alpha=weight)
    return result


def blur(volume: torch.Tensor, sigmas: tuple[float, float, float]) -> torch.Tensor:
    """``volume`` [x, y, z] blurred with a Gaussian of ``sigmas`` (voxels per axis); borders are repeated, nothing wraps round."""
    for axis, sigma in enumerate(sigmas):
        variance = sigma * sigma
        if variance < 1e-3:
            continue
        passes = int(np.ceil(variance / _WIDEST))
        for _ in range(passes):
            volume = smooth_axis(volume, axis, variance / passes / 2.0)
    return volume
