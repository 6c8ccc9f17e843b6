"""The trunk: skin, fascia, cavity wall and diaphragm as fields on the coarse lattice, and the layers between them.

Widths and depths by height follow the ICRP 110 adult male (trunk without arms); thicknesses of the layers are those of
a lean adult and grow with the person's traits.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ctmr_core.anatomy.parametric.shapes import Profile, SplineNoise, ellipsoid, smooth_max, smooth_min, superellipse
from ctmr_core.anatomy.parametric.torso.canvas import BODY, COARSE, Canvas, Lattice, Patch
from ctmr_core.anatomy.parametric.torso.person import Person

TOP, BOTTOM = 432.0, -400.0
#: thickness of the skin, mm (ICRP 110: 1.6-2.1 mm at the trunk).
SKIN = 1.8
#: voxels larger than this in-plane, mm, have no skin: a layer of them would be far too thick.
_SKIN_VOXEL = 2.5

_Z = (-260.0, -215.0, -170.0, -130.0, -90.0, -50.0, 0.0, 50.0, 100.0, 150.0, 200.0, 250.0, 290.0, 315.0, 335.0, 352.0, 366.0)
CAVITY_WIDTH = Profile(_Z, (17, 29, 48, 84, 116, 126, 124, 127, 133, 137, 136, 127, 110, 90, 68, 48, 34))
CAVITY_FRONT = Profile(_Z, (10, 32, 64, 82, 88, 86, 82, 82, 86, 87, 80, 68, 54, 41, 28, 14, -2))
CAVITY_BACK = Profile(_Z, (-46, -58, -68, -72, -66, -64, -68, -76, -86, -92, -97, -97, -92, -86, -78, -68, -60))

_ZF = (
    -400.0,
    -300.0,
    -260.0,
    -215.0,
    -170.0,
    -120.0,
    -60.0,
    0.0,
    60.0,
    120.0,
    170.0,
    220.0,
    260.0,
    300.0,
    330.0,
    350.0,
    370.0,
    395.0,
    440.0,
)
FASCIA_WIDTH = Profile(_ZF, (150, 162, 163, 159, 151, 144, 139, 140, 143, 149, 156, 163, 168, 166, 148, 112, 76, 60, 55))
FASCIA_FRONT = Profile(_ZF, (62, 70, 74, 84, 94, 99, 99, 95, 94, 97, 98, 95, 90, 76, 58, 44, 32, 24, 20))
FASCIA_BACK = Profile(
    _ZF, (-80, -88, -96, -98, -98, -100, -100, -100, -102, -106, -112, -118, -120, -116, -108, -100, -90, -82, -76)
)
#: how fat clings: relative thickness of the subcutaneous layer by height.
FAT = Profile(
    (-400.0, -270.0, -200.0, -120.0, -40.0, 40.0, 120.0, 200.0, 280.0, 340.0, 400.0),
    (0.9, 1.15, 1.45, 1.4, 1.2, 1.05, 0.8, 0.65, 0.6, 0.6, 0.4),
)
#: how far (canonical mm) the diaphragm falls from its domes to the recess behind: the lungs end at T12 to L1.
_RECESS = 92.0
VISCERAL = Profile((-220.0, -120.0, -20.0, 60.0, 130.0, 200.0), (0.0, 0.55, 1.0, 0.95, 0.45, 0.0))


def _section(x: np.ndarray, y: np.ndarray, z: np.ndarray, width: Profile, front: np.ndarray, back: np.ndarray) -> np.ndarray:
    middle = (front + back) * np.float32(0.5)
    return superellipse(x, y - middle, width(z), (front - back) * np.float32(0.5))


def build_trunk(canvas: Canvas, person: Person, noise: SplineNoise) -> None:
    """Add the fields cavity, fascia, skin, diaphragm (all mm, negative inside / below) and noise to the coarse lattice."""
    x, y, z = (canvas.coarse[name] for name in "xyz")
    grain = noise.on_lattice(canvas.coarse_axes)
    canvas.coarse["noise"] = grain
    push = VISCERAL(z) * np.float32(person.visceral_mm)
    cavity = _section(x, y, z, CAVITY_WIDTH, CAVITY_FRONT(z) + push, CAVITY_BACK(z))
    spine_ridge = np.exp(-np.square(x / 30)) * np.clip((-30 - y) / 30, 0, 1)
    cavity += np.where(z > -60, 16, 4) * spine_ridge
    cavity = np.maximum(cavity, np.maximum((z - 366) * 0.8, -255 - z))
    canvas.coarse["cavity"] = cavity.astype(np.float32)
    canvas.coarse["diaphragm"] = _diaphragm(x, y, z, cavity, person)
    muscle = np.float32((person.muscle - 0.95) * 14)
    fascia = _section(x, y, z, FASCIA_WIDTH, FASCIA_FRONT(z) + push + muscle * 0.5, FASCIA_BACK(z)) - muscle
    fascia += 7 * np.exp(-np.square(x / 16)) * np.clip(-y / 40, 0, 1)
    fascia = _shoulders(x, y, z, fascia)
    fascia = _thighs(x, y, z, fascia)
    for side in (-1.0, 1.0):
        buttock = ellipsoid(x, y, z, (side * 72, -66, -188), (62, 52, 76))
        fascia = smooth_min(fascia, buttock, 20.0)
    canvas.coarse["fascia"] = fascia.astype(np.float32)
    fat = np.float32(person.subcutaneous_mm) * FAT(z) * (1 + 0.02 * grain)
    flank = np.clip(np.abs(x) / 130, 0, 1.2)
    rear = np.clip(-y / 90, 0, 1.2)
    fat = fat * (0.75 + 0.35 * flank * rear + 0.3 * rear * (z < 60)) + 1.5
    skin = fascia - np.maximum(fat, 2.5)
    if person.female:
        size = 0.75 + 0.02 * min(max(person.subcutaneous_mm, 5.0), 30.0)
        for side in (-1.0, 1.0):
            breast = ellipsoid(x, y, z, (side * 88, 84, 196), (62 * size, 46 * size, 60 * size))
            skin = smooth_min(skin, breast, 16.0)
    canvas.coarse["skin"] = skin.astype(np.float32)


def _shoulders(x: np.ndarray, y: np.ndarray, z: np.ndarray, fascia: np.ndarray) -> np.ndarray:
    for side in (-1.0, 1.0):
        deltoid = ellipsoid(x, y, z, (side * 170, -30, 322), (50, 46, 58))
        fascia = smooth_min(fascia, deltoid, 30.0)
        trapezius = ellipsoid(x, y, z, (side * 70, -62, 352), (86, 34, 30))
        fascia = smooth_min(fascia, trapezius, 26.0)
    return fascia


def _thighs(x: np.ndarray, y: np.ndarray, z: np.ndarray, fascia: np.ndarray) -> np.ndarray:
    half = np.float32(70) + np.clip(z + 400, 0, 110) * np.float32(0.04)
    thigh = superellipse(np.abs(x) - 84, y + 8, half, half * np.float32(1.0))
    cleft = (-268 - z) * np.float32(0.8)
    return np.where(z < -150, smooth_min(np.maximum(fascia, cleft), np.maximum(thigh, (z + 205) * 0.5), 14.0), fascia)


def _diaphragm(x: np.ndarray, y: np.ndarray, z: np.ndarray, cavity: np.ndarray, person: Person) -> np.ndarray:
    """z above the diaphragm, mm: positive in the chest. Two domes, the right one higher, steep towards the wall."""
    lift = np.float32(20 * (1 - person.inflation) - 6)
    right = 34 * np.exp(-np.square((x - 70) / 58) - np.square((y - 2) / 68))
    left = 24 * np.exp(-np.square((x + 72) / 52) - np.square((y - 0) / 62))
    dome = 150 + lift + right + left
    depth = np.clip(-cavity, 0, 70) / 70
    fall = np.clip(58 - 0.62 * y + 0.12 * np.abs(x), 24, _RECESS + person.recess_mm) * np.power(1 - depth, 3.2)
    return ((z - (dome - fall)) * np.float32(0.75)).astype(np.float32)


def paint_trunk(canvas: Canvas, person: Person) -> None:
    """Skin, subcutaneous fat, muscle, and the fat of the cavity; everything else is painted over these."""
    low, high = (np.array([float(a[i]) for a in canvas.axes]) for i in (0, -1))

    def everywhere(shape: Callable[[Lattice], np.ndarray]) -> Patch | None:
        return canvas.world_field(low - 1, high + 1, shape, COARSE)

    skin = everywhere(lambda p: np.maximum(p["skin"], np.maximum(p["z"] - TOP, BOTTOM - p["z"])))
    canvas.masks["skin"] = skin
    canvas.paint(skin, BODY, "skin")
    canvas.paint(skin, BODY, "subcutaneous_fat", below=-skin_depth(canvas))
    if person.female:
        _paint_breast(canvas)
    fascia = everywhere(lambda p: p["fascia"])
    canvas.paint(fascia, BODY, "muscle", only=["subcutaneous_fat", "breast_gland"])
    canvas.paint(everywhere(lambda p: _intermuscular_fat(p, person)), BODY, "subcutaneous_fat", only=["muscle"])
    cavity = everywhere(lambda p: p["cavity"])
    canvas.paint(cavity, BODY, "visceral_fat", only=["muscle", "subcutaneous_fat"])
    canvas.masks["cavity"] = cavity
    diaphragm = everywhere(lambda p: np.maximum(np.abs(p["diaphragm"]) - 1.6, p["cavity"]))
    canvas.paint(diaphragm, BODY, "muscle", only=["visceral_fat"])


def skin_depth(canvas: Canvas) -> float:
    """How deep skin is painted, mm: a voxel at least, or it would have gaps; 0 where a voxel is too thick for skin."""
    voxel = float(max(canvas.grid.spacing[:2]))
    return max(SKIN, voxel) if voxel <= _SKIN_VOXEL else 0.0


def _intermuscular_fat(p: Lattice, person: Person) -> np.ndarray:
    """Thin fat planes: between the flat muscles of the flank, under the big muscles of the chest, in the armpits."""
    x, y, z, cavity, fascia, grain = p["x"], p["y"], p["z"], p["cavity"], p["fascia"], p["noise"]
    wall = np.maximum(cavity - fascia, 1)
    share = cavity / wall
    flank = (z < 110) & (z > -70) & (np.abs(x) > 55) & (y > -55)
    thin = np.minimum(np.abs(share - 0.36), np.abs(share - 0.68)) * wall - 0.7 - 0.35 * grain
    sheets = np.where(flank, thin, 9.0)
    line = np.where((z < 130) & (y > 40), np.abs(x) - 1.6, 9.0)
    chest = np.where((z > 90) & (z < 345), np.abs(cavity - 13 - 2 * grain) - 1.3 - 0.4 * grain, 9.0)
    armpit = ellipsoid(np.abs(x), y, z, (146, 2, 282), (20, 26, 44)) + 3 * grain
    groin = ellipsoid(np.abs(x), y, z, (62, 62, -225), (26, 16, 40)) + 3 * grain
    ischial = ellipsoid(np.abs(x), y, z, (34, -58, -246), (16, 26, 30)) + 2 * grain
    thigh = np.where(z < -255, np.abs(np.sin(np.arctan2(y + 2, np.abs(x) - 100) * 2.5 + 0.3 * grain)) * 26 - 2.0, 9.0)
    rim = np.where(z < -255, np.abs(fascia + 26 + 3 * grain) - 1.2, 9.0)
    out = sheets
    limbs = (z > 225) | (z < -90)
    fatty = 0.6 + 0.012 * max(person.age_years - 30, 0) + 0.02 * person.subcutaneous_mm  # muscle turns to fat with age and weight
    septa = np.where(limbs & (cavity > 8), np.abs(grain + 0.25) * 11 - fatty, 9.0)
    for part in (line, chest, armpit, groin, ischial, thigh, rim, septa):
        out = np.minimum(out, part)
    return np.maximum(out, fascia + 2)


def _paint_breast(canvas: Canvas) -> None:
    def gland(p: Lattice) -> np.ndarray:
        x, y, z = np.abs(p["x"]), p["y"], p["z"]
        cone = ellipsoid(x, y, z, (90, 104, 194), (40, 20, 38)) + 5 * p["noise"]
        return smooth_max(cone, p["skin"] + 9, 4.0)

    patch = canvas.field((-150, 60, 120), (150, 170, 260), gland, 4.0)
    canvas.paint(patch, BODY, "breast_gland", only=["subcutaneous_fat"])
