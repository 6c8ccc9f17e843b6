"""Brain stem, fourth ventricle, spinal cord and the foliated cerebellum, in canonical mm.

Centres and volumes are the means over the public SynthSeg training label maps (Billot et al. 2023).
"""

from __future__ import annotations

import numpy as np

from ctmr_core.anatomy.parametric.head.canvas import Canvas
from ctmr_core.anatomy.parametric.head.cerebrum import tentorium
from ctmr_core.anatomy.parametric.head.person import Person
from ctmr_core.anatomy.parametric.head.primitives import Points, ellipsoid, smooth_max, smooth_min, tube

CEREBELLUM_BOX = ((-58.0, -62.0, -74.0), (58.0, 6.0, -8.0))
STEM_BOX = ((-22.0, -22.0, -86.0), (22.0, 24.0, -6.0))


def brain_stem(points: Points) -> np.ndarray:
    """Midbrain, the belly of the pons and the medulla."""
    midbrain = ellipsoid(points, (0, 2.5, -17), (15.5, 11.2, 12.5), pitch=-8)
    # the interpeduncular fossa notches the front of the midbrain
    notch = tube(points, ((0, 14.5, -6, 3.2), (0, 14.5, -22, 3.2)))
    pons = ellipsoid(points, (0, 6.0, -36.5), (17.0, 12.2, 14.5), pitch=-6)
    medulla = tube(points, ((0, 0, -46, 8.2), (0, -5, -58, 7.2), (0, -8, -70, 6.0)), (1.15, 0.95, 1))
    return smooth_min(smooth_min(smooth_max(midbrain, -notch, 2), pons, 4), medulla, 4)


def spinal_cord(points: Points) -> np.ndarray:
    """The cord below the medulla."""
    return tube(points, ((0, -8, -68, 5.2), (0, -10, -92, 4.8), (0, -16, -240, 4.8)), (1.25, 0.95, 1))


def fourth_ventricle(points: Points) -> np.ndarray:
    """The tent behind pons and medulla, with the aqueduct above it."""
    room = ellipsoid(points, (0, -9.2, -39), (7.2, 4.1, 12.5), pitch=8)
    apex = ellipsoid(points, (0, -13.5, -37), (4.5, 5.5, 4.5))
    aqueduct = tube(points, ((0, -1, -10, 0.9), (0, -4.5, -19, 0.9), (0, -7.5, -29, 1.6)))
    return np.minimum(smooth_min(room, apex, 3.0), aqueduct)


def cerebellum(points: Points) -> np.ndarray:
    """Hull of both cerebellar hemispheres and the vermis."""
    x, y, z = points
    ax = np.abs(x)
    lobe = ellipsoid((ax, y, z), (22.0, -27.0, -43.5), (30.0, 27.0, 24.0), yaw=14, pitch=8)
    vermis = ellipsoid(points, (0, -25, -37.0), (19, 25, 25), pitch=10)
    notch = tube(points, ((0, -56, -34, 3.0), (0, -50, -64, 5.0)))  # the posterior cerebellar notch
    both = smooth_max(smooth_min(lobe, vermis, 6.0), -notch, 5.0)
    return smooth_max(both, z - (tentorium(x, y) - np.float32(1.4)), 2.5)


def _white_core(points: Points) -> np.ndarray:
    x, y, z = points
    ax = np.abs(x)
    body = ellipsoid((ax, y, z), (18, -20.5, -43), (15.5, 8.0, 5.0), yaw=20)
    bridge = ellipsoid(points, (0, -20, -42), (11, 4.0, 4.0))
    peduncle = tube((ax, y, z), ((11.5, 4, -38, 6.4), (17, -6, -41, 5.6), (19, -15, -43, 5.0)))
    return smooth_min(smooth_min(body, peduncle, 4.0), bridge, 3.0)


def _folia(canvas: Canvas, person: Person) -> None:
    found = canvas.points(*CEREBELLUM_BOX)
    if found is None:
        return
    window, points = found
    x, y, z = points
    surface = cerebellum(points)
    inside = surface < 0
    lattice = person.lattice(*CEREBELLUM_BOX, 3.0)
    rng = person.streams("head/cerebellum")
    wave = [window.sample(lattice, lattice.noise(rng, wavelength)) for wavelength in (24.0, 14.0)]
    # folia fan out from the roof of the fourth ventricle
    ahead, above = np.float32(-9.0) - y, z + 42
    radius = np.sqrt(ahead * ahead + above * above + np.float32(0.35) * x * x) + 1
    angle = np.arctan2(above, ahead + np.float32(0.4) * np.abs(x)) + np.float32(0.05) * wave[0]
    depth = -surface
    lobule = angle * np.float32(1.9) + np.float32(0.10) * wave[1]
    leaf = angle * np.float32(5.6) + np.float32(0.36) * wave[1]

    def apart(phase: np.ndarray, per_radian: float) -> np.ndarray:
        """mm to the nearest whole phase."""
        return np.abs(phase - np.round(phase)) * radius * np.float32(1 / per_radian)

    white = _white_core(points)
    trunk = apart(lobule + np.float32(0.5), 1.9) - np.float32(0.9)
    twig = apart(leaf + np.float32(0.5), 5.6) - np.float32(0.38)
    branches = np.minimum(
        np.maximum(trunk, np.float32(3.4) - depth), np.maximum(np.maximum(twig, np.float32(2.3) - depth), depth - 9)
    )
    branches = np.maximum(branches, np.float32(11.0) - radius)
    matter = np.minimum(white, branches)
    opening = np.float32(0.22 + 0.4 * person.traits.atrophy)
    mouth = np.exp(-np.clip(depth, 0, 10) / 2)
    gaps = np.maximum(apart(lobule, 1.9) - opening - mouth, depth - 11)
    gaps = np.minimum(gaps, np.maximum(apart(leaf, 5.6) - np.float32(0.15) - np.float32(0.5) * mouth, depth - 4))
    grey = inside & (gaps > 0) | (inside & (white < -1))
    peduncle = (white < 0) & (np.abs(x) > 6)
    for label, inner, side in ((8, 7, x < 0), (47, 46, x >= 0)):
        canvas.fill(window, grey & side, label)
        canvas.fill(window, ((matter < 0) & grey | peduncle) & side, inner)


def paint_posterior(canvas: Canvas, person: Person) -> None:
    """Paint cerebellum, brain stem, fourth ventricle and cord over the fluid of the cranial cavity."""
    _folia(canvas, person)
    canvas.paint(512, (-12, -30, -240), (12, 6, -62), spinal_cord, over=(24,))
    canvas.paint(16, *STEM_BOX, brain_stem)
    canvas.paint(15, (-12, -24, -56), (12, 2, -8), fourth_ventricle)


def posterior_hull(points: Points) -> np.ndarray:
    """Signed mm to everything of the brain below the tentorium, smoothed together."""
    return smooth_min(cerebellum(points), brain_stem(points), 6.0)
