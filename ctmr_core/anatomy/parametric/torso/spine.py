"""The spine: vertebrae C5 to S1, sacrum, discs, canal and cord.

Level pitch: ICRP 110 (thoracic 24.7, lumbar 32.0 mm in the male of 1.76 m), tapering upwards as on CT.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from ctmr_core.anatomy.parametric.shapes import Axes, Profile, plate, smooth_min, sweep
from ctmr_core.anatomy.parametric.torso.canvas import BODY, Canvas, Lattice, Line, Patch

#: name, maisi id, height of the body's centre (canonical mm), half width, half depth of the body (mm).
LEVELS = (
    ("S1", 127, -96.0, 25.0, 17.0),
    ("L5", 33, -64.0, 25.5, 17.5),
    ("L4", 34, -32.0, 24.5, 17.5),
    ("L3", 35, 1.0, 23.5, 17.0),
    ("L2", 36, 33.0, 22.5, 16.5),
    ("L1", 37, 64.0, 21.5, 16.0),
    ("T12", 38, 93.0, 20.5, 15.5),
    ("T11", 39, 121.0, 19.0, 15.5),
    ("T10", 40, 148.0, 17.5, 15.5),
    ("T9", 41, 174.0, 16.5, 15.0),
    ("T8", 42, 199.0, 15.5, 14.5),
    ("T7", 43, 223.5, 15.0, 14.0),
    ("T6", 44, 247.0, 14.5, 13.5),
    ("T5", 45, 269.5, 14.0, 12.5),
    ("T4", 46, 291.0, 13.5, 11.5),
    ("T3", 47, 312.0, 13.5, 11.0),
    ("T2", 48, 332.0, 14.0, 10.0),
    ("T1", 49, 351.5, 14.5, 9.5),
    ("C7", 50, 370.0, 14.0, 9.0),
    ("C6", 51, 387.0, 13.0, 9.0),
    ("C5", 52, 403.0, 12.5, 9.0),
    ("C4", 53, 419.0, 12.0, 8.5),
)
HEIGHT = {name: z for name, _, z, _, _ in LEVELS}
WIDTH = {name: w for name, _, _, w, _ in LEVELS}
DEPTH = {name: d for name, _, _, _, d in LEVELS}

#: y of the middle of the bodies: sacral tilt, lumbar lordosis, thoracic kyphosis, neck.
CURVE = Profile(
    (-220.0, -180.0, -140.0, -110.0, -80.0, -40.0, 0.0, 40.0, 90.0, 150.0, 200.0, 250.0, 300.0, 350.0, 400.0, 440.0),
    (-58.0, -70.0, -66.0, -48.0, -34.0, -25.0, -25.0, -31.0, -42.0, -55.0, -61.0, -62.0, -56.0, -42.0, -30.0, -26.0),
)


def spine_y(z: float) -> float:
    """Canonical y (mm) of the middle of the vertebral bodies at height ``z``."""
    return float(CURVE(np.array([z]))[0])


def _tilt(z: float) -> np.ndarray:
    up = np.array([0.0, spine_y(z + 8) - spine_y(z - 8), 16.0])
    return up / np.linalg.norm(up)


def _processes(name: str, width: float, depth: float) -> list[list[tuple[float, float, float, float]]]:
    """Polylines (x, y, z, radius) of arch, transverse, articular and spinous processes, relative to the body's centre."""
    lumbar, cervical = name[0] in "LS", name[0] == "C"
    canal = -depth - 9.0
    reach = 40.0 if lumbar else (27.0 if cervical else 30.0)
    drop = -6.0 if lumbar else (-5.0 if cervical else -17.0)
    spinous = canal - (36.0 if lumbar else (32.0 if name == "C7" else 24.0 if cervical else 33.0))
    lines = []
    for side in (-1.0, 1.0):
        pedicle = (side * (width * 0.62), -depth + 3, 4.0, 4.6), (side * 14.0, canal + 1, 3.0, 4.6)
        lamina = (side * 14.0, canal + 1, 3.0, 4.6), (side * 4.0, canal - 12, -4.0, 3.8)
        back = -4.0 if lumbar else (2.0 if cervical else -14.0)
        transverse = (side * 14.0, canal + 1, 3.0, 4.2), (side * reach, canal + back, 5.0, 3.2 if lumbar else 4.2)
        facets = (
            (side * 15.5, canal - 4, 14.0 if lumbar else 10.0, 4.8),
            (side * 14.0, canal - 8, -15.0 if lumbar else -10.0, 4.8),
        )
        lines += [list(part) for part in (pedicle, lamina, transverse, facets)]
    if name == "S1":
        return lines
    lines.append([(0.0, canal - 11, -3.0, 3.2), (0.0, spinous, drop - 3, 3.4)])
    if lumbar:
        lines.append([(0.0, canal - 13, -9.0, 2.8), (0.0, spinous + 2, drop - 10, 3.2)])
    return lines


