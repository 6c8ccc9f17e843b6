"""Voxel grids: size, spacing and place of a volume in the patient's space."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ctmr_core.errors import AnatomyError

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Grid:
    """An axis-aligned RAS+ grid.

    Axis order is [x, y, z] and indices grow towards the patient's right (+x), front (+y) and head (+z).

    size: voxels per axis. spacing: mm per voxel. origin: mm, RAS+ position of the centre of voxel (0, 0, 0).
    """

    size: tuple[int, int, int]
    spacing: Triple
    origin: Triple = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        if any(int(n) != n or n < 1 for n in self.size):
            raise AnatomyError("a grid needs a positive whole number of voxels per axis", found=self.size)
        if not all(np.isfinite(mm) and mm > 0 for mm in self.spacing):
            raise AnatomyError("a grid needs positive spacing in mm", found=self.spacing)

    @property
    def affine(self) -> np.ndarray:
        """4x4 float64, voxel index -> RAS+ mm."""
        affine = np.diag([*self.spacing, 1.0])
        affine[:3, 3] = self.origin
        return affine

    @property
    def extent_mm(self) -> Triple:
        """Field of view in mm: size x spacing."""
        x, y, z = (n * mm for n, mm in zip(self.size, self.spacing, strict=True))
        return (x, y, z)

    @classmethod
    def centred(cls, size: tuple[int, int, int], spacing: Triple, centre_mm: Triple = (0.0, 0.0, 0.0)) -> Grid:
        """The grid whose field of view is centred on ``centre_mm`` (RAS+ mm)."""
        x, y, z = (c - (n - 1) / 2 * mm for c, n, mm in zip(centre_mm, size, spacing, strict=True))
        return cls(size, spacing, (x, y, z))

    def axes_mm(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """RAS+ mm coordinates of the voxel centres along x, y and z (float32, 1-D each)."""
        x, y, z = (
            (o + mm * np.arange(n)).astype(np.float32) for o, mm, n in zip(self.origin, self.spacing, self.size, strict=True)
        )
        return x, y, z
