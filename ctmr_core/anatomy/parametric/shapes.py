"""Implicit shapes for parametric bodies: fields that are negative inside, near to signed distances in mm.

Coordinates come either as broadcastable arrays (``x, y, z``) or, for swept shapes, as three 1-D axes of a regular
lattice, so that each short piece of a tube touches only the lattice points near it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.interpolate import Akima1DInterpolator

Axes = tuple[np.ndarray, np.ndarray, np.ndarray]
Vector = tuple[float, float, float]

#: standard deviation of a cubic B-spline surface over unit white noise in 3-D, averaged over a cell.
_SPLINE_NOISE_SD = (151.0 / 315.0) ** 1.5


def smooth_max(a: np.ndarray, b: np.ndarray, radius: float) -> np.ndarray:
    """Intersection of two fields, rounded over ``radius`` mm where they cross (polynomial blend)."""
    blend = np.maximum(radius - np.abs(a - b), 0.0)
    return np.maximum(a, b) + blend * blend * (0.25 / radius)


def smooth_min(a: np.ndarray, b: np.ndarray, radius: float) -> np.ndarray:
    """Union of two fields, filleted over ``radius`` mm where they meet (polynomial blend)."""
    blend = np.maximum(radius - np.abs(a - b), 0.0)
    return np.minimum(a, b) - blend * blend * (0.25 / radius)


def rotation(about_x: float = 0.0, about_y: float = 0.0, about_z: float = 0.0) -> np.ndarray:
    """3x3 matrix whose rows are the axes of a shape turned by the given degrees about x, then y, then z."""
    ax, ay, az = np.deg2rad([about_x, about_y, about_z])
    rx = np.array([[1, 0, 0], [0, np.cos(ax), -np.sin(ax)], [0, np.sin(ax), np.cos(ax)]])
    ry = np.array([[np.cos(ay), 0, np.sin(ay)], [0, 1, 0], [-np.sin(ay), 0, np.cos(ay)]])
    rz = np.array([[np.cos(az), -np.sin(az), 0], [np.sin(az), np.cos(az), 0], [0, 0, 1]])
    return (rz @ ry @ rx).T


def ellipsoid(
    x: np.ndarray, y: np.ndarray, z: np.ndarray, centre: Vector, radii: Vector, axes: np.ndarray | None = None
) -> np.ndarray:
    """Near-distance (mm) to an ellipsoid: exact on the surface, within some percent close to it.

    centre, radii: mm. axes: 3x3, rows are the unit axes of the ellipsoid (``rotation``); None: along x, y, z.
    """
    px, py, pz = x - np.float32(centre[0]), y - np.float32(centre[1]), z - np.float32(centre[2])
    if axes is not None:
        m = axes.astype(np.float32)
        px, py, pz = (m[i, 0] * px + m[i, 1] * py + m[i, 2] * pz for i in range(3))
    px, py, pz = (np.square(p / np.float32(r)) for p, r in zip((px, py, pz), radii, strict=True))
    level = np.sqrt(px + py + pz)
    for p, r in zip((px, py, pz), radii, strict=True):
        p /= np.float32(r * r)
    slope = np.sqrt(px + py + pz) + np.float32(1e-6)
    return level * (level - 1) / slope


def superellipse(x: np.ndarray, dy: np.ndarray, half_width: np.ndarray, half_depth: np.ndarray) -> np.ndarray:
    """Radial distance (mm) to a superellipse of exponent 2.5 in the x-y plane (the cross-section of a trunk)."""
    u, v = np.abs(x) / half_width, np.abs(dy) / half_depth
    level = np.power(u * u * np.sqrt(u) + v * v * np.sqrt(v) + np.float32(1e-6), np.float32(0.4))
    radius = np.sqrt(x * x + dy * dy)
    return radius - radius / level - np.maximum(1 - level, 0) * 2


@dataclass(frozen=True)
class Profile:
    """A quantity as a smooth function of one coordinate: knots (increasing) and values, constant beyond the ends."""

    knots: tuple[float, ...]
    values: tuple[float, ...]

    @lru_cache(maxsize=64)  # noqa: B019 - a profile is a module constant or lives as long as its person
    def table(self, step: float = 2.0) -> tuple[float, np.ndarray]:
        """First coordinate and equally spaced values (float32), Akima-interpolated between the knots."""
        fine = np.arange(self.knots[0], self.knots[-1] + step, step)
        values = Akima1DInterpolator(self.knots, self.values)(np.minimum(fine, self.knots[-1]))
        return float(fine[0]), values.astype(np.float32)

    def __call__(self, at: np.ndarray, step: float = 2.0) -> np.ndarray:
        """Values at ``at`` (any shape), float32."""
        start, values = self.table(step)
        place = np.clip((np.asarray(at, np.float32) - np.float32(start)) / np.float32(step), 0, len(values) - 1.001)
        index = place.astype(np.int32)
        weight = place - index
        return values[index] * (1 - weight) + values[index + 1] * weight


def spline(points: Sequence[Sequence[float]] | np.ndarray, step: float) -> tuple[np.ndarray, np.ndarray]:
    """A smooth curve through ``points`` (any number of columns: position, radius ...), sampled about every ``step`` mm.

    Returns the samples (n, columns) and their place along the knots (n,), 0 .. len(points) - 1.
    """
    knots = np.asarray(points, float)
    chord = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(knots[:, :3], axis=0), axis=1))])
    count = max(2, int(np.ceil(chord[-1] / step)) + 1)
    at = np.linspace(0, chord[-1], count)
    if len(knots) < 3:
        samples = np.stack([np.interp(at, chord, column) for column in knots.T], axis=1)
    else:
        samples = Akima1DInterpolator(chord, knots)(at)
    return samples, np.interp(at, chord, np.arange(len(knots)))


def _window(axis: np.ndarray, low: float, high: float) -> slice:
    return slice(int(np.searchsorted(axis, low)), int(np.searchsorted(axis, high, side="right")))


def sweep(
    axes: Axes,
    points: np.ndarray,
    radii: np.ndarray,
    reach: float = 8.0,
    thin: np.ndarray | None = None,
    ratio: float = 1.0,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Distance (mm) to a tube swept along a polyline, on a lattice; ``reach`` where the tube is farther than that.

    axes: 1-D lattice coordinates. points: (n, 3) mm. radii: (n,) mm.
    thin: (n, 3) unit directions in which the section is ``ratio`` times thinner (elliptic section).
    out: an earlier result to unite with.
    """
    if out is None:
        out = np.full(tuple(len(axis) for axis in axes), reach, np.float32)
    for i in range(len(points) - 1):
        a, b, ra, rb = points[i], points[i + 1], float(radii[i]), float(radii[i + 1])
        margin = max(ra, rb) + reach
        box = tuple(_window(axis, min(p, q) - margin, max(p, q) + margin) for axis, p, q in zip(axes, a, b, strict=True))
        if any(side.stop <= side.start for side in box):
            continue
        d = (b - a).astype(np.float32)
        px = (axes[0][box[0]] - a[0]).astype(np.float32)[:, None, None]
        py = (axes[1][box[1]] - a[1]).astype(np.float32)[None, :, None]
        pz = (axes[2][box[2]] - a[2]).astype(np.float32)[None, None, :]
        along = np.clip((px * d[0] + py * d[1] + pz * d[2]) / np.float32(max(float(d @ d), 1e-6)), 0, 1)
        qx, qy, qz = px - along * d[0], py - along * d[1], pz - along * d[2]
        square = qx * qx + qy * qy + qz * qz
        if thin is not None and ratio != 1.0:
            n = thin[i].astype(np.float32)
            across = qx * n[0] + qy * n[1] + qz * n[2]
            square += np.float32(ratio * ratio - 1) * across * across
        distance = np.sqrt(square) - (ra + along * np.float32(rb - ra))
        np.minimum(out[box], distance, out=out[box])
    return out