def _body_field(
    axes: Axes, low: np.ndarray, high: np.ndarray, right: np.ndarray, width: float, depth: float, waist: float
) -> tuple[np.ndarray, np.ndarray]:
    """Distance to the wall of a waisted cylinder with a hollow back, and to its end plates."""
    axis = high - low
    length = float(np.linalg.norm(axis))
    axis = axis / length
    right = right - axis * (right @ axis)
    right = right / np.linalg.norm(right)
    front = np.cross(axis, right)
    centre = (low + high) / 2
    p = [
        (a - c).astype(np.float32).reshape([-1 if i == j else 1 for j in range(3)])
        for i, (a, c) in enumerate(zip(axes, centre, strict=True))
    ]
    u, v, w = (p[0] * np.float32(d[0]) + p[1] * np.float32(d[1]) + p[2] * np.float32(d[2]) for d in (right, front, axis))
    half = np.float32(length / 2)
    flare = 1 - np.float32(waist) * np.clip(1 - np.square(w / half), 0, 1)
    back = np.clip(-v / np.float32(depth), 0, 1.3)
    hollow = 3.0 * back * np.exp(-np.square(u / 9))
    level = np.sqrt(np.square(u / (width * flare)) + np.square(v / (depth * flare)) + np.float32(1e-6))
    radius = np.sqrt(u * u + v * v)
    ring = radius * (1 - 1 / level) + hollow - np.maximum(1 - level, 0)
    return ring, np.abs(w) - half


