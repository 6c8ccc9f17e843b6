"""Smooth random fields: what the inside of a tissue looks like between its mean and its noise."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from ctmr_core.engines.tissue.psf import blur, passes_for

#: shape -> independent float32 numbers of that shape with mean 0 and variance 1.
Draw = Callable[[tuple[int, ...]], np.ndarray]

_NODES_PER_SIGMA = 1.25  # lattice nodes per standard deviation: linear interpolation then loses under 12 % of the amplitude


def coarse_field(size: tuple[int, int, int], spacing: tuple[float, float, float], scale_mm: float, draw: Draw) -> torch.Tensor:
    """A Gaussian random field on a lattice that spans the volume, float32 [i, j, k], mean 0 and variance 1.

    size, spacing: voxels and mm per voxel along [x, y, z]. scale_mm: correlation length, see ``RenderContext.texture``.
    draw: source of the random numbers. The lattice never has more nodes than the volume has voxels; where the
    voxels are coarser than the texture it is white noise.
    """
    sigma = scale_mm / np.sqrt(2.0)  # smoothing with s gives the autocorrelation exp(-d^2 / (4 s^2))
    nodes, variances = [], []
    for n, mm in zip(size, spacing, strict=True):
        extent = max((n - 1) * mm, 1e-6)
        count = max(min(n, int(np.ceil(extent / sigma * _NODES_PER_SIGMA)) + 1), min(n, 2))
        nodes.append(count)
        variances.append(min((sigma / (extent / max(count - 1, 1))) ** 2, 2.25))
    # Drawn wider and cut, so that the variance is even up to the border.
    margins = [passes_for(variance) for variance in variances]
    wide = tuple(n + 2 * m for n, m in zip(nodes, margins, strict=True))
    x, y, z = (float(np.sqrt(variance)) for variance in variances)
    field = blur(torch.from_numpy(draw(wide)), (x, y, z))
    gain = float(np.prod([_gain(v, m) for v, m in zip(variances, margins, strict=True)]))
    inner = tuple(slice(m, m + n) for n, m in zip(nodes, margins, strict=True))
    return field[inner].div(gain)


def _gain(variance: float, passes: int) -> float:
    """Standard deviation of white noise after ``passes`` 3-tap passes of ``blur``."""
    kernel = np.ones(1)
    for _ in range(passes):
        weight = variance / passes / 2.0
        kernel = np.convolve(kernel, [weight, 1.0 - 2.0 * weight, weight])
    return float(np.sqrt(np.sum(kernel**2)))


def upsample(lattice: torch.Tensor, size: tuple[int, int, int]) -> torch.Tensor:
    """``lattice`` [i, j, k] on ``size`` voxels by trilinear interpolation, corner to corner; float32 [x, y, z]."""
    if tuple(lattice.shape) == tuple(size):
        return lattice
    volume = torch.nn.functional.interpolate(lattice[None, None], size=size, mode="trilinear", align_corners=True)
    return volume[0, 0]


def upsample_box(lattice: torch.Tensor, size: tuple[int, int, int], box: tuple[slice, slice, slice]) -> torch.Tensor:
    """The part of ``upsample(lattice, size)`` inside ``box`` (slices with start and stop), made without the rest.

    Equal to the cut of the whole within float32 rounding.
    """
    field = lattice
    for axis, (n, side) in enumerate(zip(size, box, strict=True)):
        nodes = field.shape[axis]
        place = torch.arange(side.start, side.stop, dtype=torch.float64) * ((nodes - 1) / max(n - 1, 1))
        low = place.floor().clamp_(max=max(nodes - 2, 0)).to(torch.int64)
        shape = [1, 1, 1]
        shape[axis] = -1
        weight = (place - low).to(torch.float32).view(shape).to(field.device)
        low = low.to(field.device)
        first = field.index_select(axis, low)
        second = field.index_select(axis, (low + 1).clamp_(max=nodes - 1))
        field = second.sub_(first).mul_(weight).add_(first)
    return field
