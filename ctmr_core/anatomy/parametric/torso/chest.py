"""Lungs with fissures and vessels, airways, heart with its chambers, oesophagus and thyroid."""

from __future__ import annotations

import numpy as np

from ctmr_core.anatomy.parametric.shapes import ellipsoid, rotation, smooth_max, smooth_min
from ctmr_core.anatomy.parametric.torso.canvas import BODY, COARSE, Canvas, Lattice
from ctmr_core.anatomy.parametric.torso.person import Person

#: canonical volume (mL) of the heart as built.
HEART_ML = 640.0
HEART = (-20.0, 22.0, 212.0)
#: the long axis of the heart points left, forward and down.
_HEART_AXES = rotation(about_y=-38.0, about_z=-38.0)


def _heart(p: Lattice, k: float) -> np.ndarray:
    x, y, z = p.xyz
    whole = ellipsoid(x, y, z, HEART, (68 * k, 47 * k, 47 * k), _HEART_AXES)
    right = ellipsoid(x, y, z, (18, 14, 220), (30 * k, 34 * k, 40 * k))
    back = ellipsoid(x, y, z, (-2, -10, 232), (40 * k, 22 * k, 26 * k))
    return smooth_min(smooth_min(whole, right, 16.0), back, 14.0)


class Chest:
    """Paints what the rib cage holds."""

    def __init__(self, canvas: Canvas, person: Person, rng: np.random.Generator) -> None:
        self.canvas, self.person = canvas, person
        self._k = person.organ_scale("heart", HEART_ML)
        self._trees = [_lung_tree(rng, side) for side in (1.0, -1.0)]
        self._oblique = [float(v) for v in np.clip(rng.normal(0, 4, 2), -8, 8)]
        self._thyroid = person.organ_scale("thyroid", 20.0)

    def paint(self) -> None:
        self._lungs()
        self._heart_fat()
        self._airways()
        self._oesophagus()
        self._thyroid_gland()

    def _mediastinum(self, p: Lattice) -> np.ndarray:
        x, y, z = p.xyz
        middle = np.float32(15) + np.clip(z - 255, 0, 60) * np.float32(0.33)
        middle = middle - 0.30 * np.clip(y - 8, 0, 60) - 0.25 * np.clip(-22 - y, 0, 40) + 2.5 * p["noise"]
        column = np.maximum(np.abs(x + 1) - middle, y - 34 - np.clip(z - 250, 0, 80) * 0.35)
        front = np.abs(x + 2) - np.float32(7) - np.clip(z - 285, 0, 30) * np.float32(0.9)
        column = smooth_min(column, front, 10.0)
        pericardium = _heart(p, self._k) - 5
        fat_pads = ellipsoid(np.abs(x), y, z, (48, 66, 172), (26, 20, 20))
        return smooth_min(smooth_min(column, pericardium, 12.0), fat_pads, 10.0)

    def _lungs(self) -> None:
        def both(p: Lattice) -> np.ndarray:
            field = smooth_max(p["cavity"] + 1.5, 2.0 - p["diaphragm"], 3.0)
            field = smooth_max(field, -self._mediastinum(p), 8.0)
            return np.maximum(field, p["z"] - 353)

        lungs = self.canvas.field((-170, -130, 10), (170, 130, 380), both, COARSE)
        if lungs is None:
            return
        self.canvas.paint(lungs, 32, "lung_parenchyma", only_labels=[BODY])

        for index, side in enumerate((1.0, -1.0)):
            low = (0, -130, 10) if side > 0 else (-170, -130, 10)
            high = (170, 130, 380) if side > 0 else (0, 130, 380)

            def lobe(p: Lattice, index: int = index, side: float = side) -> np.ndarray:
                return np.maximum(-self._above_oblique(p, index), -side * p["x"])

            def whole(p: Lattice, side: float = side) -> np.ndarray:
                return -side * p["x"]

            if side < 0:
                self.canvas.paint(self.canvas.field(low, high, whole, COARSE, 20.0), 29, "lung_parenchyma", only_labels=[32])
            self.canvas.paint(
                self.canvas.field(low, high, lobe, COARSE, 20.0), 30 if side > 0 else 28, "lung_parenchyma", only_labels=[32, 29]
            )
            if side > 0:
                middle = lambda p: np.maximum(lobe(p), p["z"] - 232 + 0.12 * p["y"] - 3 * p["noise"])  # noqa: E731
                self.canvas.paint(self.canvas.field(low, high, middle, COARSE, 20.0), 31, "lung_parenchyma", only_labels=[30])
        for tree in self._trees:
            self.canvas.paint(self.canvas.tubes(tree), None, "lung_vessel", only=["lung_parenchyma"])

    def _above_oblique(self, p: Lattice, index: int) -> np.ndarray:
        lift = self._oblique[index] + (6.0 if index else 0.0)
        return (p["z"] - (214 + lift) + 1.02 * (p["y"] + 0)) * np.float32(0.7) + 3 * p["noise"]

    def _heart_fat(self) -> None:
        k = self._k
        low, high = (-110, -60, 130), (80, 100, 290)
        heart = self.canvas.field(low, high, lambda p: _heart(p, k), 3.0)
        self.canvas.paint(heart, BODY, "epicardial_fat", below=3.5, only=["visceral_fat", "lung_parenchyma", "lung_vessel"])
        self.canvas.paint(heart, 115, "myocardium", only_labels=[BODY, 28, 29, 30, 31, 32])

        def ventricle(p: Lattice) -> np.ndarray:
            x, y, z = p.xyz
            return ellipsoid(x, y, z, (-44, 14, 206), (44 * k, 20 * k, 21 * k), _HEART_AXES)

        def right_side(p: Lattice) -> np.ndarray:
            x, y, z = p.xyz
            free = ellipsoid(x, y, z, (-14, 38, 208), (50 * k, 24 * k, 38 * k), _HEART_AXES)
            outer = np.maximum(_heart(p, k) + 4.0, free)
            return smooth_max(outer, -(ventricle(p) - 11), 4.0)

        def atria(p: Lattice) -> np.ndarray:
            x, y, z = p.xyz
            right = ellipsoid(x, y, z, (26, 14, 220), (20 * k, 25 * k, 31 * k))
            left = ellipsoid(x, y, z, (-4, -14, 234), (33 * k, 16 * k, 20 * k))
            return np.maximum(np.minimum(right, left), _heart(p, k) + 2.5)

        for chamber in (right_side, atria, ventricle):
            self.canvas.paint(self.canvas.field(low, high, chamber, 3.0), None, "heart_blood", only=["myocardium"])

        def groove(p: Lattice) -> np.ndarray:
            x, y, z = p.xyz
            ring = np.abs(ellipsoid(x, y, z, (14, -4, 236), (46 * k, 40 * k, 42 * k))) - 3.0
            apart = np.abs(ellipsoid(x, y, z, (-50, 4, 204), (58 * k, 34 * k, 34 * k), _HEART_AXES)) - 2.2
            return np.maximum(np.minimum(ring, apart), -(_heart(p, k) + 8 + 3 * p["noise"]))

        self.canvas.paint(self.canvas.field(low, high, groove, 3.0), None, "epicardial_fat", only=["myocardium"])

    def _airways(self) -> None:
        trachea = [(1, -6, 430, 9), (2, -11, 380, 9), (3, -17, 335, 9), (4, -22, 300, 9), (5, -24, 284, 9.5)]
        right = [(5, -27, 284, 8.5), (22, -30, 268, 8), (36, -32, 252, 7), (44, -36, 232, 5.5)]
        left = [(5, -27, 284, 8), (-16, -30, 266, 7.5), (-38, -34, 252, 7), (-50, -40, 236, 5.5)]
        small = [
            [(22, -30, 268, 6), (44, -30, 276, 4.5), (56, -26, 292, 3.2)],
            [(38, -32, 250, 5), (56, -16, 234, 3.6), (68, 4, 222, 2.6)],
            [(44, -36, 232, 5), (56, -50, 208, 3.8), (66, -60, 184, 2.6)],
            [(-38, -34, 252, 5), (-56, -26, 262, 4.2), (-66, -14, 282, 3.0)],
            [(-50, -40, 236, 5), (-60, -52, 210, 3.8), (-68, -60, 184, 2.6)],
        ]
        tubes = [self.canvas.tube(line, 2.0, 5.0) for line in (right, left, *small)]
        wind = self.canvas.tube(trachea, 2.0, 6.0)
        for tube in (*tubes, wind):
            self.canvas.paint(tube, BODY, "airway_wall", below=1.6, only_labels=[BODY, 28, 29, 30, 31, 32])
        for tube in tubes:
            self.canvas.paint(tube, 132, "airway_lumen")
        self.canvas.paint(wind, 57, "airway_lumen")

    def _oesophagus(self) -> None:
        line = [
            (-2, -19, 430, 6),
            (-5, -24, 370, 6),
            (-7, -35, 320, 6.5),
            (-4, -38, 280, 7.5),
            (-5, -38, 235, 8.5),
            (-12, -32, 195, 9),
            (-22, -22, 168, 9),
            (-32, -14, 156, 8),
        ]
        tube = self.canvas.tube(line)
        self.canvas.paint(tube, BODY, "visceral_fat", below=1.5, only=["lung_parenchyma", "lung_vessel"])
        self.canvas.paint(tube, 11, "esophagus_wall", only_labels=[BODY, 28, 29, 30, 31, 32, 115])
        if self.person.gas > 0.35:
            gas = self.canvas.tube([(-5, -25, 372, 2.4), (-7, -35, 320, 3.0), (-4, -38, 280, 2.4)])
            self.canvas.paint(gas, 11, "bowel_gas", only_labels=[11])

    def _thyroid_gland(self) -> None:
        k = self._thyroid

        def gland(p: Lattice) -> np.ndarray:
            x, y, z = p.xyz
            lobes = ellipsoid(np.abs(x), y, z, (19, -12, 372), (9.5 * k, 11 * k, 23 * k), None) + 1.0 * p["noise"]
            isthmus = ellipsoid(x, y, z, (0, 2, 364), (20, 4.5, 8))
            return smooth_min(lobes, isthmus, 5.0)

        patch = self.canvas.field((-40, -40, 330), (40, 20, 410), gland, 2.0)
        self.canvas.paint(patch, BODY, "visceral_fat", below=1.5, only=["muscle"])
        self.canvas.paint(patch, 126, "thyroid", only_labels=[BODY])


