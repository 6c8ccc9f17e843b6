"""Cranial cavity, skull and scalp: the layers around the brain and the outline of head and neck."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ctmr_core.anatomy.parametric.head.canvas import Canvas
from ctmr_core.anatomy.parametric.head.cerebrum import hull
from ctmr_core.anatomy.parametric.head.lattice import Lattice
from ctmr_core.anatomy.parametric.head.person import Person
from ctmr_core.anatomy.parametric.head.posterior import posterior_hull
from ctmr_core.anatomy.parametric.head.primitives import Points, ellipsoid, smooth_max, smooth_min, smoothstep, tube

BOX = ((-98.0, -108.0, -215.0), (98.0, 136.0, 92.0))
_STEP = 3.0


def canal(points: Points) -> np.ndarray:
    """Foramen magnum and spinal canal."""
    return tube(points, ((0, 0, -50, 14), (0, -6, -70, 13.5), (0, -10, -90, 9.5), (0, -16, -240, 8.5)), (1.15, 1, 1))


def cavity(points: Points, room: float) -> np.ndarray:
    """Signed mm to the inner table of the skull; ``room`` is the fluid around the brain in mm."""
    x, y, z = points
    cerebrum = hull(points)
    basal = ellipsoid(points, (0, 20, -20), (22, 17, 11))
    wedge = ellipsoid(points, (0, -31, -19), (50, 31, 11))  # the tent between cerebrum and cerebellum
    brain = smooth_min(smooth_min(cerebrum, posterior_hull(points), 7.0), np.minimum(basal, wedge), 8.0)
    # more fluid over the top than at the base
    brain = brain - np.float32(room) * (np.float32(0.65) + np.float32(0.6) * smoothstep(z, -20, 45))
    # the petrous ridge parts the middle from the posterior fossa
    petrous = tube((np.abs(x), y, z), ((64, -16, -45, 12), (40, 1, -43, 9), (17, 17, -41, 5)))
    brain = smooth_max(brain, -petrous, 5.0)
    return smooth_min(brain, canal(points), 5.0)


def outline(points: Points, skull: np.ndarray, face: float) -> np.ndarray:
    """Signed mm to the skin: scalp over the skull, face, ears and neck."""
    x, y, z = points
    ax = np.abs(x)
    a = (ax, y, z)
    f = face
    block = ellipsoid(points, (0, 46, -62), (66 * f, 52, 62))
    block = smooth_min(block, ellipsoid(points, (0, 62, -86), (47 * f, 40, 40)), 14)
    block = smooth_min(block, tube(a, ((16, 89, -7, 11), (34, 82, -8, 12))), 10)  # brows
    block = smooth_min(block, tube(a, ((46 * f, 70, -50, 15), (58, 48, -47, 14))), 10)  # cheek bones
    block = smooth_min(block, ellipsoid(points, (0, 90, -118), (20 * f, 15, 14)), 14)  # chin
    block = smooth_min(block, ellipsoid(points, (0, 97, -86), (24 * f, 11, 13)), 8)  # lips
    crease = ellipsoid(points, (0, 113, -87), (20, 7, 1.2))
    block = smooth_max(block, -crease, 2)
    block = smooth_min(block, ellipsoid(a, (20, 84, -62), (18, 15, 20)), 12)  # maxilla
    nose = tube(points, ((0, 91, -18, 10), (0, 102, -40, 10.5), (0, 109, -54, 11)))
    nose = smooth_min(nose, tube(a, ((9, 90, -34, 8), (14, 95, -54, 9))), 8)
    nose = smooth_min(nose, ellipsoid(a, (11, 102, -57), (9, 11, 8)), 6)
    block = smooth_min(block, nose, 12)
    sockets = ellipsoid(a, (33, 106, -27), (17, 13.5, 12))
    block = smooth_max(block, -sockets, 8)
    lids = ellipsoid(a, (32, 82.5, -26), (16, 14.0, 14))
    block = smooth_min(block, lids, 5)
    jaw = tube(a, ((50 * f, 30, -80, 15), (48 * f, 42, -102, 14), (22, 80, -118, 14)))
    block = smooth_min(block, jaw, 14)
    throat = ellipsoid((x, y - np.float32(0.12) * (z + 130), np.zeros_like(z)), (0, 3, 0), (58, 54, 1e4))
    neck = smooth_min(smooth_max(throat, z + 58, 16), ellipsoid(points, (0, -13, -60), (63, 61, 44)), 16)
    leaning = (ax - np.float32(0.16) * (z + 36), y, z)
    ears = ellipsoid(leaning, (75.5, -2, -36), (6.5, 15, 25), yaw=8, pitch=-10)
    ears = smooth_max(ears, -ellipsoid(leaning, (83.0, 2, -36), (4.0, 9, 16), yaw=8), 2)
    body = smooth_min(smooth_min(skull, block, 16), neck, 34)
    return smooth_min(body, ears, 7)


@dataclass(frozen=True)
class Layers:
    """Fields of the layers, float32 on ``lattice``: signed mm to skin and inner table, mm of skull and of fat, noise."""

    lattice: Lattice
    skin: np.ndarray
    cavity: np.ndarray
    skull: np.ndarray
    fat: np.ndarray
    grain: np.ndarray


def make_layers(person: Person) -> Layers:
    """Make the layers of one person (about a million lattice nodes)."""
    traits = person.traits
    rng = person.streams("head/layers")
    lattice = person.lattice(*BOX, _STEP)
    points = person.canonical(lattice)
    x, y, z = points
    ax = np.abs(x)
    # the neck has no cranial cavity: only the spinal canal is evaluated there
    neck = int(np.searchsorted(lattice.axes_mm()[2], person.room_box((-90.0, -100.0, -105.0), (90.0, 110.0, 80.0))[0][2]))
    inner = np.empty(lattice.size, np.float32)
    inner[:, :, :neck] = canal((x[:, :, :neck], y[:, :, :neck], z[:, :, :neck]))
    inner[:, :, neck:] = cavity((x[:, :, neck:], y[:, :, neck:], z[:, :, neck:]), 2.2 + 1.7 * traits.atrophy)
    inner = lattice.as_distance(inner)
    slow = lattice.noise(rng, 70.0)
    skull = np.float32(traits.skull_mm) * (1 + np.float32(0.10) * slow)
    squama = smoothstep(ax, 42, 58) * smoothstep(-z, -18, 8) * smoothstep(y, -30, 0)
    skull = skull * (1 - np.float32(0.5) * squama)
    bump = np.exp(-((x / 26) ** 2) - ((y + 78) / 22) ** 2 - ((z + 28) / 14) ** 2)
    skull = skull + np.float32(3.0) * bump
    base = smoothstep(-z, 4, 16) * smoothstep(y, -40, -15)
    skull = skull + (np.float32(3.0) - skull) * base
    fat = np.float32(traits.fat_mm) * (1 + np.float32(0.2) * lattice.noise(rng, 45.0))
    temple = np.exp(-((np.abs(z + 6) / 30) ** 2) - ((y - 36) / 28) ** 2) * smoothstep(ax, 30, 50)
    scalp = np.float32(traits.skin_mm + 1.4) + fat + np.float32(9.0) * temple
    skin = outline(points, inner - skull - scalp, traits.face)
    skin = lattice.as_distance(skin)
    low = smoothstep(-z, 18, 70)
    fat = fat * (1 + low * np.float32(0.7)) + np.float32(2.0) * low * smoothstep(y, 20, 60) * smoothstep(ax, 18, 34)
    return Layers(lattice, skin, inner, skull, fat, lattice.noise(rng, 13.0))


def paint_layers(canvas: Canvas, layers: Layers, person: Person) -> None:
    """Paint skin, fat, soft tissue, skull and the fluid-filled cranial cavity."""
    traits = person.traits
    window = canvas.window(BOX[0], BOX[1])
    if window is None:
        return
    lattice = layers.lattice
    depth = window.sample(lattice, layers.skin)
    np.negative(depth, out=depth)
    inner = window.sample(lattice, layers.cavity)
    grain = window.sample(lattice, layers.grain)
    fat = window.sample(lattice, layers.fat)
    x, y, z = person.canonical(window)
    inside = depth > 0
    canvas.fill(window, inside, 511)
    canvas.fill(window, depth > traits.skin_mm, 540)
    fat += np.float32(traits.skin_mm)
    deep = depth > fat
    canvas.fill(window, deep, 507)
    muscle = deep & ((z < -50) & (y < 34) | (np.abs(x) > 30) & (z > -62) & (z < 32) & (y > -8) & (y < 62))
    canvas.fill(window, muscle, 541)
    # fat fills the face between its muscles, and parts the muscles of the neck
    canvas.fill(window, deep & np.where(muscle, (np.abs(grain) < 0.17) & (z < -40), (grain < -0.35) & (z < 0)), 507, 2)
    thickness = window.sample(lattice, layers.skull)
    vertebral = z < -70
    bone = (inner > 0) & (inner < thickness) & (depth > traits.skin_mm + 0.8) & ~vertebral
    canvas.fill(window, bone, 515)
    place = inner / thickness
    edge = np.float32(0.5 * (1 - traits.diploe))
    marrow = bone & (place > edge * 0.85) & (place < 1 - edge * 1.15) & (thickness > 3.6) & (grain > -1.6)
    marrow &= (z > -34) | (grain > 0.6) | (y < -25)
    canvas.fill(window, marrow, 516)
    canvas.fill(window, inner <= 0, 24)
    canvas.fill(window, (inner <= 0) & (inner > -0.8), 543)
    canvas.fill(window, (inner <= -0.8) & vertebral, 24, 46)
