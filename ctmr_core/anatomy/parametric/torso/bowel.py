"""Stomach, duodenum, small bowel and colon: wall, content and gas that floats to the front."""

from __future__ import annotations

import numpy as np

from ctmr_core.anatomy.parametric.shapes import SplineNoise, spline, sweep
from ctmr_core.anatomy.parametric.torso.abdomen import Abdomen
from ctmr_core.anatomy.parametric.torso.canvas import Canvas, Lattice, Patch
from ctmr_core.anatomy.parametric.torso.person import Person
from ctmr_core.anatomy.parametric.torso.trunk import CAVITY_FRONT, VISCERAL

_COLON = (
    (86, 24, -98, 15), (88, 26, -74, 25), (97, 6, -36, 23), (103, -8, 4, 20), (100, 2, 34, 20), (86, 28, 44, 18),
        (64, 54, 30, 18), (30, 62, 16, 18),
    (-10, 64, 14, 17), (-46, 60, 34, 17), (-78, 36, 66, 16), (-100, -4, 104, 15), (-110, -32, 88, 14),
        (-111, -40, 40, 13), (-108, -34, -20, 12.5), (-98, -8, -70, 12),
    (-84, 24, -102, 13), (-50, 34, -124, 14), (-14, 34, -112, 14), (18, 16, -104, 14), (18, -12, -120, 14),
        (4, -32, -138, 14), (0, -50, -166, 17), (0, -46, -196, 18), (0, -38, -222, 14), (0, -34, -254, 7),
)  # fmt: skip
_STOMACH = (
    (-30, -14, 152, 11), (-50, -18, 148, 31), (-64, -8, 138, 40), (-70, 14, 120, 38), (-66, 38, 96, 33),
    (-46, 52, 76, 27), (-18, 56, 66, 21), (10, 46, 70, 16), (26, 36, 78, 8))  # fmt: skip
_DUODENUM = (
    (24, 37, 78, 9), (38, 30, 80, 13), (50, 14, 70, 12), (53, 8, 48, 12), (50, 8, 24, 12), (36, 16, 8, 12),
    (8, 27, 2, 11), (-16, 24, 12, 11), (-28, 22, 34, 11), (-32, 32, 44, 11))  # fmt: skip


