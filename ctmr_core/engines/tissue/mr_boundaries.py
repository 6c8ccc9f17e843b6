"""Boundaries without an edge: deep grey nuclei pass into white matter over millimetres, which a label map can't say."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ctmr_core.anatomy.tissues import tissues

Box = tuple[slice, slice, slice]

_WIDTH_MM = 2.0  # half width of the transition: the lateral thalamus and the pallidum are crossed by white matter fibres
#: share of a tissue's signal that follows its surroundings; 0 = sharp. White matter takes part beside the nuclei only.
_SOFTNESS = {
    "thalamus": 0.75,
    "pallidum": 0.6,
    "ventral_diencephalon": 0.75,
    "brain_stem": 0.6,
    "putamen": 0.35,
    "caudate": 0.2,
    "cerebral_white_matter": 0.5,
}
_NUCLEI = ("thalamus", "pallidum", "ventral_diencephalon", "putamen", "caudate")


@dataclass(frozen=True, eq=False)
class SoftBoundaries:
    """What is added to the signal inside ``box``: float32 [x, y, z] of the box."""

    box: Box
    change: torch.Tensor

    def apply(self, signal: torch.Tensor, start: int) -> None:
        """Add to ``signal``, planes of the volume from ``start`` on along x [planes, y, z], in place."""
        first = max(start, self.box[0].start)
        last = min(start + signal.shape[0], self.box[0].stop)
        if first < last:
            inner = self.change[first - self.box[0].start : last - self.box[0].start]
            signal[first - start : last - start, self.box[1], self.box[2]] += inner


def soft_boundaries(tissue_map: torch.Tensor, signal: torch.Tensor, spacing: tuple[float, float, float]) -> SoftBoundaries | None:
    """The transitions around the deep nuclei; None where there are no nuclei or the voxels are too coarse to show them.

    tissue_map: uint8 [x, y, z]. signal: float32, image units per tissue id. spacing: mm.
    """
    reach = [round(_WIDTH_MM / mm) for mm in spacing]
    nuclei = _lookup([name in _NUCLEI for name in _names()], tissue_map)
    if not any(reach) or not bool(nuclei.any()):
        return None
    box = _box_around(nuclei, [2 * r for r in reach])
    inside = tissue_map[box].contiguous()
    softness = np.array([_SOFTNESS.get(name, 0.0) for name in _names()], np.float32)
    weight = torch.from_numpy(softness).to(inside.device)[inside.to(torch.int64)]
    member = (weight > 0).to(torch.float32)
    value = signal[inside.to(torch.int64)]
    # Only tissues that pass into each other are averaged: the ventricle beside the thalamus stays sharp.
    around = _smooth(value * member, reach) / _smooth(member, reach).clamp_(min=1e-3)
    return SoftBoundaries(box, (around - value).mul_(weight))


def _names() -> list[str]:
    return [tissue.name for tissue in tissues()]


def _lookup(chosen: list[bool], tissue_map: torch.Tensor) -> torch.Tensor:
    table = torch.tensor(chosen, device=tissue_map.device)
    return torch.index_select(table, 0, tissue_map.reshape(-1).to(torch.int32)).view(tissue_map.shape)


def _box_around(mask: torch.Tensor, margin: list[int]) -> Box:
    slices = []
    for axis in range(3):
        others = [i for i in range(3) if i != axis]
        hit = torch.nonzero(mask.any(dim=others[1]).any(dim=others[0])).flatten()
        low, high = int(hit[0]) - margin[axis], int(hit[-1]) + 1 + margin[axis]
        slices.append(slice(max(low, 0), min(high, mask.shape[axis])))
    return (slices[0], slices[1], slices[2])


def _smooth(volume: torch.Tensor, reach: list[int]) -> torch.Tensor:
    """Two running means of ``2 reach + 1`` voxels along every axis, the border continued."""
    padding = [n for axis in (2, 1, 0) for n in (reach[axis], reach[axis])]
    kernel = [2 * r + 1 for r in reach]
    volume = volume[None, None]
    for _ in range(2):
        volume = torch.nn.functional.avg_pool3d(torch.nn.functional.pad(volume, padding, mode="replicate"), kernel, stride=1)
    return volume[0, 0]
