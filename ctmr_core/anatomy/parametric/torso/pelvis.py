"""Hip bones, proximal femora, and the muscles of hip and back."""

from __future__ import annotations

import numpy as np

from ctmr_core.anatomy.parametric.shapes import Vector, ellipsoid, plate, rotation, smooth_max, smooth_min, sweep
from ctmr_core.anatomy.parametric.torso.canvas import Canvas, Lattice
from ctmr_core.anatomy.parametric.torso.spine import paint_bone, spine_y

HEAD = (91.0, 0.0, -208.0)
#: corners of the iliac wing: acetabular roof, spines and crest (canonical mm, right side).
_ROOF, _NOTCH, _SACRAL = (84, -2, -176), (66, -48, -168), (46, -72, -110)
_CREST = ((50, -92, -108), (62, -88, -68), (92, -62, -48), (118, -22, -46), (126, 14, -60), (116, 44, -88), (104, 40, -128))


class Pelvis:
    """Paints muscles (under the bones), then the bones."""

    def __init__(self, canvas: Canvas) -> None:
        self.canvas = canvas
        self._bulk = canvas.frame.person.muscle

    def paint_muscles(self) -> None:
        for side in (1.0, -1.0):
            self._gluteals(side)
            self._back(side)
            self._iliopsoas(side)
            self._thigh_fat(side)

    def paint_bones(self) -> None:
        for side in (1.0, -1.0):
            self._hip(side)
            self._femur(side)

    def _blob(
        self,
        side: float,
        centre: Vector,
        radii: Vector,
        turn: np.ndarray,
        label: int,
    ) -> None:
        """An ellipsoidal muscle within the fascia, with a thin fat plane around it."""

        a, b, c = (r * self._bulk for r in radii)
        grown = (a, b, c)
        only = ("muscle", "subcutaneous_fat", "visceral_fat")

        def shape(p: Lattice) -> np.ndarray:
            x, y, z = p.xyz
            blob = ellipsoid(x * np.float32(side), y, z, centre, grown, turn) + 2.2 * p["noise"]
            return smooth_max(blob, p["fascia"] + 1.5, 3.0)

        reach = max(radii) + 6
        low = [side * centre[0] - reach, centre[1] - reach, centre[2] - reach]
        patch = self.canvas.field(low, [v + 2 * reach for v in low], shape, 4.0)
        self.canvas.paint(patch, 200, "subcutaneous_fat", below=1.5, only=only)
        self.canvas.paint(patch, label, "muscle", only=only)

    def _gluteals(self, side: float) -> None:
        right = side > 0
        self._blob(side, (80, -76, -176), (68, 30, 88), rotation(about_y=-24, about_z=24), 99 if right else 98)
        self._behind(side)
        self._blob(side, (117, -32, -120), (30, 60, 70), rotation(about_y=-6, about_z=-28), 101 if right else 100)
        self._blob(side, (112, -14, -136), (17, 36, 46), rotation(about_y=-8, about_z=-26), 103 if right else 102)
        self._fill(side)

    def _fill(self, side: float) -> None:
        """Between hip bone and fascia the gluteal muscles leave no gap."""
        right = side > 0
        regions = (
            (-195.0, -75.0, -52.0, 22.0, 78.0, 101 if right else 100),
            (-262.0, -100.0, -140.0, -50.0, 22.0, 99 if right else 98),
        )
        for bottom, top, back, front, medial, label in regions:

            def region(
                p: Lattice,
                bottom: float = bottom,
                top: float = top,
                back: float = back,
                front: float = front,
                medial: float = medial,
            ) -> np.ndarray:
                x, y, z = p.xyz
                x = x * np.float32(side)
                inside = np.maximum(np.maximum(bottom - z, z - top), np.maximum(back - y, y - front - 4 * p["noise"]))
                return np.maximum(np.maximum(inside, medial - x), np.maximum(10 - p["cavity"], p["fascia"] + 1))

            low = (min(side * medial, side * 175), back, bottom)
            patch = self.canvas.field(low, (max(side * medial, side * 175), front, top), region, 4.0)
            self.canvas.paint(patch, label, "muscle", only=["muscle"], only_labels=[200])

    def _behind(self, side: float) -> None:
        """Behind the great gluteal muscle there is only fat."""

        def shape(p: Lattice) -> np.ndarray:
            x, y, z = p.xyz
            x = x * np.float32(side)
            muscle = ellipsoid(x, y, z, (80, -76, -176), (68, 30, 88), rotation(about_y=-24, about_z=24))
            middle = (y + 76 + 0.42 * (x - 80)) + 4
            return np.maximum(np.maximum(2.0 - muscle, middle), np.maximum(np.abs(z + 188) - 92, 14 - x))

        patch = self.canvas.field((min(side * 10, side * 170), -150, -290), (max(side * 10, side * 170), -20, -90), shape, 4.0)
        self.canvas.paint(patch, 200, "subcutaneous_fat", only=["muscle"], only_labels=[200])

    def _back(self, side: float) -> None:
        rows = (
            (-190, 16, 0.25), (-150, 22, 0.55), (-110, 30, 0.85), (-70, 36, 1.05), (-30, 38, 1.15), (20, 38, 1.15),
                (70, 37, 1.05),
            (120, 33, 0.9), (170, 29, 0.75), (220, 26, 0.68), (270, 25, 0.66), (320, 26, 0.7), (360, 27, 0.75), (432, 26, 0.75),
        )  # fmt: skip
        points = []
        for z, x, size in rows:
            behind = 38.0 if z < 90 else 30.0
            points.append((side * x * 0.92, spine_y(z) - behind - 6, z, 23.0 * size * (0.6 + 0.4 * self._bulk)))
        world = self.canvas.frame.to_patient(np.array(points)[:, :3])
        radii = np.array([p[3] for p in points])
        thin = np.tile([0.0, 1.0, 0.0], (len(points), 1))

        def shape(p: Lattice) -> np.ndarray:
            tube = sweep(p.axes, world, radii * 1.15, 9.0, thin=thin, ratio=1.2)
            x = p["x"] * np.float32(side)
            return np.maximum(np.maximum(tube, p["fascia"] + 2.0), 2.0 - x)

        patch = self.canvas.world_field(world.min(0) - 40, world.max(0) + 40, shape, 4.0)
        self.canvas.paint(patch, 200, "subcutaneous_fat", below=1.4, only=["muscle"])
        label = 105 if side > 0 else 104
        self.canvas.paint(patch, label, "muscle", only=["muscle", "subcutaneous_fat", "visceral_fat"])

    def _iliopsoas(self, side: float) -> None:
        label = 107 if side > 0 else 106
        b = 0.4 + 0.6 * self._bulk
        psoas = [
            (24, -38, 78, 6),
            (29, -34, 40, 12),
            (38, -30, 0, 18),
            (48, -24, -45, 21),
            (58, -8, -90, 21),
            (72, 20, -135, 19),
            (84, 36, -180, 17),
            (98, 26, -225, 14),
            (112, -8, -262, 9),
        ]
        world = self.canvas.frame.to_patient(np.array([(side * x, y, z) for x, y, z, _ in psoas], float))
        radii = np.array([r * b for *_, r in psoas])
        fan = np.array([(78, 8, -150), (62, -62, -78), (92, -40, -62), (112, -8, -66), (108, 24, -88)], float) * [side, 1, 1]
        blade = self.canvas.frame.to_patient(fan)

        def shape(p: Lattice) -> np.ndarray:
            field = sweep(p.axes, world, radii, 9.0)
            sheet = p.blank(9.0)
            for i in range(1, 4):
                sheet = plate(p.axes, blade[[0, i, i + 1]], 8.0 * b, 9.0, out=sheet)
            return smooth_min(field, sheet, 10.0)

        points = np.concatenate([world, blade])
        patch = self.canvas.world_field(points.min(0) - 32, points.max(0) + 32, shape, 3.0)
        self.canvas.paint(patch, 200, "visceral_fat", below=1.6, only=["muscle"])
        self.canvas.paint(patch, label, "muscle", only=["muscle", "subcutaneous_fat", "visceral_fat"])

    def _thigh_fat(self, side: float) -> None:
        line = [(66, 62, -205, 10.0), (72, 56, -250, 12.0), (66, 48, -300, 9.0), (60, 40, -400, 7.0)]
        patch = self.canvas.tube([(side * x, y, z, r) for x, y, z, r in line])
        self.canvas.paint(patch, 200, "subcutaneous_fat", only=["muscle"])

    def _hip(self, side: float) -> None:
        roof = np.array([_ROOF, _NOTCH, _SACRAL, *_CREST], float)
        pubis = [(80, 22, -188), (52, 42, -206), (16, 56, -222), (9, 54, -238), (14, 44, -250), (44, 8, -272), (56, -24, -276)]
        ischium = [(56, -24, -276), (66, -34, -252), (76, -26, -218), (72, -38, -182)]
        ball = [HEAD]
        points = np.concatenate([roof, pubis, ischium, ball]) * [side, 1, 1]
        world = self.canvas.frame.to_patient(points)
        fan = world[:10]

        def shape(p: Lattice) -> np.ndarray:
            field = p.blank()
            for i in range(3, 9):
                hub = 0 if i >= 5 else 2
                field = plate(p.axes, fan[[hub, i, i + 1]], 4.4, out=field)
            for triple in ((0, 1, 2), (0, 2, 5)):
                field = plate(p.axes, fan[list(triple)], 5.5, out=field)
            field = sweep(p.axes, fan[[3, 4, 5, 6, 7, 8, 9, 0]], np.array([8.0, 7.5, 7, 7, 7, 7.5, 8, 12]), out=field)
            field = sweep(p.axes, fan[[2, 1, 0]], np.array([10.0, 10.5, 16]), out=field)
            field = sweep(p.axes, world[10:17], np.array([13.0, 8.5, 8, 8, 6, 6, 10]), out=field)
            field = sweep(p.axes, world[17:21], np.array([13.0, 14, 15, 9]), out=field)
            x, y, z = p.xyz
            cup = np.maximum(
                ellipsoid(x * np.float32(side), y, z, HEAD, (33, 33, 33)),
                (x * np.float32(side) - 100) * 0.8 - (z + 208) * 0.5 + y * 0.15,
            )
            field = smooth_min(field, cup, 5.0)
            return np.maximum(field, -ellipsoid(x * np.float32(side), y, z, HEAD, (27.5, 27.5, 27.5)))

        patch = self.canvas.world_field(world.min(0) - 36, world.max(0) + 36, shape, 2.0)
        paint_bone(self.canvas, patch, 96 if side > 0 else 95, 1.1)

    def _femur(self, side: float) -> None:
        line = [(102, -3, -214, 17.0), (120, -8, -232, 16.0), (134, -12, -246, 17.0)]
        shaft = [
            (134, -12, -244, 17.0),
            (131, -10, -268, 17.0),
            (126, -4, -300, 14.0),
            (120, 2, -350, 13.5),
            (116, 5, -420, 13.5),
        ]
        troch = [(138, -20, -222, 11.0), (140, -16, -240, 13.0)]
        lesser = [(124, -14, -268, 12.0), (114, -18, -268, 8.0)]
        points = np.array([HEAD] + [q[:3] for q in (*line, *shaft, *troch, *lesser)], float) * [side, 1, 1]
        world = self.canvas.frame.to_patient(points)

        def shape(p: Lattice) -> np.ndarray:
            x, y, z = p.xyz
            head = ellipsoid(x * np.float32(side), y, z, HEAD, (24.5, 24.5, 24.5))
            field = sweep(p.axes, world[1:4], np.array([q[3] for q in line]))
            field = sweep(p.axes, world[4:9], np.array([q[3] for q in shaft]), out=field)
            field = sweep(p.axes, world[9:11], np.array([11.0, 13.0]), out=field)
            field = sweep(p.axes, world[11:13], np.array([12.0, 8.0]), out=field)
            return np.maximum(smooth_min(head, field, 6.0), -396 - z)

        patch = self.canvas.world_field(world.min(0) - 34, world.max(0) + 34, shape, 2.0)
        self.canvas.paint(patch, 200, "cartilage", below=1.2, only_labels=[200])
        label = 94 if side > 0 else 93
        paint_bone(self.canvas, patch, label, 2.0)
        hollow = self.canvas.tube([(side * x, y, z, 7.0) for x, y, z, _ in shaft[2:]])
        self.canvas.paint(hollow, label, "yellow_marrow", only_labels=[label])
        cortex = self.canvas.tube([(side * x, y, z, r) for x, y, z, r in shaft[2:]])
        self.canvas.paint(cortex, label, "cortical_bone", below=-0.1, above=-5.5, only=["trabecular_bone"], only_labels=[label])
