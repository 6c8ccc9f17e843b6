"""Ventricles and deep grey matter, as shapes of the right side in canonical mm (+x lateral).

Centres, extents and volumes are the means over the public SynthSeg training label maps (Billot et al. 2023).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ctmr_core.anatomy.grid import Triple
from ctmr_core.anatomy.parametric.head.canvas import Canvas, mirrored, side_box
from ctmr_core.anatomy.parametric.head.person import Person
from ctmr_core.anatomy.parametric.head.primitives import Points, ellipsoid, smooth_max, smooth_min, tube

CEREBRAL = (2, 3, 24, 41, 42)


def callosum(points: Points, size: float) -> np.ndarray:
    """Corpus callosum: genu, body and splenium at the midline, spreading up and outwards into the hemispheres."""
    x, y, z = points
    lifted = z - np.float32(0.010) * np.minimum(x * x, 500) - np.float32(5.0 * (size - 1.1))
    arch = tube(
        (np.zeros_like(x), y, lifted),
        (
            (0, 43, -11, 1.8),
            (0, 50.5, -6, 3.6),
            (0, 50, 3, 4.8),
            (0, 42, 11, 3.2),
            (0, 27, 15.5, 2.9),
            (0, 10, 16, 2.8),
            (0, -3, 11.5, 3.6),
            (0, -9, 5, 5.0),
        ),
    )
    return arch + np.float32(0.14) * np.maximum(np.abs(x) - 9, 0)


def lateral_ventricle(points: Points, size: float) -> np.ndarray:
    """Frontal horn, body, trigone and occipital horn; ``size`` multiplies the radii."""
    x, y, z = points
    push = 3.0 * (size - 1)
    nodes = (
        (6.5, 48, -4, 2.8),
        (7.0, 41, 2, 5.8),
        (6.8, 29, 8.0, 6.0),
        (8.0, 14, 11.0, 6.0),
        (13.5, 0, 10.5, 6.2),
        (22.0, -11, 4, 7.8),
    )
    body = tube((x - np.float32(push), y, z), [(a, b, c, r * size) for a, b, c, r in nodes], (0.92, 1, 1.1))
    horn = ((22.5, -11, 5, 6.5), (23.5, -25, 0, 4.4 * size**0.5), (22, -26 - 14 * size**0.6, -3, 1.2))
    both = smooth_min(body, tube(points, [(a, b, c, r * size) for a, b, c, r in horn]), 2.0)
    return smooth_max(both, np.float32(0.9) - x, 2.0)  # the septum pellucidum keeps the sides apart


def temporal_horn(points: Points, size: float) -> np.ndarray:
    """The inferior horn, lateral to the hippocampus."""
    nodes = ((25, -10, 0, 4.4), (31, -6, -9, 3.2), (34, 4, -18, 2.1), (33.5, 13, -23, 1.9), (31, 19, -24, 2.0))
    return tube(points, [(a, b, c, r * size) for a, b, c, r in nodes], (1, 1, 1.1))


def choroid_plexus(points: Points, size: float) -> np.ndarray:
    """The plexus on the floor of the body and in the trigone."""
    nodes = ((8.0, 18, 7.0, 1.5), (13, 4, 8, 2.2), (20, -9, 2, 4.6), (24, -12, -2, 4.0), (29, -6, -9, 1.9))
    return tube(points, [(a, b, c, r * size**0.5) for a, b, c, r in nodes])


def caudate(points: Points, size: float) -> np.ndarray:
    """Head and body along the lateral wall of the ventricle, tail around the trigone."""
    push = 4.0 * (size - 1)
    nodes = (
        (12, 43, -2, 4.6),
        (14.5, 36, 2.5, 5.8),
        (15.5, 28, 8, 5.0),
        (18, 17, 13.5, 3.9),
        (21, 5, 15, 3.2),
        (27, -7, 12, 2.3),
        (31, -13, 4, 1.7),
    )
    return tube(points, [(a + push, b, c, r) for a, b, c, r in nodes], (0.92, 1, 1.12))


def putamen(points: Points) -> np.ndarray:
    """A lens, convex outwards."""
    x, y, z = points
    bend = np.float32(0.012) * (y - 22) ** 2 + np.float32(0.010) * (z + 3) ** 2
    return ellipsoid((x + bend, y, z), (27.6, 22.5, -3), (6.1, 18.0, 12.0), yaw=-12)


def pallidum(points: Points) -> np.ndarray:
    """The wedge medial to the putamen."""
    x, y, z = points
    return ellipsoid((x + np.float32(0.012) * (y - 19) ** 2, y, z), (20.4, 19.5, -5), (4.4, 10.3, 7.9), yaw=-22)


def thalamus(points: Points) -> np.ndarray:
    """An egg beside the third ventricle, its back turned outwards."""
    egg = ellipsoid(points, (12.4, 5.5, -0.8), (9.8, 17.0, 11.8), yaw=-24)
    return smooth_max(egg, np.float32(2.4) - points[0], 2.0)


def accumbens(points: Points) -> np.ndarray:
    """Below the head of the caudate."""
    return ellipsoid(points, (9.8, 34.5, -7.0), (4.3, 5.6, 5.1))


def hippocampus(points: Points) -> np.ndarray:
    """Head, body and tail curving up behind the thalamus."""
    nodes = (
        (22, 20, -22, 5.4),
        (25.5, 14, -22.5, 5.9),
        (27, 5, -20.5, 5.0),
        (27, -4, -15.5, 4.4),
        (23.5, -11, -9, 3.8),
        (18, -14, -3, 2.2),
    )
    return tube(points, nodes, (1.12, 1, 0.92))


def amygdala(points: Points) -> np.ndarray:
    """In front of and above the head of the hippocampus."""
    return ellipsoid(points, (23.5, 24.5, -18.8), (7.2, 6.6, 7.2))


def ventral_diencephalon(points: Points) -> np.ndarray:
    """Hypothalamus, subthalamus and the cerebral peduncle."""
    x = points[0]
    near = tube(points, ((5.5, 21, -13, 6.3), (9.5, 11, -14.5, 8.2), (15, 6, -15, 6.6), (20, 1, -14, 3.6)))
    return smooth_max(near, np.float32(2.0) - x, 1.5)


_Entry = tuple[int, int, Triple, Triple, Callable[[Points], np.ndarray], float]


def _nuclei(size: float) -> tuple[_Entry, ...]:
    """left id, right id, box, shape, relative size in the person (mm of growth are drawn around 0)."""
    return (
        (28, 60, (1, -8, -26), (28, 30, -4), ventral_diencephalon, 0.22),
        (17, 53, (10, -22, -32), (38, 30, 4), hippocampus, 0.20),
        (18, 54, (12, 14, -30), (34, 34, -8), amygdala, 0.25),
        (12, 51, (14, 0, -18), (38, 44, 13), putamen, 0.20),
        (13, 52, (12, 6, -16), (30, 33, 6), pallidum, 0.16),
        (26, 58, (3, 26, -15), (18, 43, 1), accumbens, 0.14),
        (11, 50, (3, -20, -10), (42, 52, 26), lambda p: caudate(p, size), 0.14),
        (10, 49, (1, -18, -18), (30, 28, 15), thalamus, 0.25),
    )


def paint_deep(canvas: Canvas, person: Person) -> None:
    """Paint corpus callosum, ventricles, plexus, deep grey matter and the cisterns beside them."""
    size = person.traits.ventricles
    box = ((-22.0, -18.0, -16.0), (22.0, 58.0, 30.0))
    for label, side in ((2, -1), (41, 1)):
        canvas.paint(label, *box, lambda p, s=side: (callosum(p, size) < 0) & (s * p[0] >= 0), over=CEREBRAL)  # type: ignore[misc]
    rng = person.streams("head/ventricles")
    sizes = size * np.exp(rng.normal(0, 0.035, 2))
    for (ventricle, inferior, plexus), side, width in (((4, 5, 31), -1, sizes[0]), ((43, 44, 63), 1, sizes[1])):
        low, high = side_box((0.5, -46, -14), (45, 56, 28), side)
        canvas.paint(ventricle, low, high, lambda p, s=side, w=width: lateral_ventricle(mirrored(p, s), w), over=CEREBRAL)  # type: ignore[misc]
        low, high = side_box((18, -18, -32), (44, 26, 2), side)
        canvas.paint(inferior, low, high, lambda p, s=side, w=width: temporal_horn(mirrored(p, s), w), over=CEREBRAL)  # type: ignore[misc]
        low, high = side_box((4, -20, -16), (36, 26, 14), side)
        canvas.paint(
            plexus,
            low,
            high,
            lambda p, s=side, w=width: choroid_plexus(mirrored(p, s), w),  # type: ignore[misc]
            over=(ventricle, inferior),
        )
    rng = person.streams("head/nuclei")
    for left, right, low, high, shape, spread in _nuclei(size):
        common = rng.normal(0, spread)
        for label, side in ((left, -1), (right, 1)):
            grow = np.float32(common + rng.normal(0, 0.22 * spread))
            dx, dy, dz = (np.float32(v) for v in rng.normal(0, 0.22, 3))

            def moved(p: Points, s: int = side, g: np.float32 = grow, d: tuple = (dx, dy, dz), f: Callable = shape) -> np.ndarray:  # type: ignore[type-arg]
                x, y, z = mirrored(p, s)
                return f((x - d[0], y - d[1], z - d[2])) - g

            canvas.paint(label, *side_box(low, high, side), moved)
    third = 1.5 + 1.9 * (size - 0.5)
    canvas.paint(
        14,
        (-7, -3, -20),
        (7, 32, 6),
        lambda p: np.maximum(ellipsoid(p, (0, 14, -7), (30, 13.5, 9.5), pitch=-10), np.abs(p[0]) - np.float32(1.0 * third)),
        over=(2, 41, 10, 49, 28, 60, 24, 3, 42),
    )
