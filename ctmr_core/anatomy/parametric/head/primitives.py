"""Implicit shapes of the head: signed distances in mm, negative inside, on float32 coordinate arrays."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

#: canonical coordinates of a set of points: x, y, z arrays in mm that broadcast against each other.
Points = tuple[np.ndarray, np.ndarray, np.ndarray]


def ellipsoid(points: Points, centre: Sequence[float], semi: Sequence[float], yaw: float = 0.0, pitch: float = 0.0) -> np.ndarray:
    """First-order signed distance (mm) to an ellipsoid with semi-axes ``semi`` (mm).

    yaw turns the y axis of the ellipsoid towards +x, pitch turns it towards +z (degrees).
    """
    x, y, z = (p - np.float32(c) for p, c in zip(points, centre, strict=True))
    if yaw:
        s, c = np.float32(np.sin(np.radians(yaw))), np.float32(np.cos(np.radians(yaw)))
        x, y = c * x - s * y, s * x + c * y
    if pitch:
        s, c = np.float32(np.sin(np.radians(pitch))), np.float32(np.cos(np.radians(pitch)))
        y, z = c * y + s * z, c * z - s * y
    a, b, c = (np.float32(1.0 / r) for r in semi)
    x, y, z = x * a, y * b, z * c
    k0 = np.sqrt(x * x + y * y + z * z)
    x, y, z = x * a, y * b, z * c
    k1 = np.sqrt(x * x + y * y + z * z) + np.float32(1e-6)
    distance: np.ndarray = k0 * (k0 - np.float32(1.0)) / k1
    # at the very centre the quotient is 0/0: the shortest semi-axis is the distance there
    return np.where(k0 < 1e-3, np.float32(-min(semi)), distance)


def tube(points: Points, nodes: Sequence[Sequence[float]], stretch: Sequence[float] = (1.0, 1.0, 1.0)) -> np.ndarray:
    """Signed distance (mm) to a tube along the polyline ``nodes`` of (x, y, z, radius).

    stretch: factors by which the cross-section is longer along x, y and z than the radius says.
    """
    x, y, z = points
    best: np.ndarray | None = None
    inverse = [np.float32(1.0 / s) for s in stretch]
    for (ax, ay, az, ar), (bx, by, bz, br) in pairwise(nodes):
        dx, dy, dz = (np.float32((b - a) * s) for a, b, s in zip((ax, ay, az), (bx, by, bz), inverse, strict=True))
        px, py, pz = ((p - np.float32(a)) * s for p, a, s in zip((x, y, z), (ax, ay, az), inverse, strict=True))
        t = np.clip((px * dx + py * dy + pz * dz) / (dx * dx + dy * dy + dz * dz + np.float32(1e-9)), 0, 1)
        px, py, pz = px - t * dx, py - t * dy, pz - t * dz
        distance = np.sqrt(px * px + py * py + pz * pz) - (np.float32(ar) + t * np.float32(br - ar))
        best = distance if best is None else np.minimum(best, distance)
    if best is None:
        raise ValueError("a tube needs at least two nodes")
    return best


def smooth_min(a: np.ndarray, b: np.ndarray, k: float) -> np.ndarray:
    """Union of two shapes with a fillet of about ``k`` mm (polynomial smooth minimum)."""
    h = np.maximum(np.float32(k) - np.abs(a - b), 0)
    return np.minimum(a, b) - h * h * np.float32(0.25 / k)


def smooth_max(a: np.ndarray, b: np.ndarray, k: float) -> np.ndarray:
    """Intersection of two shapes with an edge rounded over about ``k`` mm."""
    h = np.maximum(np.float32(k) - np.abs(a - b), 0)
    return np.maximum(a, b) + h * h * np.float32(0.25 / k)


def smoothstep(value: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 below ``low``, 1 above ``high``, a cubic in between."""
    t = np.clip((value - np.float32(low)) / np.float32(high - low), 0, 1)
    return t * t * (np.float32(3.0) - np.float32(2.0) * t)
