"""Solid organs of abdomen and pelvis."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ctmr_core.anatomy.parametric.shapes import Vector, ellipsoid, rotation, smooth_max, smooth_min, spline, sweep
from ctmr_core.anatomy.parametric.torso.canvas import BODY, COARSE, Canvas, Lattice, Patch
from ctmr_core.anatomy.parametric.torso.person import Person

#: canonical volumes (mL) of the shapes below at scale 1, measured on a 2 mm grid.
CANONICAL_ML = {
    "spleen": 66.0,
    "kidney": 146.0,
    "pancreas": 55.0,
    "gallbladder": 36.0,
    "bladder": 200.0,
    "prostate": 26.0,
    "uterus": 80.0,
}
#: canonical rise of liver volume (mL) per mm that its lower surface drops, and its volume at no drop.
LIVER_ML, LIVER_ML_PER_MM = 1330.0, 14.5
_FAT_GAP = 1.3
#: heights (canonical mm) of the middles of the kidneys, right and left: at L2 and at the disc above it.
KIDNEY_Z = (42.0, 53.0)
_KIDNEY_SD = 7.5
_ORGANS = [1, 3, 4, 5, 8, 9, 10, 12, 13, 14, 15, 19, 62, 118]


class Abdomen:
    """Paints organs from the least to the most insistent; each keeps a thin fat plane to its neighbours."""

    def __init__(self, canvas: Canvas, person: Person, rng: np.random.Generator) -> None:
        self.canvas, self.person = canvas, person
        self._k = {organ: person.organ_scale(organ, ml) for organ, ml in CANONICAL_ML.items()}
        jitter = np.clip(rng.standard_normal((8, 3)), -2, 2) * (3.0, 3.0, 5.0)
        jitter[:2, 2] *= _KIDNEY_SD / 5.0
        self._shift = {
            name: jitter[i] for i, name in enumerate(("kidney_r", "kidney_l", "spleen", "gallbladder", "pancreas", "bladder"))
        }
        target = person.organ_ml["liver"] / person.organ_growth("liver")
        self.liver_drop = float(np.clip((target - LIVER_ML) / LIVER_ML_PER_MM, -32, 48))
        self._left_lobe = float(np.clip(rng.normal(0, 9), -18, 18))
        self._tree = _liver_tree(rng)

    def organ(self, patch: Patch | None, label: int, tissue: str, gap: float = _FAT_GAP) -> None:
        """An organ with the fat plane that parts it from organs painted before."""
        self.canvas.paint(patch, BODY, "visceral_fat", below=gap, only_labels=_ORGANS)
        self.canvas.paint(patch, label, tissue, only_labels=[BODY, *_ORGANS])

    def _blob(self, centre: Vector, radius: float, shape: Callable[[Lattice], np.ndarray], step: float = 2.0) -> Patch | None:
        low = [c - radius for c in centre]
        return self.canvas.field(low, [c + radius for c in centre], shape, step)

    def liver(self) -> None:
        """A wedge under the right dome: wall and diaphragm bound it above, a rising oblique plane below."""

        def shape(p: Lattice) -> np.ndarray:
            x, y, z = p.xyz
            cap = smooth_max(p["cavity"] + 4.0, p["diaphragm"] + 4.0, 6.0)
            under = 60 - self.liver_drop - 0.42 * np.clip(x - 50, 0, 90) + 0.50 * np.clip(40 - x, 0, 200)
            under = under + 0.85 * np.clip(-12 - y, 0, 90) - 0.12 * np.clip(y, 0, 90)
            floor = (under - z) * np.float32(0.72)
            border = (-x - y - 10 + 0.85 * np.clip(132 - z, -20, 200)) * np.float32(0.6)
            tip = (-(x + 66 + self._left_lobe) - 0.35 * (z - 140)) * np.float32(0.8)
            hilum = ellipsoid(x, y, z, (24, -4, 96), (24, 22, 26))
            fossa = ellipsoid(x, y, z, (60, -72, 58), (40, 46, 66))
            body = smooth_max(smooth_max(smooth_max(cap, floor, 12.0), -fossa, 10.0), smooth_max(border, tip, 16.0), 14.0)
            return smooth_max(body, -hilum, 12.0) + 1.6 * p["noise"]

        patch = self.canvas.field((-110, -110, -30), (155, 130, 205), shape, COARSE)
        self.organ(patch, 1, "liver")
        self.canvas.paint(self.canvas.tubes(self._tree), None, "hepatic_vessel", only=["liver"])

    def spleen(self) -> None:
        k, (_, dy, dz) = self._k["spleen"], self._shift["spleen"]

        def shape(p: Lattice) -> np.ndarray:
            x, y, z = p.xyz
            depth = -p["cavity"]
            along = (y + 42 - dy) * 0.82 - (z - 132 - dz) * 0.30
            up = (z - 132 - dz) * 0.95 + (y + 42 - dy) * 0.30
            lens = ellipsoid(depth, along, up, (17.0, 0, 0), (25 * k, 47 * k, 54 * k))
            lens = np.maximum(lens, x + 30)
            return smooth_max(smooth_max(lens, 4.0 - depth, 6.0), p["diaphragm"] + 4.0, 6.0) + 1.2 * p["noise"]

        self.organ(self._blob((-88, -45, 132), 74, shape, COARSE), 3, "spleen")

    def kidneys(self) -> None:
        """Cortex, pyramids, sinus fat and pelvis, in perirenal fat; the ureters run down to the bladder."""
        for side, label, z0, name in ((1.0, 5, KIDNEY_Z[0], "kidney_r"), (-1.0, 14, KIDNEY_Z[1], "kidney_l")):
            dx, dy, dz = self._shift[name]
            kidney = _Kidney(side, (66 + dx * 0.6, -46 + dy * 0.5, z0 + dz), self._k["kidney"])
            patch = self._blob(kidney.middle, 66, kidney.bean)
            capsule = 2.2 + 0.12 * max(self.person.visceral_mm, 0)
            self.canvas.paint(patch, BODY, "visceral_fat", below=capsule, only_labels=[i for i in _ORGANS if i != 1])
            self.canvas.paint(patch, BODY, "visceral_fat", below=_FAT_GAP, only_labels=[1])
            self.canvas.paint(patch, label, "kidney_cortex", only_labels=[BODY, *_ORGANS, 106, 107, 104, 105])
            self.canvas.paint(self._blob(kidney.middle, 60, kidney.pyramids), None, "kidney_medulla", only_labels=[label])
            self.canvas.paint(self._blob(kidney.middle, 50, kidney.sinus), BODY, "visceral_fat", only_labels=[label])
            self.canvas.paint(self._blob(kidney.middle, 46, kidney.pelvis), None, "renal_pelvis", only=["visceral_fat"])
            line = (
                (42, -36, z0 - 14, 3.2),
                (40, -14, z0 - 50, 2.4),
                (42, -4, -50, 2.2),
                (52, -10, -110, 2.2),
                (52, -32, -165, 2.2),
                (22, -22, -196, 2.2),
            )
            self.canvas.paint(
                self.canvas.tube([(side * x, y, z, r) for x, y, z, r in line]), None, "urine", only=["visceral_fat"]
            )

    def adrenals(self) -> None:
        for side, label in ((1.0, 8), (-1.0, 9)):
            x0, y0, z0 = (37.0, -34.0, 105.0) if side > 0 else (40.0, -30.0, 107.0)
            lines = [
                [(x0 - 9, y0 + 12, z0 + 6, 3.0), (x0 - 3, y0 + 2, z0, 3.6), (x0 + 7, y0 - 14, z0 - 9, 3.0)],
                [(x0 - 9, y0 + 12, z0 + 6, 3.0), (x0 - 7, y0, z0 - 2, 3.4), (x0 - 6, y0 - 14, z0 - 8, 2.8)],
                [(x0 - 8, y0 + 10, z0 + 8, 3.0), (x0 - 4, y0 + 2, z0 - 10, 3.4), (x0 + 2, y0 - 2, z0 - 20, 2.6)],
            ]
            for line in lines:
                tube = self.canvas.tube([(side * x, y, z, 1.25 * r) for x, y, z, r in line])
                self.canvas.paint(tube, BODY, "visceral_fat", below=2.0, only_labels=[*_ORGANS])
                self.canvas.paint(tube, label, "adrenal_gland", only_labels=[BODY, *_ORGANS])

    def pancreas(self) -> None:
        k, (_, dy, dz) = self._k["pancreas"], self._shift["pancreas"]
        line = [
            (31, 16, 40, 10),
            (33, 20, 58, 14),
            (24, 27, 74, 11.5),
            (6, 34, 82, 9.5),
            (-16, 32, 90, 10),
            (-42, 14, 99, 11),
            (-66, -10, 108, 10),
            (-82, -26, 116, 7),
        ]
        samples, _ = spline([(x, y + 0.5 * dy, z + 0.5 * dz, r * k) for x, y, z, r in line], 5.0)
        world = self.canvas.frame.to_patient(samples[:, :3])

        def shape(p: Lattice) -> np.ndarray:
            x, y, z = p.xyz
            lobes = np.sin(x * 0.55) * np.sin(z * 0.6 + y * 0.3)
            return sweep(p.axes, world, samples[:, 3], 8.0) + 1.4 * p["noise"] + 1.0 * lobes

        patch = self.canvas.world_field(world.min(0) - 24, world.max(0) + 24, shape, 2.0)
        self.organ(patch, 4, "pancreas")

    def gallbladder(self) -> None:
        k, dz = self._k["gallbladder"], self._shift["gallbladder"][2]
        line = [(30, 14, 88, 3.5), (38, 24, 80, 7), (48, 40, 64, 13), (55, 52, 52, 15), (58, 58, 45, 11)]
        tube = self.canvas.tube([(x, y, z + 0.4 * dz - 0.3 * self.liver_drop, r * k) for x, y, z, r in line])
        self.canvas.paint(tube, BODY, "visceral_fat", below=2.0, only_labels=[i for i in _ORGANS if i != 1])
        self.canvas.paint(tube, BODY, "connective_tissue", below=1.2, only_labels=[BODY, *_ORGANS])
        self.canvas.paint(tube, 10, "bile", only_labels=[BODY, *_ORGANS])

    def pelvis_organs(self) -> None:
        height, girth = self._bladder_size()

        def bladder(p: Lattice) -> np.ndarray:
            x, y, z = p.xyz
            round_ = ellipsoid(x, y, z, (0, 14, -212 + height), (43 * girth, 36 * girth, height))
            return smooth_max(round_, p["cavity"] + 4.0, 8.0) + 0.8 * p["noise"]

        patch = self._blob((0, 14, -212 + height), max(height, 43 * girth) + 10, bladder)
        if self.person.female:
            self._uterus()
        else:
            m = self._k["prostate"]

            def prostate(p: Lattice) -> np.ndarray:
                x, y, z = p.xyz
                return ellipsoid(x, y, z, (0, -6, -226), (22 * m, 16 * m, 18 * m))

            def vesicles(p: Lattice) -> np.ndarray:
                x, y, z = p.xyz
                return ellipsoid(np.abs(x), y, z, (15, -24, -200), (16, 6, 7), rotation(about_z=-14)) + p["noise"]

            self.canvas.paint(self._blob((0, -22, -200), 44, vesicles), BODY, "prostate", only_labels=[BODY])
            self.organ(self._blob((0, -6, -226), 44, prostate), 118, "prostate")
        self.organ(patch, 15, "bladder_wall", 2.0)
        self.canvas.paint(patch, 15, "urine", below=-3.2, only_labels=[15])

    def _bladder_size(self) -> tuple[float, float]:
        """Half height (canonical mm) and relative girth: the pelvis is narrow, so a full bladder rises."""
        k = self._k["bladder"]
        rise = max(k, 1.0) ** 0.9
        return 30.0 * k * rise, k / np.sqrt(rise)

    @property
    def bladder_lift(self) -> float:
        """How far (canonical mm) a bladder fuller than usual lifts what lies on it."""
        return max(0.0, 2 * (self._bladder_size()[0] - 30.0))

    def _uterus(self) -> None:
        k, lift = self._k["uterus"], 0.5 * self.bladder_lift

        def uterus(p: Lattice) -> np.ndarray:
            x, y, z = p.xyz
            fundus = ellipsoid(x, y, z, (2, -10 - 0.5 * lift, -150 + lift), (27 * k, 21 * k, 24 * k), rotation(about_x=35))
            cervix = ellipsoid(x, y, z, (0, -26, -182), (15, 13, 22))
            ovaries = ellipsoid(np.abs(x), y, z, (46, -14, -146), (15, 10, 11))
            return np.minimum(smooth_min(fundus, cervix, 8.0), ovaries) + 1.2 * p["noise"]

        patch = self._blob((0, -15, -160), 72 + lift, uterus)
        self.canvas.paint(patch, BODY, "visceral_fat", below=1.5, only_labels=_ORGANS)
        self.canvas.paint(patch, BODY, "uterus", only_labels=[BODY, *_ORGANS])


class _Kidney:
    """Shapes of one kidney in its own axes: u lateral, v front, w along the kidney."""

    def __init__(self, side: float, centre: tuple[float, float, float], k: float) -> None:
        self.side, self.centre, self.k = np.float32(side), centre, k
        self.middle = (side * centre[0], centre[1], centre[2])
        self._turn = rotation(about_x=-10.0, about_y=12.0, about_z=28.0).astype(np.float32)

    def _local(self, p: Lattice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        x, y, z = p["x"] * self.side - self.centre[0], p["y"] - self.centre[1], p["z"] - self.centre[2]
        u, v, w = (row[0] * x + row[1] * y + row[2] * z for row in self._turn)
        return u, v, w

    def bean(self, p: Lattice) -> np.ndarray:
        u, v, w = self._local(p)
        k = self.k
        bent = u + np.float32(0.0075 / k) * w * w - 5.0
        whole = ellipsoid(bent, v, w, (0, 0, 0), (27.5 * k, 25.5 * k, 53 * k))
        notch = ellipsoid(u, v, w, (-27 * k, 3, 0), (17 * k, 11 * k, 17 * k))
        return smooth_max(whole, -notch, 5.0) + 0.7 * p["noise"]

    def sinus(self, p: Lattice) -> np.ndarray:
        u, v, w = self._local(p)
        return ellipsoid(u, v, w, (-9 * self.k, 1, 0), (14 * self.k, 9.5 * self.k, 26 * self.k)) + 1.5 * p["noise"]

    def pelvis(self, p: Lattice) -> np.ndarray:
        u, v, w = self._local(p)
        return ellipsoid(u, v, w, (-14 * self.k, 2, -3), (12 * self.k, 5.0 * self.k, 12 * self.k))

    def pyramids(self, p: Lattice) -> np.ndarray:
        u, v, w = self._local(p)
        fan = np.arctan2(w * 0.75, u + 16 * self.k) * 5.0
        ring = np.arctan2(v, u + 16 * self.k) * 2.6
        return np.maximum(self.bean(p) + 6.5 * self.k, -(np.cos(fan) * 0.7 + np.cos(ring * 2) * 0.5 - 0.05) * 6)


def _liver_tree(rng: np.random.Generator) -> list[np.ndarray]:
    """Hepatic veins to the cava, and the two portal branches with their divisions."""
    branches = []
    cava = np.array([20.0, -2.0, 166.0])
    for target in ((100, -20, 110), (62, 30, 95), (-20, 40, 125), (110, 10, 60), (60, -40, 100)):
        end = np.asarray(target, float) + rng.normal(0, 6, 3)
        middle = (cava + end) / 2 + [0, 4, 12]
        branches.append(np.array([[*cava, 5.0], [*middle, 3.8], [*end, 1.9]]))
        for _ in range(3):
            side = middle + (end - middle) * rng.uniform(0, 0.6)
            tip = side + rng.normal(0, 22, 3) + (end - middle) * 0.3
            branches.append(np.array([[*side, 2.8], [*tip, 1.5]]))
    portal = np.array([36.0, 4.0, 122.0])
    for target in ((92, 6, 118), (84, -30, 90), (90, 30, 70), (-24, 34, 138), (60, 40, 130)):
        end = np.asarray(target, float) + rng.normal(0, 6, 3)
        middle = (portal + end) / 2 + rng.normal(0, 4, 3)
        branches.append(np.array([[*portal, 4.8], [*middle, 3.6], [*end, 1.8]]))
        for _ in range(3):
            side = middle + (end - middle) * rng.uniform(0, 0.6)
            branches.append(np.array([[*side, 2.6], [*(side + rng.normal(0, 20, 3)), 1.4]]))
    return branches
