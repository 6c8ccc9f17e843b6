"""Face, skull base, sinuses, orbits, jaws and neck, in canonical mm; every shape is painted on both sides."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ctmr_core.anatomy.grid import Triple
from ctmr_core.anatomy.parametric.head.canvas import Canvas, Shape
from ctmr_core.anatomy.parametric.head.lattice import Lattice
from ctmr_core.anatomy.parametric.head.person import Person
from ctmr_core.anatomy.parametric.head.primitives import Points, ellipsoid, smooth_max, smooth_min, tube

SOFT = (507, 540, 541, 545, 509)
HARD = (*SOFT, 515, 516)
_FAT = 2
_EYE = (32.0, 81.5, -26.0)


def _both(shape: Shape) -> Shape:
    return lambda p: shape((np.abs(p[0]), p[1], p[2]))


def _wide(low: Triple, high: Triple) -> tuple[Triple, Triple]:
    return (-high[0], low[1], low[2]), high


def orbit(p: Points) -> np.ndarray:
    """The cone of the orbit, from the optic canal to the rim."""
    return tube(p, ((13, 38, -24, 3), (23, 60, -25.5, 13), (32, 80, -26, 17), (33.5, 92, -26.5, 18)))


def maxillary(p: Points) -> np.ndarray:
    """Maxillary sinus."""
    return smooth_min(ellipsoid(p, (29, 65, -57), (11.5, 15, 14)), ellipsoid(p, (35, 66, -50), (8, 11, 7)), 6)


def _ethmoid(p: Points) -> np.ndarray:
    return np.maximum(ellipsoid(p, (0, 64, -30), (12.5, 24, 13)), np.float32(2.0) - p[0])


def _nasal(p: Points) -> np.ndarray:
    return smooth_min(ellipsoid(p, (0, 70, -52), (15, 33, 19)), tube(p, ((6, 98, -52, 5), (7, 108, -63, 4.5))), 4)


def _ramus(p: Points) -> np.ndarray:
    flat = tube((p[0], p[1], p[2]), ((49, 24, -50, 5), (47, 32, -82, 8), (46, 38, -98, 7)), (0.55, 1.5, 1))
    return np.minimum(
        flat, tube(p, ((46, 38, -100, 6.5), (34, 64, -109, 6.5), (14, 86, -113, 7), (0, 89, -113, 7)), (0.8, 0.8, 1.5))
    )


def _vertebrae(p: Points) -> np.ndarray:
    """Dens, bodies, arches and discs of the upper cervical spine around the canal."""
    x, y, z = p
    drift = np.float32(0.06) * (z + 90)
    axis = np.float32(-10) + drift
    dens = ellipsoid(p, (0, 7, -80), (5.5, 6, 13))
    body = np.sqrt((x / 11) ** 2 + ((y - axis - 18.5) / 8.5) ** 2) - 1
    body = np.maximum(body * 8.5, z + 86)
    level = np.mod(z + 92, np.float32(17.5))
    body = np.maximum(body, np.abs(level - 8.7) - 6.4)  # discs between the bodies
    ring = np.abs(np.sqrt((x / 1.35) ** 2 + (y - axis) ** 2) - np.float32(13.2)) - np.float32(2.6)
    ring = np.maximum(np.maximum(ring, z + 72), np.abs(level - 8.7) - np.where(y < axis, 4.0, 6.0))
    masses = ellipsoid((np.abs(x), y, z), (22, 3, -80), (10, 8, 8.5))
    spine = ellipsoid((x, y, level - 7), (0, -33, 0), (3.5, 12, 3.5))
    spine = np.maximum(spine, z + 88)
    return np.minimum(np.minimum(np.minimum(dens, body), np.minimum(ring, masses)), spine)


def _orbital_wall(p: Points) -> np.ndarray:
    """The thin bone around the orbit."""
    return np.maximum(np.abs(orbit(p) - np.float32(1.2)) - np.float32(1.2), p[1] - 88)


def _skull_base(p: Points) -> np.ndarray:
    """Sphenoid body, clivus, petrous and mastoid parts of the temporal bone."""
    return smooth_min(
        smooth_min(ellipsoid(p, (0, 33, -37), (18, 20, 12)), tube(p, ((0, 27, -36, 7), (0, 14, -52, 6.5), (0, 6, -68, 4.5))), 4),
        tube(p, ((13, 20, -42, 5), (36, 4, -42, 9.0), (58, -10, -44, 9), (59, -18, -56, 9), (57, -10, -68, 7))),
        4,
    )


def _pharynx(p: Points) -> np.ndarray:
    """From the back of the nose down to the trachea."""
    return tube(
        p,
        ((0, 42, -55, 6.5), (0, 34, -68, 7.5), (0, 28, -84, 6), (0, 27, -105, 6.5), (0, 24, -130, 7), (0, 18, -240, 8)),
        (1.45, 0.9, 1),
    )


def _globe(p: Points) -> np.ndarray:
    """The eyeball."""
    return ellipsoid(p, _EYE, (11.6, 11.4, 11.4))


def _optic_nerve(p: Points) -> np.ndarray:
    """From the eyeball through the optic canal to the chiasm."""
    return tube(p, ((30, 71, -26, 2.0), (22, 56, -25, 1.9), (13, 39, -23, 1.9), (4, 29, -18, 2.0)))


def paint_face(canvas: Canvas, person: Person) -> None:
    """Paint everything of the head that is neither brain nor vault."""
    _paint_muscles(canvas)
    _paint_bones(canvas, person)
    _paint_airways(canvas, person)
    _paint_orbits(canvas)


def _paint_muscles(canvas: Canvas) -> None:
    rows: Sequence[tuple[int, Triple, Triple, Shape, int | None]] = (
        (507, (28, 44, -100), (58, 92, -48), lambda p: ellipsoid(p, (43, 70, -72), (11, 20, 20)), _FAT),  # buccal fat
        (541, (38, 12, -112), (66, 66, -44), lambda p: ellipsoid(p, (55, 40, -79), (7, 17, 29), pitch=-12), None),  # masseter
        (541, (22, 16, -104), (48, 60, -48), lambda p: ellipsoid(p, (35.5, 39, -74), (8, 14, 25)), None),  # pterygoids
        (545, (38, -6, -104), (72, 42, -46), lambda p: ellipsoid(p, (57, 13, -74), (9, 13, 23)), None),  # parotid
        (545, (14, 28, -126), (44, 66, -98), lambda p: ellipsoid(p, (29, 47, -111), (8, 13, 9)), None),  # submandibular
        (541, (0, 24, -122), (30, 100, -66), tongue, None),
        (541, (0, 84, -102), (30, 110, -72), lambda p: ellipsoid(p, (0, 96, -87), (24, 4, 12)), None),  # lips
        (541, (2, -62, -110), (44, -8, -58), lambda p: ellipsoid(p, (20, -38, -84), (14, 12, 30)), None),
    )
    for label, low, high, shape, tissue in rows:
        canvas.paint(label, *_wide(low, high), _both(shape), over=SOFT, tissue=tissue)


def tongue(p: Points) -> np.ndarray:
    """The tongue and the floor of the mouth."""
    return smooth_min(ellipsoid(p, (0, 60, -92), (22, 29, 16)), ellipsoid(p, (0, 58, -108), (16, 22, 12)), 8)


def _paint_bones(canvas: Canvas, person: Person) -> None:
    lattice = person.lattice((-60, -40, -130), (60, 100, 0), 3.0)
    grain = lattice.noise(person.streams("head/bone"), 9.0)

    def cored(low: Triple, high: Triple, shape: Shape, table: float, over: Sequence[int]) -> None:
        """Paint bone with a cortical shell of ``table`` mm around marrow."""
        canvas.paint(515, *_wide(low, high), _both(shape), over=over)
        canvas.paint(516, *_wide(low, high), _both(lambda p: shape(p) + np.float32(table)), over=(515,))

    cored((0, -50, -230), (36, 32, -60), _vertebrae, 1.3, SOFT)
    cored((0, 14, -126), (60, 102, -44), _ramus, 1.9, SOFT)
    cored(
        (40, 10, -56),
        (74, 82, -32),
        lambda p: tube(p, ((66, 14, -44, 3.0), (65, 38, -46, 3.0), (52, 68, -45, 6.0)), (0.8, 1, 1.2)),
        1.6,
        SOFT,
    )
    # zygoma, frontal process and the body of the maxilla around sinus and orbit
    cored((0, 46, -90), (56, 104, -36), lambda p: smooth_max(maxillary(p) - 2.4, p[1] - 92, 2), 1.5, SOFT)
    cored(
        (0, 52, -92),
        (40, 104, -62),
        lambda p: smooth_max(ellipsoid(p, (0, 66, -80), (29, 30, 9)), -ellipsoid(p, (0, 62, -88), (22, 30, 12)), 2),
        1.2,
        SOFT,
    )
    canvas.paint(515, *_wide((4, 34, -50), (58, 92, 0)), _both(_orbital_wall), over=SOFT)
    cored((0, 62, -18), (50, 104, 10), lambda p: tube(p, ((4, 90, -9, 5.5), (26, 88, -8, 5.5), (45, 75, -11, 4.5))), 1.6, SOFT)
    # skull base: sphenoid body, clivus, petrous and mastoid parts of the temporal bone
    cored((0, -34, -80), (74, 56, -22), _skull_base, 4.5, SOFT)
    canvas.paint(
        515, *_wide((6, -34, -80), (74, 32, -22)), _both(lambda p: ellipsoid(p, (34, 3, -42), (14, 9, 7), yaw=-35)), over=(516,)
    )
    canvas.paint(541, *_wide((18, -18, -80), (50, 24, -56)), _both(lambda p: ellipsoid(p, (34, 4, -70), (12, 14, 9))), over=SOFT)

    # teeth stand on an arch, one every 7 mm
    def teeth(p: Points) -> np.ndarray:
        x, y, z = p
        arch = np.abs(np.sqrt((x / 23) ** 2 + ((y - 50) / 41) ** 2) - 1) * 26 - np.float32(4.0)
        angle = np.arctan2(x, (y - 50) * 0.56)
        gap = np.float32(0.42) - np.abs(np.mod(angle * 4.2, 1.0) - np.float32(0.5))
        return np.maximum(np.maximum(arch, np.abs(z + 87.5) - 10.5), np.maximum(-gap * 9 - 0.3, 52 - y)) + np.where(
            np.abs(z + 87.5) < 0.6, 9, 0
        )

    canvas.paint(544, *_wide((0, 50, -100), (30, 98, -75)), _both(teeth), over=HARD)
    _paint_mastoid(canvas, lattice, grain)


def _paint_mastoid(canvas: Canvas, lattice: Lattice, grain: np.ndarray) -> None:
    low, high = _wide((44, -30, -74), (74, 8, -36))
    found = canvas.points(low, high)
    if found is None:
        return
    window, (x, y, z) = found
    cells = ellipsoid((np.abs(x), y, z), (59, -13, -54), (8, 9, 13)) < 0
    cells &= np.abs(window.sample(lattice, grain)) > 0.35
    canvas.fill(window, cells & canvas.covers(window, (515, 516)), 501)
    ear = tube((np.abs(x), y, z), ((50, 4, -44, 2.4), (73, 3, -42, 3.0))) < 0
    canvas.fill(window, ear & canvas.covers(window, (*HARD, 511)), 501)


def _paint_airways(canvas: Canvas, person: Person) -> None:
    rng = person.streams("head/sinuses")
    frontal, sphenoid = np.exp(rng.normal(0, 0.22)), np.exp(rng.normal(0, 0.15))
    lattice = person.lattice((-30, 20, -90), (30, 125, 10), 2.5)
    cells = lattice.noise(rng, 11.0)
    turn = lattice.noise(rng, 18.0)
    canvas.paint(509, *_wide((0, 36, -76), (20, 114, -30)), _both(_nasal), over=HARD)
    canvas.paint(515, *_wide((0, 36, -48), (20, 92, -14)), _both(_ethmoid), over=SOFT)
    found = canvas.points(*_wide((0, 30, -78), (24, 118, -12)))
    if found is not None:
        window, (x, y, z) = found
        ax = np.abs(x)
        wave = window.sample(lattice, turn)
        # turbinates hang from the side walls; the air runs between them and the septum
        air = (_nasal((ax, y, z)) < -1.2) & (ax > 1.9 + 0.5 * wave)
        shelf = np.abs(np.mod((z + 36 + 0.5 * ax) / 13.0, 1.0) - 0.5) * 13.0
        air &= (shelf > 4.6 - 0.9 * wave) | (ax < 3.6 + 0.5 * wave)
        canvas.fill(window, air & canvas.covers(window, (509,)), 501)
        canvas.fill(window, (ax < 0.7) & (y < 88) & canvas.covers(window, (509,)), 515)
        labyrinth = (_ethmoid((ax, y, z)) < -0.8) & (np.abs(window.sample(lattice, cells)) > 0.28)
        canvas.fill(window, labyrinth & canvas.covers(window, (515, 509)), 501)
    septum = np.float32(rng.normal(0, 1.5))
    rows: Sequence[tuple[Triple, Triple, Shape]] = (
        ((14, 46, -78), (46, 86, -38), maxillary),
        (
            (0, 80, -20),
            (30, 104, 22),
            lambda p: np.maximum(ellipsoid(p, (11, 89.5, 2), (11 * frontal, 4.2, 10 * frontal)), 0.9 - p[0]),
        ),
    )
    for low, high, shape in rows:
        canvas.paint(509, *_wide(low, high), _both(shape), over=HARD)
        canvas.paint(501, *_wide(low, high), _both(lambda p, s=shape: s(p) + np.float32(1.0)), over=(*HARD, 509))  # type: ignore[misc]
    canvas.paint(
        501,
        *_wide((0, 16, -48), (18, 54, -24)),
        lambda p: np.maximum(
            ellipsoid(p, (0, 37, -36), (13 * sphenoid, 12, 9 * sphenoid)), np.float32(0.6) - np.abs(p[0] - septum)
        ),
        over=HARD,
    )
    canvas.paint(509, *_wide((0, -4, -240), (18, 60, -44)), lambda p: _pharynx(p) - np.float32(2.0), over=HARD)
    canvas.paint(501, *_wide((0, -4, -240), (16, 58, -46)), _pharynx)
    canvas.paint(
        501, *_wide((0, 40, -86), (22, 90, -66)), lambda p: np.maximum(np.abs(tongue(p) - 1.6) - 1.0, -76.5 - p[2]), over=SOFT
    )


def _paint_orbits(canvas: Canvas) -> None:
    low, high = _wide((4, 30, -48), (56, 100, -4))
    canvas.paint(507, low, high, _both(lambda p: np.maximum(orbit(p), p[1] - 89)), over=HARD, tissue=_FAT)
    muscles = (
        ((15, 42, -20, 1.6), (29, 64, -14, 2.4), (32, 78, -13.2, 1.4)),
        ((15, 42, -27, 1.6), (29, 64, -37, 2.4), (32, 78, -38.8, 1.4)),
        ((13, 44, -24, 1.6), (18, 66, -26, 2.3), (20, 78, -26, 1.4)),
        ((17, 42, -24, 1.6), (38, 64, -26, 2.3), (44, 78, -26, 1.4)),
    )
    for nodes in muscles:
        canvas.paint(508, low, high, _both(lambda p, n=nodes: tube(p, n)), over=(507,))  # type: ignore[misc]
    canvas.paint(530, low, high, _both(_optic_nerve), over=(507, 515, 516, 508, 24, 543, 501))
    canvas.paint(507, low, high, _both(lambda p: _globe(p) - np.float32(0.9)), over=(507, 508, 540, 541, 511, 530))
    canvas.paint(506, low, high, _both(_globe), over=(507, 508, 540, 541, 511, 530))
    canvas.paint(542, low, high, _both(lambda p: ellipsoid(p, (32, 89.0, -26), (4.6, 2.0, 4.6))), over=(506, 507, 540))