class Spine:
    """Paints the spine; the vertebrae's places are those of the person."""

    def __init__(self, canvas: Canvas) -> None:
        self.canvas = canvas

    def paint(self) -> None:
        self._discs()
        self._sacrum()
        for i, (name, label, z, width, depth) in enumerate(LEVELS):
            self._vertebra(i, name, label, z, width, depth)
        self._canal()

    def _vertebra(self, i: int, name: str, label: int, z: float, width: float, depth: float) -> None:
        y, up = spine_y(z), _tilt(z)
        pitch = LEVELS[i + 1][2] - z if i + 1 < len(LEVELS) else 16.0
        gap = 8.5 if name[0] in "LS" else 5.0
        half = (pitch - gap) / 2 if name != "S1" else 12.5
        front = np.cross(up, [1.0, 0.0, 0.0])
        centre = np.array([0.0, y, z])
        frame = np.stack([[1.0, 0.0, 0.0], front, up])
        lines = _processes(name, width, depth)
        points = [centre - up * half, centre + up * half, centre + np.array([width, 0.0, 0.0])]
        shrink = 0.85 if name[0] == "T" and z > 150 else 1.0
        local = [np.asarray(line) * [1, 1, shrink, 1.4 if name[0] in "LS" else 1.25] for line in lines]
        for line in local:
            points.extend(centre + line[:, :3] @ frame)
        world = self.canvas.frame.to_patient(np.array(points))

        def shape(p: Lattice) -> np.ndarray:
            field = p.blank()
            place = 3
            for line in local:
                field = sweep(p.axes, world[place : place + len(line)], line[:, 3], 7.0, out=field)
                place += len(line)
            return smooth_min(field, np.maximum(*body(p)), 4.0)

        def core(p: Lattice) -> np.ndarray:
            wall, plates = body(p)
            return np.maximum(wall + 0.65, plates - 1)

        def body(p: Lattice) -> tuple[np.ndarray, np.ndarray]:
            size = self.canvas.frame.person.scale[0] * 1.05
            return _body_field(p.axes, world[0], world[1], world[2] - centre_world, width * size, depth * size, 0.10)

        centre_world = (world[0] + world[1]) / 2
        patch = self.canvas.world_field(world.min(0) - 30, world.max(0) + 30, shape, 2.0)
        paint_bone(self.canvas, patch, label, 0.65)
        # The end plates are thinner than any voxel: no cortex on them.
        marrow = self.canvas.world_field(world[:2].min(0) - 30, world[:2].max(0) + 30, core, 2.0)
        self.canvas.paint(marrow, label, "trabecular_bone", only=["cortical_bone"], only_labels=[label])

    def _discs(self) -> None:
        for (lower, _, z0, w0, d0), (_, _, z1, w1, d1) in pairwise(LEVELS):
            z = (z0 + z1) / 2
            y, up = spine_y(z), _tilt(z)
            centre = np.array([0.0, y, z])
            half = 7.5 if lower[0] in "LS" else 5.5
            world = self.canvas.frame.to_patient(
                np.array([centre - up * half, centre + up * half, centre + np.array([10.0, 0.0, 0.0])])
            )
            middle = (world[0] + world[1]) / 2
            scale = self.canvas.frame.person.scale[0]
            width, depth = (w0 + w1) / 2 * scale * 0.98, (d0 + d1) / 2 * scale * 1.0

            def shape(
                p: Lattice, world: np.ndarray = world, middle: np.ndarray = middle, width: float = width, depth: float = depth
            ) -> np.ndarray:
                return np.maximum(*_body_field(p.axes, world[0], world[1], world[2] - middle, width, depth, 0.0))

            patch = self.canvas.world_field(world.min(0) - 34, world.max(0) + 34, shape, 2.0)
            self.canvas.paint(patch, BODY, "intervertebral_disc")

    def _sacrum(self) -> None:
        rows = [(-98.0, 48.0, 13.0), (-122.0, 41.0, 13.0), (-146.0, 34.0, 11.0), (-168.0, 27.0, 9.0), (-186.0, 19.0, 7.0)]
        corners, lines = [], []
        for z, half, _ in rows:
            back = 4.0
            corners += [(-half, spine_y(z) - back + half * 0.12, z), (half, spine_y(z) - back + half * 0.12, z)]
            lines.append((0.0, spine_y(z) - 1, z))
        tail = [(0.0, spine_y(-195), -196.0), (0.0, spine_y(-215) + 8, -216.0)]
        crest = [(0.0, spine_y(z) - 17 + 6 * (z < -150), z - 4) for z in (-110.0, -130.0, -150.0)]
        holes = [
            (side * x, spine_y(z) + dy, z)
            for side in (-1.0, 1.0)
            for x, z in ((21.0, -114.0), (18.5, -138.0), (16.0, -160.0))
            for dy in (22.0, -30.0)
        ]
        world = self.canvas.frame.to_patient(np.array(corners + lines + tail + crest + holes))

        def shape(p: Lattice) -> np.ndarray:
            field = p.blank()
            for i in range(4):
                a, b, c, d = (world[2 * i + j] for j in range(4))
                thick = rows[i][2] * 0.85
                field = plate(p.axes, np.stack([a, b, c]), thick, out=field)
                field = plate(p.axes, np.stack([b, d, c]), thick, out=field)
            field = sweep(p.axes, world[10:15], np.array([16.0, 14, 12, 9, 8]), out=field)
            field = sweep(p.axes, world[14:17], np.array([8.0, 6, 3.5]), out=field)
            field = sweep(p.axes, world[17:20], np.array([6.0, 6, 5]), out=field)
            for i in range(20, len(world), 2):
                np.maximum(field, -sweep(p.axes, world[i : i + 2], np.array([4.0, 4.0]), 20.0), out=field)
            return field

        paint_bone(self.canvas, self.canvas.world_field(world.min(0) - 22, world.max(0) + 22, shape, 2.0), 97, 1.0)

    def _canal(self) -> None:
        def line(radius: float, low: float, high: float) -> Line:
            levels = np.arange(low, high + 1, 12.0).tolist()
            depth = Profile(tuple(v[2] for v in LEVELS), tuple(v[4] for v in LEVELS))
            return [(0.0, spine_y(z) - float(depth(np.array([z]))[0]) - 9.0, z, radius) for z in levels]

        self.canvas.paint(self.canvas.tube(line(8.6, -140.0, 440.0)), BODY, "visceral_fat")
        # "spinal cord" is the dural sac down to S1, as TotalSegmentator draws it (180-250 mm2, below the end of the cord too)
        self.canvas.paint(self.canvas.tube(line(7.9, -118.0, -94.0)), BODY, "csf_spinal")
        self.canvas.paint(self.canvas.tube(line(7.9, -94.0, 440.0)), 121, "csf_spinal")
        self.canvas.paint(self.canvas.tube(line(4.6, 58.0, 440.0)), 121, "spinal_cord")


def paint_bone(canvas: Canvas, patch: Patch | None, label: int, shell: float, marrow: str = "trabecular_bone") -> None:
    """A bone: cortical shell of ``shell`` mm, ``marrow`` inside."""
    canvas.paint(patch, label, "cortical_bone")
    canvas.paint(patch, label, marrow, below=-shell)
