"""Ribs, costal cartilages, sternum, clavicles, scapulae and proximal humeri."""

from __future__ import annotations

import numpy as np

from ctmr_core.anatomy.parametric.shapes import plate, smooth_min, spline, sweep
from ctmr_core.anatomy.parametric.torso.canvas import Canvas, Lattice
from ctmr_core.anatomy.parametric.torso.spine import DEPTH, HEIGHT, WIDTH, paint_bone, spine_y
from ctmr_core.anatomy.parametric.torso.trunk import CAVITY_BACK, CAVITY_FRONT, CAVITY_WIDTH, VISCERAL

#: per rib: degrees around the cage (0 back, 180 front) where bone ends, fall from back to that end (mm).
_RIBS = (
    (146, 34), (149, 48), (150, 55), (149, 58), (147, 60), (144, 63), (139, 66), (131, 70), (122, 70), (112, 70),
        (80, 46), (56, 34),
)  # fmt: skip
#: where the cartilages of ribs 1-7 meet the sternum: height (mm).
_STERNAL = (314.0, 286.0, 266.0, 246.0, 228.0, 212.0, 200.0)
#: the sternum from top to xiphoid: y, z, half width.
STERNUM = (
    (41.0, 326.0, 24.0),
    (48.0, 312.0, 28.0),
    (58.0, 288.0, 18.0),
    (67.0, 262.0, 16.0),
    (75.0, 234.0, 18.0),
    (81.0, 206.0, 18.0),
    (84.0, 192.0, 9.0),
    (85.0, 172.0, 5.0),
)


def _cage(angle: np.ndarray, z: np.ndarray, out: float, push: float) -> tuple[np.ndarray, np.ndarray]:
    """x (right), y on the wall of the cage, ``out`` mm outside the cavity, at ``angle`` from the back."""
    front, back = CAVITY_FRONT(z) + push * VISCERAL(z), CAVITY_BACK(z)
    half_width, half_depth = CAVITY_WIDTH(z) + out, (front - back) / 2 + out
    s, c = np.sin(angle), np.cos(angle)
    level = np.power(np.power(np.abs(s) / half_width, 2.5) + np.power(np.abs(c) / half_depth, 2.5), 0.4)
    return s / level, (front + back) / 2 - c / level


def sternum_y(z: float) -> float:
    heights = [row[1] for row in STERNUM][::-1]
    return float(np.interp(z, heights, [row[0] for row in STERNUM][::-1]))


