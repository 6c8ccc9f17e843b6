"""Surfaces of the label map: thin layers that a voxel holds a share of."""

from __future__ import annotations

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