def plate(
    axes: Axes, corners: np.ndarray, half_thickness: float, reach: float = 8.0, out: np.ndarray | None = None
) -> np.ndarray:
    """Distance (mm) to a rounded triangular plate, on a lattice. corners: (3, 3) mm, one corner a row."""
    if out is None:
        out = np.full(tuple(len(axis) for axis in axes), reach, np.float32)
    margin = half_thickness + reach
    box = tuple(_window(axis, c.min() - margin, c.max() + margin) for axis, c in zip(axes, corners.T, strict=True))
    if any(side.stop <= side.start for side in box):
        return out
    grid = np.meshgrid(*(axis[side].astype(np.float32) for axis, side in zip(axes, box, strict=True)), indexing="ij")
    normal = np.cross(corners[1] - corners[0], corners[2] - corners[0])
    normal = normal / max(float(np.linalg.norm(normal)), 1e-9)
    inside = np.ones(grid[0].shape, bool)
    edge2 = np.full(grid[0].shape, np.inf, np.float32)
    for i in range(3):
        a, d = corners[i], corners[(i + 1) % 3] - corners[i]
        p = [g - np.float32(c) for g, c in zip(grid, a, strict=True)]
        outward = np.cross(d, normal)
        inside &= sum(q * np.float32(o) for q, o in zip(p, outward, strict=True)) <= 0
        t = np.clip(sum(q * np.float32(e) for q, e in zip(p, d, strict=True)) / np.float32(d @ d), 0, 1)
        np.minimum(edge2, sum(np.square(q - t * np.float32(e)) for q, e in zip(p, d, strict=True)), out=edge2)
    height = sum((g - np.float32(c)) * np.float32(n) for g, c, n in zip(grid, corners[0], normal, strict=True))
    distance = np.where(inside, np.abs(height), np.sqrt(edge2)) - np.float32(half_thickness)
    np.minimum(out[box], distance, out=out[box])
    return out


