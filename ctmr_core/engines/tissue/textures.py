"""Smooth random fields: what the inside of a tissue looks like between its mean and its noise."""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

_NODES_PER_SIGMA = 1.5  # lattice nodes per standard deviation: linear interpolation then loses under 8 % of the amplitude


def coarse_field(
    size: tuple[int, int, int], spacing: tuple[float, float, float], scale_mm: float, rng: np.random.Generator
) -> np.ndarray:
    """A Gaussian random field on a lattice that spans the volume, float32 [i, j, k], mean 0 and variance 1.

    size, spacing: voxels and mm per voxel along [x, y, z]. scale_mm: correlation length, see ``RenderContext.texture``.
    The lattice has about ``2 * extent / scale_mm`` nodes per axis and never more than the volume has voxels.
    """
    sigma = scale_mm / np.sqrt(2.0)  # smoothing with s gives the autocorrelation exp(-d^2 / (4 s^2))
    nodes, sigmas = [], []
    for n, mm in zip(size, spacing, strict=True):
        extent = max((n - 1) * mm, 1e-6)
        count = min(n, int(np.ceil(extent / sigma * _NODES_PER_SIGMA)) + 1)
        nodes.append(max(count, min(n, 2)))
        sigmas.append(sigma / (extent / max(nodes[-1] - 1, 1)))
    margins = [int(np.ceil(4 * s)) for s in sigmas]  # drawn wider and cut, so that the variance is even up to the border
    field = rng.standard_normal([n + 2 * m for n, m in zip(nodes, margins, strict=True)], dtype=np.float32)
    field = gaussian_filter(field, sigmas, mode="constant", truncate=4.0)
    field = field[tuple(slice(m, m + n) for n, m in zip(nodes, margins, strict=True))]
    kernels = [np.exp(-0.5 * (np.arange(-m, m + 1) / max(s, 1e-6)) ** 2) for m, s in zip(margins, sigmas, strict=True)]
    gain = float(np.prod([np.sqrt(np.sum((k / k.sum()) ** 2)) for k in kernels]))
    return np.ascontiguousarray(field / np.float32(gain))


def upsample(lattice: torch.Tensor, size: tuple[int, int, int]) -> torch.Tensor:
    """``lattice`` [i, j, k] on ``size`` voxels by trilinear interpolation, corner to corner; float32 [x, y, z]."""
    if tuple(lattice.shape) == tuple(size):
        return lattice
    volume = torch.nn.functional.interpolate(lattice[None, None], size=size, mode="trilinear", align_corners=True)
    return volume[0, 0]


def unit_interval(field: torch.Tensor) -> torch.Tensor:
    """The normal field as its percentile, uniform on 0..1 (new tensor)."""
    return torch.special.ndtr(field)