def _lung_tree(rng: np.random.Generator, side: float) -> list[np.ndarray]:
    """Branches (x, y, z, radius) of the pulmonary vessels of one lung, from the hilum outwards."""
    root = np.array([side * 38.0, -18.0, 248.0])
    branches: list[np.ndarray] = []

    def grow(start: np.ndarray, direction: np.ndarray, radius: float, depth: int) -> None:
        length = (34.0 if depth else 22.0) * rng.uniform(0.75, 1.25) * (0.86**depth)
        bend = rng.standard_normal(3) * 0.18
        middle = start + direction * length / 2
        end = middle + (direction + bend) * length / 2
        branches.append(np.array([[*start, radius], [*middle, radius * 0.94], [*end, radius * 0.88]]))
        if depth >= 4:
            return
        for _ in range(2 if depth else 3):
            turn = direction + bend + rng.standard_normal(3) * (0.55 if depth else 0.4)
            grow(end, turn / np.linalg.norm(turn), radius * 0.80, depth + 1)

    for target in ((70, 20, 320), (85, -50, 300), (90, 45, 225), (110, 0, 240), (85, -60, 180), (100, -40, 120), (70, 10, 175)):
        aim = np.array([side * target[0], target[1], target[2]], float) - root
        grow(root, aim / np.linalg.norm(aim), 5.2, 0)
    return branches