class ThoraxBones:
    """Paints the cage and the shoulder girdle."""

    def __init__(self, canvas: Canvas, rng: np.random.Generator) -> None:
        self.canvas = canvas
        self._push = canvas.frame.person.visceral_mm * 0.5
        self._fall = 1 + 0.06 * float(np.clip(rng.standard_normal(), -2, 2))

    def paint(self) -> None:
        self._sternum()
        for side in (1.0, -1.0):
            ends = [self._rib(number, side) for number in range(1, 13)]
            self._cartilages(ends, side)
            self._clavicle(side)
            self._scapula(side)
            self._humerus(side)

    def _rib(self, number: int, side: float) -> tuple[np.ndarray, float, float]:
        name = f"T{number}"
        stop, fall = _RIBS[number - 1][0], _RIBS[number - 1][1] * self._fall
        z0, y0 = HEIGHT[name] + 5.0, spine_y(HEIGHT[name])
        first, last = np.deg2rad(24.0), np.deg2rad(stop)
        angle = np.linspace(first, last, 14 if number < 11 else 9)
        share = (angle - first) / (last - first)
        z = z0 - 4 - fall * np.power(share, 1.1)
        x, y = _cage(angle, z, 4.5 if number > 1 else 1.0, self._push)
        head = [(WIDTH[name] + 1.0, y0 - DEPTH[name] + 6, z0), (WIDTH[name] + 12.0, y0 - DEPTH[name] - 10, z0 - 1)]
        points = np.concatenate([np.array(head), np.stack([x, y, z], axis=1)])
        points[:, 0] *= side
        samples, _ = spline(points, 7.0)
        world = self.canvas.frame.to_patient(samples)
        tangent = np.gradient(world, axis=0)
        outward = world - np.array([0.0, float(world[:, 1].mean()), 0.0])
        outward[:, 2] = 0
        outward -= tangent * (np.sum(outward * tangent, axis=1) / np.sum(tangent * tangent, axis=1))[:, None]
        if number == 1:
            outward = np.tile([0.0, 0.35, 0.94], (len(world), 1))
        outward /= np.linalg.norm(outward, axis=1)[:, None]
        height = (6.6 if 2 < number < 11 else 5.6) * np.interp(
            np.linspace(0, 1, len(world)), [0, 0.15, 0.8, 1], [0.8, 0.95, 1.0, 1.08]
        )
        if number > 10:
            height *= np.interp(np.linspace(0, 1, len(world)), [0, 0.7, 1], [1, 0.9, 0.55])
        field_box = world.min(0) - 16, world.max(0) + 16
        patch = self.canvas.world_field(*field_box, lambda p: sweep(p.axes, world, height, 7.0, thin=outward, ratio=1.75), 2.0)
        paint_bone(self.canvas, patch, (74 if side > 0 else 62) + number, 0.8)
        end = points[-1].copy()
        end[0] *= side
        return end, float(angle[-1]), float(z[-1])

    def _cartilages(self, ends: list[tuple[np.ndarray, float, float]], side: float) -> None:
        lines = []
        joint = None
        for number in range(1, 11):
            end, angle, z_end = ends[number - 1]
            if number <= 7:
                z_in = _STERNAL[number - 1]
                inner = np.array([15.0 if number > 1 else 24.0, sternum_y(z_in) - 1, z_in])
                middle = (end + inner) / 2 + [0, 5.0, -6.0 if number < 5 else -14.0]
            else:
                inner = np.array(joint)
                middle = (end + inner) / 2 + [2.0, 2.0, -6.0]
            if number >= 6:
                angles = np.linspace(angle, np.deg2rad(171.0 if number <= 7 else np.rad2deg(angle) + 14), 5)[1:-1]
                zs = np.linspace(z_end, inner[2], 5)[1:-1] - [10.0, 12.0, 6.0]
                x, y = _cage(angles, zs, 5.0, self._push)
                middle_points = np.stack([x, y, zs], axis=1)[: 3 if number <= 7 else 2]
            else:
                middle_points = middle[None]
            line = np.concatenate([end[None], middle_points, inner[None]])
            joint = line[len(line) // 2]
            line = line * [side, 1, 1]
            lines.append(self.canvas.frame.to_patient(spline(line, 7.0)[0]))
        everything = np.concatenate(lines)

        def shape(p: Lattice) -> np.ndarray:
            field = p.blank()
            for number, world in enumerate(lines, 1):
                field = sweep(p.axes, world, np.full(len(world), 5.6 if number < 8 else 4.6), 7.0, out=field)
            return field

        patch = self.canvas.world_field(everything.min(0) - 12, everything.max(0) + 12, shape, 2.0)
        self.canvas.paint(patch, 114, "cartilage", only_labels=[0, 200])

    def _sternum(self) -> None:
        corners = np.array([(s * half, y, z) for y, z, half in STERNUM for s in (-1, 1)])
        world = self.canvas.frame.to_patient(corners)

        def shape(p: Lattice) -> np.ndarray:
            field = p.blank()
            for i in range(len(STERNUM) - 1):
                a, b, c, d = world[2 * i : 2 * i + 4]
                thick = 5.4 if i < 6 else 3.6
                field = plate(p.axes, np.stack([a, b, c]), thick, out=field)
                field = plate(p.axes, np.stack([b, d, c]), thick, out=field)
            return field

        paint_bone(self.canvas, self.canvas.world_field(world.min(0) - 16, world.max(0) + 16, shape, 2.0), 122, 0.7)

    def _clavicle(self, side: float) -> None:
        line = [(24, 38, 330, 9.0), (48, 37, 336, 6.5), (84, 19, 342, 5.6), (118, -6, 347, 6.2), (143, -20, 350, 6.8)]
        patch = self.canvas.tube([(side * x, y, z, r) for x, y, z, r in line])
        paint_bone(self.canvas, patch, 92 if side > 0 else 91, 1.7)

    def _scapula(self, side: float) -> None:
        glenoid, neck = (148, -40, 318), (134, -50, 312)
        top, medial, tip = (92, -88, 352), (78, -107, 318), (98, -119, 222)
        lateral = (128, -78, 276)
        spine = [(82, -106, 318), (112, -104, 336), (146, -74, 350), (158, -42, 354), (152, -22, 352)]
        coracoid = [(136, -40, 330), (134, -18, 340), (140, -4, 330)]
        points = np.array([glenoid, neck, top, medial, tip, lateral, *spine, *coracoid], float) * [side, 1, 1]
        world = self.canvas.frame.to_patient(points)

        def shape(p: Lattice) -> np.ndarray:
            g, n, t, m, i, lat = world[:6]
            field = plate(p.axes, np.stack([n, t, m]), 2.2)
            field = plate(p.axes, np.stack([n, m, lat]), 2.0, out=field)
            field = plate(p.axes, np.stack([lat, m, i]), 2.4, out=field)
            field = plate(p.axes, np.stack([n, world[6], world[8]]), 2.4, out=field)
            field = sweep(p.axes, np.stack([n, lat, i]), np.array([7.0, 5, 4.5]), out=field)
            field = sweep(p.axes, np.stack([g, n]), np.array([13.0, 9.0]), out=field)
            field = sweep(p.axes, world[6:11], np.array([3.5, 5.0, 5.5, 6.5, 6.0]), out=field)
            return sweep(p.axes, world[11:14], np.array([6.0, 5.0, 4.5]), out=field)

        patch = self.canvas.world_field(world.min(0) - 20, world.max(0) + 20, shape, 2.0)
        paint_bone(self.canvas, patch, 90 if side > 0 else 89, 1.3)

    def _humerus(self, side: float) -> None:
        head = np.array([[172, -30, 320.0]])
        shaft = np.array([[172, -30, 320, 16.0], [186, -26, 308, 16.0], [192, -24, 290, 11.0], [194, -22, 262, 9.0]])
        world = self.canvas.frame.to_patient(np.concatenate([head, shaft[:, :3]]) * [side, 1, 1])

        def shape(p: Lattice) -> np.ndarray:
            ball = sweep(p.axes, np.stack([world[0], world[0] + 0.5]), np.array([22.5, 22.5]))
            return np.maximum(smooth_min(ball, sweep(p.axes, world[1:], shaft[:, 3]), 8.0), p["skin"] + 5)

        patch = self.canvas.world_field(world.min(0) - 34, world.max(0) + 34, shape, 2.0)
        paint_bone(self.canvas, patch, 88 if side > 0 else 87, 2.2)
