"""Surfaces of the label map: thin layers that a voxel holds a share of."""

from __future__ import annotations

import numpy as np
import torch


def neighbours_of(place: torch.Tensor, size: tuple[int, int, int]) -> list[torch.Tensor]:
    """Flat indices of the six neighbours of the voxels ``place``; a voxel at the border stands for the one beyond it."""
    nx, ny, nz = size
    neighbours = []
    for axis, (n, stride) in enumerate(((nx, ny * nz), (ny, nz), (nz, 1))):
        along = place.div(stride, rounding_mode="floor")
        if axis:
            along.remainder_(n)
        for step, limit in ((-stride, 0), (stride, n - 1)):
            at_border = along == limit
            neighbour = place + step
            neighbours.append(torch.where(at_border, place, neighbour) if bool(at_border.any()) else neighbour)
    return neighbours


def voxels_beside(mask: torch.Tensor) -> torch.Tensor:
    """Bool [x, y, z]: the voxels with a face towards ``mask`` (bool, same size)."""
    beside = torch.zeros_like(mask)
    for axis, n in enumerate(mask.shape):
        if n < 2:
            continue
        beside.narrow(axis, 1, n - 1).logical_or_(mask.narrow(axis, 0, n - 1))
        beside.narrow(axis, 0, n - 1).logical_or_(mask.narrow(axis, 1, n - 1))
    return beside


def flat_indices(mask: torch.Tensor) -> torch.Tensor:
    """Ascending flat indices (int64) of the true voxels of ``mask``."""
    if mask.device.type == "cpu":  # NumPy takes a third of the time
        return torch.from_numpy(np.flatnonzero(mask.numpy()))
    return torch.nonzero(mask.view(-1)).view(-1)
