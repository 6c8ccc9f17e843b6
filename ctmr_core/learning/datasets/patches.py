"""Where a patch lies in its volume: corner, what is read, what is padded, and its affine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Border = Literal["shift", "pad"]


@dataclass(frozen=True)
class Patch:
    """A box of ``size`` voxels whose first voxel is voxel ``corner`` of the volume; corner may be negative.

    inside: slices of the volume that the patch shows. target: slices of the patch they go to. Both empty along an axis on which
    the patch misses the volume.
    """

    corner: tuple[int, int, int]
    size: tuple[int, int, int]
    inside: tuple[slice, slice, slice]
    target: tuple[slice, slice, slice]

    @property
    def is_whole(self) -> bool:
        """Whether nothing is padded."""
        return all(part.stop - part.start == n for part, n in zip(self.target, self.size, strict=True))

    def affine(self, volume_affine: np.ndarray) -> np.ndarray:
        """4x4 float64, voxel index of the patch -> RAS+ mm, given that of the volume."""
        affine = np.array(volume_affine, np.float64)
        affine[:3, 3] += affine[:3, :3] @ np.asarray(self.corner, np.float64)
        return affine

    def padded(self, voxels: np.ndarray, fill: float) -> np.ndarray:
        """The whole patch, ``fill`` where it reaches out of the volume; C order, dtype of ``voxels`` (what ``inside`` shows)."""
        if self.is_whole:
            return voxels
        whole = np.full(self.size, fill, voxels.dtype)
        whole[self.target] = voxels
        return whole


def place_patch(center: Sequence[float], size: Sequence[int], volume: Sequence[int], border: Border, align: int = 1) -> Patch:
    """The patch of ``size`` voxels around voxel index ``center`` of a volume of ``volume`` voxels, all [x, y, z].

    border "pad": exactly there, padded where it reaches out. "shift": moved into the volume; padded on both sides along axes on
    which the volume is smaller than the patch. align: the corner is moved to the nearest multiple of so many voxels first.
    """
    corner, inside, target = [], [], []
    for c, n, whole in zip(center, size, volume, strict=True):
        start = (int(np.floor(c)) - n // 2 + align // 2) // align * align
        if border == "shift":
            start = min(max(start, 0), whole - n) if whole >= n else -((n - whole) // 2)
        low, high = max(start, 0), min(start + n, whole)
        high = max(low, high)
        corner.append(start)
        inside.append(slice(low, high))
        target.append(slice(low - start, high - start))
    return Patch(_triple(corner), _triple(size), _triple(inside), _triple(target))


def _triple(values: Sequence[object]) -> tuple:  # type: ignore[type-arg]
    x, y, z = values
    return (x, y, z)
