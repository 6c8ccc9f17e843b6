"""Blurring by the imaging system: small separable kernels as shifted sums, the same bytes for any number of threads."""

from __future__ import annotations

import numpy as np
import torch

_FWHM_TO_SIGMA = 1.0 / np.sqrt(8.0 * np.log(2.0))
_WIDEST = 0.55  # variance in voxels squared one 3-tap pass may have and still look like a Gaussian
_SLAB_VOXELS = 1 << 19


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


def passes_for(variance: float) -> int:
    """How many 3-tap passes make a Gaussian of this variance (voxels squared)."""
    return 0 if variance < 1e-3 else int(np.ceil(variance / _WIDEST))


def blur(volume: torch.Tensor, sigmas: tuple[float, float, float]) -> torch.Tensor:
    """``volume`` [x, y, z] blurred with a Gaussian of ``sigmas`` (voxels per axis); borders are repeated, nothing wraps round.

    Slabs of a few slices are blurred along all axes at once, so that they stay in the processor's cache.
    """
    variances = [sigma * sigma for sigma in sigmas]
    halo = passes_for(variances[0])
    n = volume.shape[0]
    step = max(_SLAB_VOXELS // max(volume[0].numel(), 1), 2 * halo, 1)
    result = torch.empty_like(volume)
    for start in range(0, n, step):
        stop = min(start + step, n)
        low, high = max(start - halo, 0), min(stop + halo, n)
        slab = volume[low:high]
        for axis, variance in enumerate(variances):
            passes = passes_for(variance)
            for _ in range(passes):
                slab = smooth_axis(slab, axis, variance / passes / 2.0)
        result[start:stop] = slab[start - low : stop - low]
    return result