class Bowel:
    """Paints the hollow organs; ``abdomen`` lends its way of parting neighbours by fat."""

    def __init__(self, canvas: Canvas, person: Person, abdomen: Abdomen, rng: np.random.Generator) -> None:
        self.canvas, self.person, self.abdomen = canvas, person, abdomen
        self._loops = _small_bowel(rng, person)
        wobble = np.clip(rng.standard_normal((len(_COLON), 3)), -2, 2) * (4.0, 4.0, 7.0)
        wobble[-6:] *= 0.3
        self._colon = [(x + a, y + b, z + c, r) for (x, y, z, r), (a, b, c) in zip(_COLON, wobble, strict=True)]
        for i, share in ((3, 0.4), (4, 0.9), (5, 1.0), (6, 0.8), (7, 0.4)):
            x, y, z, r = self._colon[i]
            self._colon[i] = (x, y, z - share * (0.8 * abdomen.liver_drop + 12), r)
        for i, share in ((15, 0.2), (16, 0.6), (17, 1.0), (18, 1.0), (19, 1.0), (20, 0.7), (21, 0.3)):
            x, y, z, r = self._colon[i]
            self._colon[i] = (x, y, z + share * abdomen.bladder_lift, r)
        self._girth = float(np.clip(1 + 0.12 * rng.standard_normal(), 0.8, 1.25)) * (0.9 + 0.3 * person.gas)
        self._phase = rng.uniform(0, 6.28, 4)
        self._fill = float(rng.uniform(0.75, 1.12))
        self._froth = SplineNoise(rng, 7.0, (190.0, 170.0, 220.0))
        self._dryness = float(rng.uniform(0.5, 1.6))
        self._arcades = _arcades(rng, self._loops)
        self._level = float(rng.uniform(-0.3, 0.45))

    def small_bowel(self) -> None:
        lines, radii = [], []
        for points in self._loops:
            samples, _ = spline(points, 7.0)
            lines.append(self.canvas.frame.to_patient(samples[:, :3]))
            arc = np.arange(len(samples)) * 7.0
            radii.append(
                samples[:, 3] * (1 + 0.10 * np.sin(arc * 0.09 + self._phase[0]) + 0.07 * np.sin(arc * 0.31 + self._phase[1]))
            )
        everything = np.concatenate(lines)

        def shape(p: Lattice) -> np.ndarray:
            field = p.blank()
            for world, radius in zip(lines, radii, strict=True):
                field = sweep(p.axes, world, radius, 6.0, out=field)
            return np.maximum(field + 0.9 * p["noise"], p["cavity"] + 3.5)

        patch = self.canvas.world_field(everything.min(0) - 18, everything.max(0) + 18, shape, 2.0)
        self._hollow(patch, 19, "bowel_wall", "bowel_content", 2.2, "bowel_content")
        self._gas(patch, 19, 0.16 * self.person.gas - 0.10, 3.0)

    def colon(self) -> None:
        line = [
            (x, y + self._forward(y, z), z, r * (self._girth if i < len(_COLON) - 3 else 1.0))
            for i, (x, y, z, r) in enumerate(self._colon)
        ]
        phase = self._phase[2]

        def haustra(arc: np.ndarray) -> np.ndarray:
            return 1 + 0.17 * (np.abs(np.sin(arc * np.pi / 34 + phase)) - 0.6)

        patch = self.canvas.tube(line, 2.0, 5.0, bulge=haustra)
        if patch is None:
            return
        wall = self.canvas.field(
            (-150, -90, -270), (150, 130, 160), lambda p: p["cavity"] + 2.0 - np.clip((-140 - p["z"]) / 3, 0, 40), 4.0
        )
        self._hollow(self._within(patch, wall), 62, "colon_wall", "stool", 2.0, "stool")
        self._gas(patch, 62, 0.25 + 0.5 * self.person.gas, 2.6)
        bubbles = self.canvas.field((-150, -90, -150), (150, 130, 160), lambda p: self._froth.on_lattice(p.axes), 3.0)
        if bubbles is not None:
            froth = self._within(patch, Patch(bubbles.box, (self._dryness - bubbles.values) * 3))
            self.canvas.paint(froth, 62, "bowel_gas", below=-2.8, only=["stool"])

    def mesentery(self) -> None:
        """Small vessels that fan from the root of the mesentery to the loops."""
        patch = self.canvas.tubes(self._arcades)
        self.canvas.paint(patch, None, "venous_blood", only=["visceral_fat"])

    def stomach(self) -> None:
        line = [
            (x, y + 0.6 * self._forward(y, z), z, r * (1.0 if i in (0, 8) else self._fill))
            for i, (x, y, z, r) in enumerate(_STOMACH)
        ]
        patch = self.canvas.tube(line, 2.0, 7.0)
        if patch is None:
            return
        limit = self.canvas.field(
            (-130, -90, 20), (60, 130, 220), lambda p: np.maximum(p["cavity"] + 3.0, p["diaphragm"] + 3.5), 4.0
        )
        patch = self._within(patch, limit)
        self._hollow(patch, 12, "stomach_wall", "stomach_content", 4.0, "stomach_content")
        level = self.canvas.frame.to_patient(np.array([[-60.0, 26.0 + 40 * self._level, 110.0]]))[0, 1]
        self._float(patch, 12, level, -4.0)

    def duodenum(self) -> None:
        patch = self.canvas.tube(_DUODENUM, 2.0, 5.0)
        self._hollow(patch, 13, "bowel_wall", "bowel_content", 2.6, "bowel_content")

    def _forward(self, y: float, z: float) -> float:
        """How far visceral fat carries an organ at (y, z) forward."""
        return float(np.clip((y + 30) / 90, 0, 1) * VISCERAL(np.array([z]))[0] * self.person.visceral_mm * 0.85)

    @staticmethod
    def _within(patch: Patch, limit: Patch | None) -> Patch:
        if limit is None:
            return patch
        values = patch.values.copy()
        both = [slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(patch.box, limit.box, strict=True)]
        if any(side.stop <= side.start for side in both):
            return patch
        here = tuple(slice(s.start - a.start, s.stop - a.start) for s, a in zip(both, patch.box, strict=True))
        there = tuple(slice(s.start - b.start, s.stop - b.start) for s, b in zip(both, limit.box, strict=True))
        np.maximum(values[here], limit.values[there], out=values[here])
        return Patch(patch.box, values)

    def _hollow(self, patch: Patch | None, label: int, wall: str, content: str, thickness: float, _: str) -> None:
        self.abdomen.organ(patch, label, wall)
        self.canvas.paint(patch, label, content, below=-thickness, only_labels=[label])

    def _float(self, patch: Patch, label: int, level: float, below: float) -> None:
        """Gas in front of the height ``level`` (patient y, mm): a flat level, the patient lies on the back."""
        ahead = (self.canvas.axes[1][patch.box[1]] > level)[None, :, None]
        self.canvas.paint(
            Patch(patch.box, np.where(ahead, patch.values, np.float32(9))), label, "bowel_gas", below=below, only_labels=[label]
        )

    def _gas(self, patch: Patch | None, label: int, share: float, depth: float) -> None:
        """Gas pockets: where the slow noise is high and the front of the loop."""
        if patch is None:
            return
        pocket = self.canvas.field(
            (-150, -90, -270), (150, 130, 160), lambda p: p["pocket"] - np.clip((-200 - p["z"]) / 6, 0, 5), 4.0
        )
        if pocket is None:
            return
        quantile = float(np.clip(1.3 - 2.6 * share, -1.2, 1.6))
        raised = self._within(patch, Patch(pocket.box, (quantile - pocket.values) * 6))
        self.canvas.paint(raised, label, "bowel_gas", below=-depth, only_labels=[label])


