"""How a body lies in the scanner: turned as a whole, rigidly, about a point of its own.

Axes are those of the body's own space: x to the patient's right, y to the front, z to the head. A turn is never a reason to
lose anatomy silently: ``lost_structures`` names what was whole in view before and no longer is.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from ctmr_core.anatomy.label_map import LabelMap

#: more than this share of a structure must be lost before it counts: interpolation moves volumes by less.
_LOST_SHARE = 0.05
_SMALLEST = 64  # voxels of the coarse map a structure must have to be compared
_ENVELOPES = {"maisi": (200,), "brain": (511,)}

Point = tuple[float, float, float]


@dataclass(frozen=True)
class Pose:
    """Angles in degrees. nod: positive = chin to the chest, negative = back. turn: positive = face to the patient's right.
    tilt: positive = top of the head to the right shoulder. Applied in the order tilt, nod, turn.
    """

    nod: float = 0.0
    turn: float = 0.0
    tilt: float = 0.0

    @cached_property
    def matrix(self) -> np.ndarray:
        """3x3 float64: where the axes of the body point in the scanner."""
        nod, turn, tilt = np.deg2rad([self.nod, self.turn, self.tilt])
        nodded = np.array([[1, 0, 0], [0, np.cos(nod), np.sin(nod)], [0, -np.sin(nod), np.cos(nod)]])
        turned = np.array([[np.cos(turn), np.sin(turn), 0], [-np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
        tilted = np.array([[np.cos(tilt), 0, np.sin(tilt)], [0, 1, 0], [-np.sin(tilt), 0, np.cos(tilt)]])
        return np.asarray(turned @ nodded @ tilted)

    @property
    def angle(self) -> float:
        """The whole turn in degrees, 0..180."""
        return float(np.rad2deg(np.arccos(np.clip((np.trace(self.matrix) - 1) / 2, -1, 1))))

    def placed(self, point: Point, pivot: Point) -> Point:
        """Where ``point`` of the body comes to lie when it is turned about ``pivot`` (mm)."""
        x, y, z = self.matrix @ (np.asarray(point, float) - pivot) + pivot
        return float(x), float(y), float(z)

    def origin_of(self, place: Point, pivot: Point) -> Point:
        """The point of the body that lies at ``place``: the inverse of ``placed``."""
        x, y, z = self.matrix.T @ (np.asarray(place, float) - pivot) + pivot
        return float(x), float(y), float(z)


class Displacement(Protocol):
    """What a map can be warped by: see ``DisplacementField``."""

    def at(self, x_mm: np.ndarray, y_mm: np.ndarray, z_mm: np.ndarray) -> np.ndarray:
        """Displacement [3, x, y, z] float32 mm at the grid points of three 1-D arrays of places in mm."""
        ...


@dataclass(frozen=True, eq=False)
class PoseField:
    """A pose as a displacement, on top of an optional warp of the body: the posed body shows at ``place`` what the warped
    one shows where that place came from.

    pivot: mm, in the coordinates that ``at`` is asked in. The warp is taken at the place the body was turned to, so that it
    is the same for every field of view of a body.
    """

    pose: Pose
    pivot: Point
    warp: Displacement | None = None

    def at(self, x_mm: np.ndarray, y_mm: np.ndarray, z_mm: np.ndarray) -> np.ndarray:
        """Displacement [3, len(x), len(y), len(z)] float32 mm."""
        places = [
            np.asarray(mm, np.float32).reshape([-1 if axis == other else 1 for other in range(3)])
            for axis, mm in enumerate((x_mm, y_mm, z_mm))
        ]
        shape = (len(x_mm), len(y_mm), len(z_mm))
        moved = np.zeros((3, *shape), np.float32) if self.warp is None else self.warp.at(x_mm, y_mm, z_mm)
        from_pivot = [place + shift - np.float32(pivot) for place, shift, pivot in zip(places, moved, self.pivot, strict=True)]
        turned_back = np.tensordot(self.pose.matrix.T.astype(np.float32), np.stack(from_pivot), (1, 0))
        for axis, (place, pivot) in enumerate(zip(places, self.pivot, strict=True)):
            turned_back[axis] += np.float32(pivot) - place
        return turned_back


def lost_structures(before: LabelMap, after: LabelMap) -> list[str]:
    """Names of structures whole in view of ``before`` that have lost more than 5 % of their volume at the faces of ``after``.

    Both show the same body in fields of view of the same extent; their spacings may differ. The body's envelope does not count.
    """
    lost = []
    vocabulary = before.vocabulary
    ids, counts = np.unique(before.voxels, return_counts=True)
    at_faces = _on_faces(before.voxels)
    cut = _on_faces(after.voxels)
    after_counts = dict(zip(*(part.tolist() for part in np.unique(after.voxels, return_counts=True)), strict=True))
    scale = float(np.prod(after.spacing) / np.prod(before.spacing))
    for label, count in zip(ids.tolist(), counts.tolist(), strict=True):
        if label == 0 or label in _ENVELOPES.get(vocabulary.name, ()) or label not in vocabulary:
            continue
        gone = after_counts.get(label, 0) * scale < (1 - _LOST_SHARE) * count
        if count >= _SMALLEST and label not in at_faces and gone and (label in cut or label not in after_counts):
            lost.append(vocabulary.label(label).name)
    return lost


def _on_faces(voxels: np.ndarray) -> set[int]:
    faces = [np.take(voxels, end, axis=axis) for axis in range(3) for end in (0, -1)]
    return {int(label) for face in faces for label in np.unique(face)}
