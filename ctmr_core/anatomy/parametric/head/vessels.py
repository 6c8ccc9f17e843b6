"""Venous sinuses, arteries of the base, falx and tentorium: what lies in the fluid around the brain and in the neck."""

from __future__ import annotations

import numpy as np

from ctmr_core.anatomy.parametric.head.canvas import Canvas, mirrored, side_box
from ctmr_core.anatomy.parametric.head.cerebrum import core, tentorium
from ctmr_core.anatomy.parametric.head.cranium import Layers
from ctmr_core.anatomy.parametric.head.face import HARD
from ctmr_core.anatomy.parametric.head.person import Person
from ctmr_core.anatomy.parametric.head.primitives import smooth_min, tube

_FLUID = (24, 543)

_ARTERIES = (
    ((27, 25, -150, 3.0), (26, 18, -100, 2.8), (27, 14, -70, 2.6), (24, 13, -48, 2.5), (12, 20, -42, 2.4)),
    ((12, 20, -42, 2.3), (10, 27, -30, 2.2), (9, 30, -22, 2.1), (8, 27, -17, 2.0)),
    ((8, 27, -17, 1.7), (18, 28, -19, 1.6), (30, 29, -19, 1.5), (37, 26, -14, 1.3), (40, 14, -5, 1.1), (42, 0, 2, 1.0)),
    ((8, 27, -17, 1.4), (2.5, 35, -15, 1.3), (1.8, 45, -16, 1.2), (1.6, 58, -6, 1.1), (1.6, 56, 8, 1.0), (1.6, 40, 20, 0.9)),
    ((1.0, 18, -24, 1.6), (8, 17, -22, 1.4), (17, 8, -18, 1.3), (17, -6, -14, 1.1), (10, -20, -8, 1.0)),
)
_JUGULAR = ((30, -2, -52, 4.5), (33, 10, -75, 4.2), (35, 16, -105, 4.5), (36, 16, -240, 5.5))
_VERTEBRAL = ((18, 4, -240, 1.8), (18, 4, -92, 1.8), (24, -4, -80, 1.8), (13, -8, -73, 1.7), (2, 6, -58, 1.6))


def paint_partitions(canvas: Canvas, layers: Layers) -> None:
    """Paint falx, tentorium and the venous sinuses into the fluid."""
    found = canvas.points((-75.0, -84.0, -50.0), (75.0, 100.0, 74.0))
    if found is not None:
        window, points = found
        x, y, z = points
        ax = np.abs(x)
        deep = -window.sample(layers.lattice, layers.cavity)
        fluid = canvas.covers(window, _FLUID)
        tent = tentorium(x, y)
        level = np.abs(z - tent)
        free = core(points) > 6
        falx = (ax < 0.55) & free & (z > np.where(y > 40, -16.0, tent)) & (deep > 0)
        canvas.fill(window, falx & fluid, 543)
        edge = (y < 2) & (ax * 1.0 + (y + 12) * 0.5 > 14) | (y < -16)
        canvas.fill(window, (level < 0.6) & edge & fluid & (deep > 0) & (y < 2), 543)
        above = (z > np.where(y > 0, 8.0, -26.0)) & ((y < 40) | (z > 8))
        width = 1.6 + 2.4 * np.clip((70 - y) / 130, 0, 1)
        sagittal = above & (deep > 0.4) & (deep + 1.5 * ax < 1.6 + 1.7 * width) & free
        transverse = (y < -6) & (deep > 0.3) & (deep + 1.1 * level < 5.2) & (z < 0)
        canvas.fill(window, (sagittal | transverse) & canvas.covers(window, (*_FLUID, 3, 42)), 514)
        straight = tube(points, ((0, -15, 0, 1.8), (0, -40, -12, 2.0), (0, -68, -24, 2.4))) < 0
        canvas.fill(window, straight & fluid, 514)


def paint_vessels(canvas: Canvas, person: Person) -> None:
    """Paint the arteries of the base of the brain, and carotid, vertebral and jugular vessels of the neck."""
    rng = person.streams("head/vessels")
    open_to = (*_FLUID, *HARD)
    for side in (-1, 1):
        bend = rng.normal(0, 0.8, 3).astype(np.float32)
        for nodes in _ARTERIES:
            low, high = side_box(
                (min(n[0] for n in nodes) - 5, min(n[1] for n in nodes) - 5, min(n[2] for n in nodes) - 5),
                (max(n[0] for n in nodes) + 5, max(n[1] for n in nodes) + 5, max(n[2] for n in nodes) + 5),
                side,
            )

            def artery(p: tuple, n: tuple = nodes, s: int = side, b: np.ndarray = bend) -> np.ndarray:  # type: ignore[type-arg]
                x, y, z = mirrored(p, s)
                return tube((x - b[0] * np.sin(z / 7), y - b[1] * np.sin(x / 6), z - b[2] * np.sin(y / 7)), n)

            canvas.paint(502, low, high, artery, over=open_to)
        jugular = side_box((14, -16, -240), (52, 40, -44), side)
        canvas.paint(514, *jugular, lambda p, s=side: tube(mirrored(p, s), _JUGULAR), over=HARD)  # type: ignore[misc]
        vertebral = side_box((0, -16, -240), (32, 24, -52), side)
        canvas.paint(502, *vertebral, lambda p, s=side: tube(mirrored(p, s), _VERTEBRAL), over=open_to)  # type: ignore[misc]
    canvas.paint(
        502,
        (-6, 4, -64),
        (6, 26, -18),
        lambda p: tube(p, ((0, 6, -58, 1.7), (0, 17.8, -44, 1.8), (0, 18.4, -25, 1.7))),
        over=_FLUID,
    )
    canvas.paint(
        85,
        (-14, 16, -26),
        (14, 36, -10),
        lambda p: smooth_min(
            tube(p, ((-6, 29, -18.5, 1.6), (0, 26.5, -17.5, 1.9), (6, 29, -18.5, 1.6))),
            tube((np.abs(p[0]), p[1], p[2]), ((0, 26.5, -17.5, 1.8), (7, 19, -15, 1.4))),
            1.0,
        ),
        over=(24, 2, 41, 3, 42, 530),
    )
