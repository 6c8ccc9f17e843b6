"""Slices of a volume in three planes, as the 2.5D Fréchet distance of NVIDIA's MAISI takes them.

CT: on the spacing and size asked for (linear; padded with -1000 HU, cropped around the centre), clipped to +-1000 HU; the
middle slices of every axis (30 to 70 % of it); every plane of a volume stretched from its smallest to its largest value to
0..1. MR has no fixed unit: its values are clipped at two percentiles of the volume first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ctmr_core.anatomy.sequences import is_ct

PLANES = ("xy", "yz", "zx")
AIR_HU, LIMIT_HU = -1000.0, 1000.0
MR_PERCENTS = (0.5, 99.5)


@dataclass(frozen=True)
class SliceProtocol:
    """spacing (mm) and size (voxels) [x, y, z] of the grid, None = the volume's own. middle: share of each axis that is used.

    slices: at most so many of a plane, evenly spread; None = all.
    """

    spacing: tuple[float, float, float] | None = None
    size: tuple[int, int, int] | None = None
    middle: float = 0.4
    slices: int | None = None

    def describe(self) -> dict[str, object]:
        """JSON-able."""
        return {
            "spacing": list(self.spacing) if self.spacing else None,
            "size": list(self.size) if self.size else None,
            "middle": self.middle,
            "slices": self.slices,
        }


def plane_slices(
    image: np.ndarray, spacing: tuple[float, float, float], sequence: str, protocol: SliceProtocol
) -> dict[str, np.ndarray]:
    """Plane -> float32 [slices, rows, columns] in 0..1, of an image [x, y, z] RAS+ (CT in HU)."""
    values = _prepared(image, spacing, sequence, protocol)
    return {plane: _stretched(_middle(values, axis, protocol)) for plane, axis in zip(PLANES, (2, 0, 1), strict=True)}


def _prepared(image: np.ndarray, spacing: tuple[float, float, float], sequence: str, protocol: SliceProtocol) -> np.ndarray:
    values = np.asarray(image, np.float32)
    empty = AIR_HU
    if not is_ct(sequence):
        low, high = np.percentile(values, MR_PERCENTS)
        values = (values - np.float32(low)) / np.float32(max(high - low, 1e-6))
        values = np.clip(values, 0, 1)
        empty = 0.0
    if protocol.spacing is not None and not np.allclose(protocol.spacing, spacing):
        values = _respaced(values, spacing, protocol.spacing)
    if protocol.size is not None and protocol.size != values.shape:
        import torch
        from monai.transforms import CenterSpatialCrop, SpatialPad

        padded = SpatialPad(protocol.size, mode="constant", value=empty)(torch.from_numpy(values)[None])
        values = np.asarray(CenterSpatialCrop(protocol.size)(padded))[0]
    return np.clip(values, AIR_HU, LIMIT_HU) if is_ct(sequence) else values


def _respaced(values: np.ndarray, old: tuple[float, float, float], new: tuple[float, float, float]) -> np.ndarray:
    import torch
    from monai.data import MetaTensor
    from monai.transforms import Spacing

    tensor = MetaTensor(torch.from_numpy(np.ascontiguousarray(values))[None], affine=torch.diag(torch.tensor([*old, 1.0])))
    return np.asarray(Spacing(pixdim=new, mode="bilinear")(tensor))[0].astype(np.float32)


def _middle(values: np.ndarray, axis: int, protocol: SliceProtocol) -> np.ndarray:
    n = values.shape[axis]
    first, last = int((1 - protocol.middle) / 2 * n), int((1 + protocol.middle) / 2 * n)
    places = np.arange(first, max(last, first + 1))
    if protocol.slices is not None and len(places) > protocol.slices:
        places = places[np.linspace(0, len(places) - 1, protocol.slices).round().astype(np.intp)]
    return np.moveaxis(values, axis, 0)[places]


def _stretched(slices: np.ndarray) -> np.ndarray:
    low, high = float(slices.min()), float(slices.max())
    return np.ascontiguousarray((slices - low) / np.float32(max(high - low, 1e-12)), np.float32)
