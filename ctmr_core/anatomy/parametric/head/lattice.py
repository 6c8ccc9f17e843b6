"""Lattices that stand still in the person: smooth fields are made there once and interpolated onto any grid."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import fft, ndimage

from ctmr_core.anatomy.grid import Grid, Triple


@dataclass(frozen=True)
class Lattice:
    """A regular lattice in RAS+ mm; ``low`` is its first node, ``size`` nodes per axis, ``step`` mm apart."""

    low: Triple
    size: tuple[int, int, int]
    step: float

    @classmethod
    def covering(cls, low: Triple, high: Triple, step: float) -> Lattice:
        """The lattice that covers the box [low, high] (mm); its nodes are multiples of ``step``."""
        first = [int(np.floor(v / step)) for v in low]
        last = [int(np.ceil(v / step)) for v in high]
        x, y, z = (f * step for f in first)
        a, b, c = (b - a + 1 for a, b in zip(first, last, strict=True))
        return cls((x, y, z), (a, b, c), step)

    def axes_mm(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """RAS+ mm of the nodes along each axis (float32)."""
        x, y, z = ((low + self.step * np.arange(n)).astype(np.float32) for low, n in zip(self.low, self.size, strict=True))
        return x, y, z

    @property
    def high(self) -> Triple:
        """RAS+ mm of the last node."""
        x, y, z = (low + self.step * (n - 1) for low, n in zip(self.low, self.size, strict=True))
        return (x, y, z)

    def noise(self, rng: np.random.Generator, wavelength: float, width: float = 0.0) -> np.ndarray:
        """A Gaussian random field of unit variance on the lattice (float32, periodic).

        width 0: low-pass, nothing much shorter than ``wavelength`` mm; width > 0: band-pass around ``wavelength`` with
        this relative standard deviation. Low-pass fields are made on a coarser lattice and interpolated.
        """
        coarse = wavelength / 7
        if not width and coarse > 1.3 * self.step:
            other = Lattice.covering(self.low, self.high, coarse)
            return other.onto(self, other.noise(rng, wavelength))
        white = rng.standard_normal(self.size, dtype=np.float32)
        frequencies = [np.fft.fftfreq(n, self.step).astype(np.float32) for n in self.size[:2]]
        frequencies.append(np.fft.rfftfreq(self.size[2], self.step).astype(np.float32))
        fx, fy, fz = np.meshgrid(*frequencies, indexing="ij", sparse=True)
        radius = np.sqrt(fx * fx + fy * fy + fz * fz) * np.float32(wavelength)
        gain = np.exp(-0.5 * ((radius - 1) / width) ** 2) if width else np.exp(-0.5 * (1.5 * radius) ** 2)
        gain[0, 0, 0] = 0
        field = fft.irfftn(fft.rfftn(white, workers=1) * gain, s=self.size, workers=1)
        return (field / field.std()).astype(np.float32)

    def steepness(self, field: np.ndarray) -> np.ndarray:
        """Magnitude of the gradient of ``field`` per mm."""
        total = np.zeros_like(field)
        for slope in np.gradient(field, self.step):
            total += slope * slope
        return np.sqrt(total, out=total)

    def as_distance(self, field: np.ndarray) -> np.ndarray:
        """A signed distance made of ``field``: the same zero surface, in mm nearby even where ``field`` was stretched."""
        return (field / np.clip(self.steepness(field), 0.6, 1.8)).astype(np.float32)

    def at(self, field: np.ndarray, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        """``field`` of this lattice at scattered points (mm), trilinear, clamped at the border."""
        places = np.stack([(p - np.float32(low)) / np.float32(self.step) for p, low in zip((x, y, z), self.low, strict=True)])
        return ndimage.map_coordinates(field, places, order=1, mode="nearest", output=np.float32)

    def onto(self, other: Lattice, field: np.ndarray) -> np.ndarray:
        """``field`` of this lattice on the nodes of ``other``."""
        return _interpolate(self, field, other.axes_mm())


@dataclass(frozen=True)
class Window:
    """A box of a grid: ``slices`` into the grid and the RAS+ mm ``axes`` of the voxel centres in it."""

    slices: tuple[slice, slice, slice]
    axes: tuple[np.ndarray, np.ndarray, np.ndarray]

    @classmethod
    def of(cls, grid: Grid, low: Triple, high: Triple) -> Window | None:
        """The voxels of ``grid`` whose centres lie in the box [low, high] (mm); None if there are none."""
        slices, axes = [], []
        for axis, a, b in zip(grid.axes_mm(), low, high, strict=True):
            first, last = np.searchsorted(axis, [a, b])
            if last <= first:
                return None
            slices.append(slice(int(first), int(last)))
            axes.append(axis[first:last])
        return cls((slices[0], slices[1], slices[2]), (axes[0], axes[1], axes[2]))

    @cached_property
    def shape(self) -> tuple[int, int, int]:
        """Voxels per axis."""
        x, y, z = (len(axis) for axis in self.axes)
        return (x, y, z)

    def sample(self, lattice: Lattice, field: np.ndarray) -> np.ndarray:
        """``field`` of ``lattice`` at the voxel centres (float32, trilinear, clamped at the border of the lattice)."""
        return _interpolate(lattice, field, self.axes)


def _interpolate(lattice: Lattice, field: np.ndarray, axes: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
    for dimension, axis in enumerate(axes):
        place = np.clip((axis - np.float32(lattice.low[dimension])) / np.float32(lattice.step), 0, lattice.size[dimension] - 1)
        first = np.minimum(place.astype(np.int64), max(lattice.size[dimension] - 2, 0))
        shape = [1, 1, 1]
        shape[dimension] = -1
        weight = (place - first).astype(np.float32).reshape(shape)
        low = np.take(field, first, axis=dimension)
        high = np.take(field, np.minimum(first + 1, lattice.size[dimension] - 1), axis=dimension)
        high -= low
        high *= weight
        low += high
        field = low
    return field
