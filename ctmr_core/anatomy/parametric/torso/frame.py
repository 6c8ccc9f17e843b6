"""Where the person is: canonical space, and the one smooth warp that takes all structures to the patient together.

Canonical space is that of a person of 1.76 m: RAS+ mm (+x right, +y front, +z head), z = 0 at the middle of L3.
Heights and positions of organs follow the ICRP 110 adult phantoms; ``proportions`` makes the parts of the trunk longer or
shorter, and whatever lies at a height goes with it.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from scipy.ndimage import map_coordinates

from ctmr_core.anatomy.parametric.base import Streams
from ctmr_core.anatomy.parametric.shapes import Axes, Profile, SplineNoise
from ctmr_core.anatomy.parametric.torso.person import Person

_HALF_EXTENT = (440.0, 320.0, 640.0)
_TABLE_STEP = 20.0
_HIPS = Profile((-400.0, -220.0, -120.0, 20.0, 120.0, 400.0), (0.8, 1.0, 1.0, 0.25, 0.0, 0.0))


class Frame:
    """The map patient mm -> canonical mm (fields) and its inverse for points (tubes)."""

    def __init__(self, streams: Streams, person: Person) -> None:
        rng = streams("torso/warp")
        self.person = person
        self._scale = np.asarray(person.scale)
        self._canonical, own = person.proportions.heights()
        self._own = own * self._scale[2]
        self._broad = [SplineNoise(rng, 150.0, _HALF_EXTENT) for _ in range(3)]
        self._fine = [SplineNoise(rng, 60.0, _HALF_EXTENT) for _ in range(3)]
        self._amplitude = np.clip(rng.normal((4.0, 3.5, 4.5), 1.0), 1.5, 6.5)
        heights = tuple(np.linspace(-420.0, 460.0, 6).tolist())
        side = np.clip(rng.normal(0.0, 2.5, 6), -6, 6)
        bend = np.clip(rng.normal(0.0, 3.5, 6), -8, 8)
        self._sway = Profile(heights, tuple(side.tolist())), Profile(heights, tuple(bend.tolist()))

    def _displacement(self, noise: list[np.ndarray], z: np.ndarray) -> list[np.ndarray]:
        broad, fine = noise[:3], noise[3:]
        u = [np.float32(self._amplitude[i]) * broad[i] + np.float32(1.1) * fine[i] for i in range(3)]
        u[0] = u[0] + self._sway[0](z)
        u[1] = u[1] + self._sway[1](z)
        return u

    def _narrow(self, z: np.ndarray) -> np.ndarray:
        return 1.0 / (1.0 + np.float32(self.person.hips) * _HIPS(z))

    def to_canonical(self, axes: Axes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Canonical coordinates (float32 [x, y, z] arrays) of the lattice spanned by patient-mm axes."""
        noise = [field.on_lattice(axes) for field in (*self._broad, *self._fine)]
        z = self._height(axes[2]).astype(np.float32)[None, None, :]
        u = self._displacement(noise, z)
        x = (axes[0] / self._scale[0]).astype(np.float32)[:, None, None] * self._narrow(z) + u[0]
        y = (axes[1] / self._scale[1]).astype(np.float32)[None, :, None] + u[1]
        return x, y, z + u[2]

    def _height(self, z: np.ndarray) -> np.ndarray:
        """Canonical heights of patient ``z``, before the warp."""
        return np.interp(z, self._own, self._canonical)

    def _stretched(self, points: np.ndarray) -> np.ndarray:
        """Patient mm of canonical ``points`` (n, 3), before the warp."""
        world = points * self._scale
        world[:, 2] = np.interp(points[:, 2], self._canonical, self._own)
        return world

    @cached_property
    def _table(self) -> np.ndarray:
        """Canonical minus scaled and stretched patient coordinates every 20 mm of patient space, [3, x, y, z]."""
        axes = tuple(np.arange(-half, half + 1, _TABLE_STEP) for half in _HALF_EXTENT)
        canonical = self.to_canonical(axes)  # type: ignore[arg-type]
        scaled = np.meshgrid(axes[0] / self._scale[0], axes[1] / self._scale[1], self._height(axes[2]), indexing="ij")
        return np.stack([c - s for c, s in zip(np.broadcast_arrays(*canonical), scaled, strict=True)])

    def to_patient(self, points: np.ndarray) -> np.ndarray:
        """Patient mm of canonical ``points`` (n, 3), by fixed-point iteration (the warp is gentle)."""
        target = np.asarray(points, float)
        world = self._stretched(target)
        start = np.asarray(_HALF_EXTENT)
        for _ in range(7):
            place = ((world + start) / _TABLE_STEP).T
            shift = np.stack([map_coordinates(u, place, order=1, mode="nearest") for u in self._table], axis=1)
            world = self._stretched(target - shift)
        return world
