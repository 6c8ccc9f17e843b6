"""Canonical centres (mm) of the labels of the parametric head, right side +x."""

from __future__ import annotations

from ctmr_core.anatomy.grid import Triple

_PAIRED: dict[tuple[int, int], Triple] = {
    (2, 41): (27, 2, 9),
    (3, 42): (31, 3, 7),
    (4, 43): (14, 9, 8),
    (5, 44): (32, 4, -18),
    (7, 46): (17, -20, -42),
    (8, 47): (23, -28, -46),
    (10, 49): (12.2, 5.5, -0.8),
    (11, 50): (15.5, 29, 7),
    (12, 51): (26, 22.5, -3),
    (13, 52): (20.6, 19.5, -5),
    (17, 53): (25, 6, -20),
    (18, 54): (23.5, 24.5, -19),
    (26, 58): (9.8, 34.5, -7),
    (28, 60): (11, 10, -13.5),
    (31, 63): (20, -9, 3),
}
_MIDLINE: dict[int, Triple] = {
    14: (0, 14, -7),
    15: (0, -11, -39),
    16: (0, 1, -35),
    24: (0, 8, 1),
    85: (0, 27, -17.5),
    501: (0, 50, -52),
    502: (0, 18, -35),
    506: (0, 81.5, -26),
    507: (0, 40, -70),
    508: (0, 66, -26),
    509: (0, 75, -52),
    511: (0, 13, -25),
    512: (0, -10, -92),
    514: (0, -30, 30),
    515: (0, 11, -13),
    516: (0, 11, -10),
    530: (0, 52, -24),
    540: (0, 13, -25),
    541: (0, 0, -90),
    542: (0, 89, -26),
    543: (0, 10, 30),
    544: (0, 85, -87),
    545: (0, 20, -85),
}

#: label id -> canonical centre in mm; centres of labels on both sides lie on the midline.
LANDMARKS: dict[int, Triple] = dict(_MIDLINE)
for (_left, _right), (_x, _y, _z) in _PAIRED.items():
    LANDMARKS[_left] = (-_x, _y, _z)
    LANDMARKS[_right] = (_x, _y, _z)