def _small_bowel(rng: np.random.Generator, person: Person) -> list[np.ndarray]:
    """Loops (x, y, z, radius): a jittered snake through the middle of the abdomen, folded in oblique layers."""
    pitch = float(np.clip(23.2 + 0.12 * person.visceral_mm, 22.8, 27.0))
    loops: list[np.ndarray] = []
    run: list[list[float]] = []
    tilt = np.deg2rad(rng.uniform(20, 70) * (1 if rng.random() < 0.5 else -1))
    turn = np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]])
    push = max(person.visceral_mm, 0) * 0.8
    rows = np.arange(70 + push, -38, -pitch * 0.96)[::-1]
    steps = np.arange(-8, 9) * pitch
    for layer, w in enumerate(steps):
        for row, y in enumerate(rows if layer % 2 == 0 else rows[::-1]):
            for u in steps if (row + layer) % 2 == 0 else steps[::-1]:
                x, z = turn @ (u, w) + (0.0, -40.0)
                x, y_in, z = np.array([x, y, z]) + rng.normal(0, 5.4, 3)
                radius = rng.uniform(9.0, 12.2)
                at = np.array([z])
                front = float(CAVITY_FRONT(at)[0] + VISCERAL(at)[0] * person.visceral_mm)
                top = 96 if x < -8 and y_in > 0 else 50
                y_in = min(y_in, front - 14) if y_in < front + 4 else y_in
                pelvic = z < -120 and (abs(x) > 48 or y_in < -12)
                pelvic = pelvic or (y_in < -8 and (abs(x) < 52 or z > 12))
                if y_in > front - 13 or pelvic or abs(x) > 94 or not -178 < z < top or rng.random() < 0.04:
                    if len(run) > 1:
                        loops.append(np.array(run))
                    run = []
                    continue
                run.append([x, y_in, z, radius])
    if len(run) > 1:
        loops.append(np.array(run))
    return loops


def _arcades(rng: np.random.Generator, loops: list[np.ndarray]) -> list[np.ndarray]:
    """Mesenteric branches (x, y, z, radius) from the root to points of the loops."""
    points = np.concatenate(loops)[:, :3]
    ends = points[rng.choice(len(points), 48, replace=False)] + rng.normal(0, 6, (48, 3))
    lines = []
    for end in ends:
        start = np.array([6.0 - 0.1 * end[2], 30.0, np.clip(end[2] + 30, -60, 60)])
        middle = (start + end) / 2 + rng.normal(0, 7, 3)
        lines.append(np.array([[*start, 2.4], [*middle, 1.9], [*end, 1.3]]))
    return lines