class SplineNoise:
    """Smooth random fields over all of space near the body: cubic B-splines over independent normal coefficients.

    The field has mean 0 and standard deviation about 1; ``spacing`` (mm) is its grain. It is a function of position
    only, so any two lattices see the same field.
    """

    def __init__(self, rng: np.random.Generator, spacing: float, half_extent: Vector) -> None:
        self.spacing = float(spacing)
        counts = [2 * int(np.ceil(half / spacing)) + 5 for half in half_extent]
        self.start = [-(n // 2) * self.spacing for n in counts]
        self.coefficients = (rng.standard_normal(counts) / _SPLINE_NOISE_SD).astype(np.float32)

    def _weights(self, at: np.ndarray, axis: int) -> tuple[np.ndarray, list[np.ndarray]]:
        place = (np.asarray(at, np.float64) - self.start[axis]) / self.spacing
        place = np.clip(place, 1.0, self.coefficients.shape[axis] - 2.001)
        index = np.floor(place).astype(np.int64)
        t = place - index
        weights = [(1 - t) ** 3 / 6, (3 * t**3 - 6 * t**2 + 4) / 6, (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6, t**3 / 6]
        return index - 1, [w.astype(np.float32) for w in weights]

    def on_lattice(self, axes: Axes) -> np.ndarray:
        """Values (float32) on the lattice spanned by three 1-D axes (mm)."""
        values = self.coefficients
        for axis in (2, 1, 0):
            index, weights = self._weights(axes[axis], axis)
            shape = [1, 1, 1]
            shape[axis] = -1
            values = sum(np.take(values, index + j, axis=axis) * weights[j].reshape(shape) for j in range(4))
        return values

    def at_points(self, points: np.ndarray) -> np.ndarray:
        """Values (float32) at ``points`` (n, 3) mm."""
        tables = [self._weights(points[:, axis], axis) for axis in range(3)]
        values = np.zeros(len(points), np.float32)
        for i in range(4):
            for j in range(4):
                for k in range(4):
                    taps = self.coefficients[tables[0][0] + i, tables[1][0] + j, tables[2][0] + k]
                    values += taps * tables[0][1][i] * tables[1][1][j] * tables[2][1][k]
        return values


def refine(field: np.ndarray, coarse: Axes, fine: Axes) -> np.ndarray:
    """Trilinear values of ``field`` (on equally spaced axes ``coarse``) at the lattice ``fine``; float32."""
    for axis in (2, 1, 0):
        source, target = coarse[axis], fine[axis]
        step = (source[-1] - source[0]) / max(len(source) - 1, 1)
        place = np.clip((target - source[0]) / step, 0, len(source) - 1)
        index = np.minimum(place.astype(np.int64), max(len(source) - 2, 0))
        weight = (place - index).astype(np.float32)
        shape = [1, 1, 1]
        shape[axis] = -1
        low = np.take(field, index, axis=axis)
        high = np.take(field, np.minimum(index + 1, len(source) - 1), axis=axis)
        high -= low
        high *= weight.reshape(shape)
        low += high
        field = low
    return field
