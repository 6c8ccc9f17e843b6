"""The person: everything about a head that is drawn once, and how the room maps into the canonical head.

The canonical head is a mean adult: origin at the centroid of the brain, +x right, +y front, +z up, mm. A person is
that head scaled, rotated a little (nobody lies straight in a scanner) and bent by one smooth displacement field.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ctmr_core.anatomy.grid import Triple
from ctmr_core.anatomy.parametric.base import Streams
from ctmr_core.anatomy.parametric.head.lattice import Lattice, Window
from ctmr_core.anatomy.parametric.head.primitives import Points

_WARP_MARGIN_MM = 9.0
_ROOM = ((-150.0, -150.0, -240.0), (150.0, 170.0, 130.0))


@dataclass(frozen=True)
class Traits:
    """The draws that make a person. Lengths in mm; factors are relative to the mean adult."""

    female: bool
    scale: Triple
    angles_deg: Triple
    ventricles: float  # factor on ventricular radii
    atrophy: float  # 0 young and full ... 1 marked: widens sulci and cisterns
    cortex_mm: float
    gyrus_mm: float
    skull_mm: float
    diploe: float
    fat_mm: float
    skin_mm: float
    face: float


def draw_traits(rng: np.random.Generator) -> Traits:
    """Draw one adult. Sex shifts size by about 10 % of volume, as in ICRP 110 (brain 1381 mL male, 1238 mL female)."""
    female = bool(rng.random() < 0.5)
    size = float(np.clip(rng.normal(0.985 if female else 1.02, 0.02), 0.94, 1.07))
    breadth = float(np.clip(rng.normal(0.0, 0.022), -0.05, 0.05))
    height = float(np.clip(rng.normal(0.0, 0.018), -0.04, 0.04))
    age = float(rng.beta(1.6, 2.4))  # 0 young ... 1 old
    return Traits(
        female=female,
        scale=(size * (1 + breadth), size * (1 - breadth - height / 2), size * (1 + height)),
        angles_deg=(float(rng.normal(0, 5.0)), float(rng.normal(0, 1.8)), float(rng.normal(0, 1.5))),
        ventricles=float(np.clip(np.exp(rng.normal(0.18 + 0.65 * (age - 0.4), 0.17)), 0.75, 1.75)),
        atrophy=float(np.clip(age + rng.normal(0, 0.12), 0, 1)),
        cortex_mm=float(np.clip(rng.normal(2.56 - 0.2 * age, 0.08), 2.2, 2.85)),
        gyrus_mm=float(np.clip(rng.normal(23.0, 1.0), 21.0, 25.5)),
        skull_mm=float(np.clip(rng.normal(7.0 if female else 6.6, 0.8), 5.0, 9.5)),
        diploe=float(np.clip(rng.normal(0.24, 0.05), 0.14, 0.36)),
        fat_mm=float(np.clip(np.exp(rng.normal(np.log(3.6), 0.25)), 2.2, 7.0)),
        skin_mm=float(np.clip(rng.normal(2.6, 0.2), 2.1, 3.2)),
        face=float(np.clip(rng.normal(0.96 if female else 1.02, 0.03), 0.9, 1.1)),
    )


class Person:
    """One head: traits, the affine part of its pose and shape, and its displacement field."""

    def __init__(self, streams: Streams) -> None:
        self.streams = streams
        self.traits = draw_traits(streams("head/traits"))
        pitch, yaw, roll = np.radians(self.traits.angles_deg)
        turn_x = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
        turn_z = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
        turn_y = np.array([[np.cos(roll), 0, np.sin(roll)], [0, 1, 0], [-np.sin(roll), 0, np.cos(roll)]])
        self._forward = turn_x @ turn_y @ turn_z @ np.diag(self.traits.scale)  # canonical -> room
        self._inverse = np.linalg.inv(self._forward).astype(np.float32)
        self._warp_lattice = Lattice.covering(*_ROOM, 8.0)

    @cached_property
    def _warp(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rng = self.streams("head/warp")
        fields = [
            np.clip(reach * self._warp_lattice.noise(rng, 110.0) + 0.42 * self._warp_lattice.noise(rng, 48.0), -7, 7)
            for reach in (1.1, 1.6, 1.6)  # little across the midline: the sides of a brain differ by a few per cent
        ]
        return (fields[0], fields[1], fields[2])

    def canonical(self, where: Lattice | Window) -> Points:
        """Canonical coordinates (mm, float32 [x, y, z] arrays) of the nodes of a lattice or the voxels of a window."""
        x, y, z = where.axes if isinstance(where, Window) else where.axes_mm()
        x, y, z = x[:, None, None], y[None, :, None], z[None, None, :]
        coordinates = []
        for row, warp in zip(self._inverse, self._warp, strict=True):
            lattice = self._warp_lattice
            shift = where.sample(lattice, warp) if isinstance(where, Window) else lattice.onto(where, warp)
            shift += row[0] * x + row[1] * y
            shift += row[2] * z
            coordinates.append(shift)
        return (coordinates[0], coordinates[1], coordinates[2])

    def room_box(self, low: Triple, high: Triple) -> tuple[Triple, Triple]:
        """A box in the room (mm) that holds the canonical box [low, high] wherever the displacement may move it."""
        corners = np.array(
            [[(low, high)[i][0], (low, high)[j][1], (low, high)[k][2]] for i in (0, 1) for j in (0, 1) for k in (0, 1)]
        )
        placed = corners @ self._forward.T
        a, b, c = (float(v) for v in placed.min(0) - _WARP_MARGIN_MM)
        d, e, f = (float(v) for v in placed.max(0) + _WARP_MARGIN_MM)
        return (a, b, c), (d, e, f)

    def to_room(self, point: Triple) -> Triple:
        """RAS+ mm in the room of a canonical point (fixed-point inversion of the displacement)."""
        target = np.asarray(point, float)
        place = self._forward @ target
        for _ in range(12):
            here = [np.array([v], np.float32) for v in place]
            shift = np.array([float(self._warp_lattice.at(w, *here)[0]) for w in self._warp])
            place = self._forward @ (target - shift)
        x, y, z = (float(v) for v in place)
        return (x, y, z)

    def lattice(self, low: Triple, high: Triple, step: float) -> Lattice:
        """A lattice in the room over the canonical box [low, high]."""
        return Lattice.covering(*self.room_box(low, high), step)
