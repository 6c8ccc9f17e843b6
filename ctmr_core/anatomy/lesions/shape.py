"""Shapes of lesions: ellipsoids with a smooth, irregular outline and an exact volume."""

from __future__ import annotations

import numpy as np

from ctmr_core.anatomy.tissue_map.canvas import smooth_noise

_ELONGATION = 0.15  # standard deviation of the logarithm of the axes' lengths


def irregular_ball(
    diameter_mm: float, spacing: np.ndarray, rng: np.random.Generator, *, roughness: float, axes: np.ndarray | None = None
) -> np.ndarray:
    """Bool [x, y, z] with odd sides, the shape in its middle.

    The volume is that of a ball of ``diameter_mm`` to within a voxel. roughness: standard deviation of the outline, as a
    share of the radius, at a scale of half the diameter (so it stays smooth at 2-3 mm).
    axes: optional [3, 3], rows are the axes in mm along x, y, z, their lengths relative to the radius; None draws
    axis-aligned ones close to 1.
    """
    radius = diameter_mm / 2
    if axes is None:
        stretch = np.exp(_ELONGATION * rng.standard_normal(3))
        axes = np.diag(stretch / np.prod(stretch) ** (1 / 3))
    reach = radius * (1 + 3 * roughness) * float(np.abs(axes).sum(axis=0).max()) + spacing
    half = np.ceil(reach / spacing).astype(int)
    x, y, z = (np.arange(-n, n + 1) * mm for n, mm in zip(half, spacing, strict=True))
    places = np.stack(np.meshgrid(x, y, z, indexing="ij"), -1).astype(np.float32)
    scaled = places @ np.linalg.inv(axes).astype(np.float32) / np.float32(radius)
    distance = np.sqrt((scaled**2).sum(axis=-1))
    distance += np.float32(roughness) * smooth_noise(distance.shape, spacing, max(radius, 2.5), rng) * np.minimum(distance, 1)
    volume = max(1, round(np.pi / 6 * diameter_mm**3 / float(np.prod(spacing))))
    limit = np.partition(distance.ravel(), min(volume, distance.size) - 1)[min(volume, distance.size) - 1]
    return distance <= limit
