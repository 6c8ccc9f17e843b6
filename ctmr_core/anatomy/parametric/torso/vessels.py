"""Great vessels: arteries, systemic veins, portal system and the pulmonary vessels outside the lungs."""

from __future__ import annotations

import numpy as np

from ctmr_core.anatomy.parametric.torso.canvas import BODY, Canvas, Line
from ctmr_core.anatomy.parametric.torso.spine import spine_y

_LUNGS = [28, 29, 30, 31, 32]


def _aorta() -> list[tuple[float, float, float, float]]:
    up: list[tuple[float, float, float, float]] = [
        (-6, 24, 232, 13),
        (8, 30, 258, 14),
        (10, 26, 284, 13.5),
        (0, 8, 303, 12.8),
        (-14, -16, 306, 12.2),
        (-24, -38, 294, 12),
    ]
    down: list[tuple[float, float, float, float]] = [(-26, spine_y(z) + 20, z, 12.0) for z in (262, 230)]
    down += [(-21, spine_y(190) + 24, 190, 11.5), (-13, spine_y(150) + 25, 150, 11), (-9, spine_y(110) + 26, 110, 10.5)]
    down += [(-9, spine_y(z) + 27.5, z, r) for z, r in ((70, 10.0), (30, 9.5), (-5, 9.0), (-34, 8.8))]
    return up + down


#: label, tissue, centre line (x, y, z, radius).
_TUBES: tuple[tuple[int, str, list[tuple[float, float, float, float]]], ...] = (
    (7, "venous_blood", [(22, 6, 196, 12), (22, -2, 172, 12), (20, -8, 140, 12.5), (18, -6, 100, 12), (17, -2, 60, 11.5),
        (17, 3, 20, 11.5), (15, 4, -20, 11), (9, 1, -46, 10.5)]),
    (61, "venous_blood", [(9, 1, -46, 8.5), (26, -18, -80, 7), (44, -22, -112, 7), (62, 10, -155, 6.5),
        (72, 42, -196, 6.5), (76, 52, -230, 6)]),
    (60, "venous_blood", [(9, 1, -46, 8.5), (-16, -12, -74, 7), (-38, -22, -108, 7), (-60, 8, -155, 6.5),
        (-71, 42, -196, 6.5), (-75, 52, -230, 6)]),
    (59, "arterial_blood", [(-9, 3, -34, 7), (10, 4, -60, 6), (32, -6, -90, 5.6), (50, 0, -120, 5.4), (68, 30, -165, 5.2),
        (80, 54, -205, 5), (84, 58, -230, 4.8)]),
    (58, "arterial_blood", [(-9, 3, -34, 7), (-18, 2, -58, 6), (-34, -6, -90, 5.6), (-52, 0, -120, 5.4),
        (-68, 30, -165, 5.2), (-80, 54, -205, 5), (-84, 58, -230, 4.8)]),
    (125, "venous_blood", [(30, 6, 236, 10.5), (30, 8, 262, 10.5), (27, 10, 292, 10)]),
    (111, "venous_blood", [(27, 10, 292, 8.5), (31, 12, 312, 8), (38, 12, 330, 7.5)]),
    (110, "venous_blood", [(27, 12, 294, 8), (6, 26, 308, 8), (-18, 24, 320, 7.5), (-38, 14, 332, 7.5)]),
    (109, "arterial_blood", [(2, 12, 302, 7.5), (8, 10, 318, 6.8), (17, 0, 336, 6.4)]),
    (113, "arterial_blood", [(17, 0, 336, 4.2), (22, -8, 360, 4.0), (25, -14, 390, 4.0), (27, -14, 432, 4.0)]),
    (112, "arterial_blood", [(-9, 0, 306, 4.8), (-15, -4, 330, 4.2), (-22, -10, 360, 4.0), (-25, -14, 390, 4.0),
        (-27, -14, 432, 4.0)]),
    (124, "arterial_blood", [(17, 0, 336, 5.2), (36, -16, 352, 4.8), (66, -18, 354, 4.4), (98, -14, 342, 4.0),
        (124, -12, 322, 3.8)]),
    (123, "arterial_blood", [(-18, -18, 308, 5.4), (-22, -24, 332, 5.2), (-38, -22, 352, 4.8), (-66, -18, 354, 4.4),
        (-98, -14, 342, 4.0), (-124, -12, 322, 3.8)]),
    (17, "portal_blood", [(-78, -24, 118, 4.6), (-48, -6, 104, 5.0), (-12, 17, 92, 5.4), (14, 16, 86, 6.4),
        (26, 8, 104, 7.0), (36, 4, 124, 6.8)]),
    (17, "portal_blood", [(14, 18, 86, 6.0), (10, 26, 50, 5.6), (4, 34, 10, 4.6)]),
)  # fmt: skip

#: unlabelled branches: tissue, centre line.
_BRANCHES: tuple[tuple[str, list[tuple[float, float, float, float]]], ...] = (
    ("arterial_blood", [(-9, 4, 112, 4), (-6, 16, 116, 3.6), (10, 16, 114, 3.0), (26, 12, 112, 2.6)]),
    ("arterial_blood", [(-9, 4, 100, 4.2), (-6, 18, 84, 4), (0, 30, 50, 3.6), (4, 34, 5, 3.0)]),
    ("arterial_blood", [(-9, 2, 56, 3), (14, -14, 51, 2.8), (44, -30, 48, 2.6)]),
    ("arterial_blood", [(-9, 2, 58, 3), (-26, -16, 57, 2.8), (-46, -30, 56, 2.6)]),
    ("venous_blood", [(16, 0, 50, 5), (30, -12, 47, 4.5), (48, -28, 46, 4)]),
    ("venous_blood", [(14, 2, 62, 5), (-10, 17, 61, 4.5), (-28, -8, 57, 4.5), (-46, -28, 56, 4)]),
    ("venous_blood", [(38, 12, 330, 6), (40, 0, 360, 6), (40, -4, 400, 6), (38, -6, 432, 6)]),
    ("venous_blood", [(-38, 14, 332, 6), (-40, 0, 360, 6), (-40, -4, 400, 6), (-38, -6, 432, 6)]),
    ("venous_blood", [(38, 12, 330, 6), (70, 0, 344, 5.5), (104, -6, 334, 5)]),
    ("venous_blood", [(-38, 14, 332, 6), (-70, 0, 344, 5.5), (-104, -6, 334, 5)]),
    ("venous_blood", [(12, -46, 150, 3), (12, -40, 240, 3.4), (18, -28, 272, 3.6), (28, 2, 276, 3.6)]),
    ("arterial_blood", [(84, 58, -230, 4.6), (82, 50, -290, 4.2), (80, 40, -400, 3.8)]),
    ("arterial_blood", [(-84, 58, -230, 4.6), (-82, 50, -290, 4.2), (-80, 40, -400, 3.8)]),
    ("venous_blood", [(76, 52, -230, 6), (74, 40, -290, 5.4), (72, 28, -400, 5)]),
    ("venous_blood", [(-76, 52, -230, 6), (-74, 40, -290, 5.4), (-72, 28, -400, 5)]),
)

#: pulmonary trunk and arteries; no label of their own in the vocabulary.
_PULMONARY_ARTERIES = (
    [(-22, 40, 232, 14), (-24, 30, 256, 13.5), (-22, 6, 268, 12.5), (-34, -16, 262, 10), (-52, -28, 250, 7.5)],
    [(-22, 6, 268, 12), (0, -6, 266, 10.5), (24, -10, 260, 10), (46, -16, 250, 7.5)],
)
_PULMONARY_VEINS = (
    [(22, -16, 236, 7), (40, -18, 230, 6), (58, -22, 220, 4.5)],
    [(20, -8, 246, 6.5), (38, -4, 250, 5.5), (54, 6, 254, 4)],
    [(-34, -20, 236, 7), (-48, -26, 228, 6), (-62, -36, 216, 4.5)],
    [(-34, -12, 246, 6.5), (-48, -6, 252, 5.5), (-62, 6, 258, 4)],
)
_APPENDAGE = [(-34, -4, 246, 9), (-48, 6, 248, 9), (-55, 20, 244, 7)]


class Vessels:
    """Paints the great vessels; calcified plaques in the aorta come with age."""

    def __init__(self, canvas: Canvas, rng: np.random.Generator) -> None:
        self.canvas = canvas
        self._plaques = max(0.0, (canvas.frame.person.age_years - 50) / 35)
        self._seeds = rng.random((24, 3))
        self._bore = float(np.clip(1 + 0.08 * rng.standard_normal() + 0.003 * (canvas.frame.person.age_years - 50), 0.85, 1.25))

    def paint_branches(self) -> None:
        """Vessels without a label of their own, under everything that has one."""
        for tissue, line in _BRANCHES:
            self.canvas.paint(self.canvas.tube(line), None, tissue, only=["visceral_fat", "muscle", "subcutaneous_fat"])

    def paint(self) -> None:
        for line in _PULMONARY_ARTERIES:
            self._vessel(line, BODY, "heart_blood", [BODY, *_LUNGS])
        for line in _PULMONARY_VEINS:
            self._vessel(line, 119, "heart_blood", [BODY, *_LUNGS])
        self._vessel(_APPENDAGE, 108, "heart_blood", [BODY, 115, *_LUNGS])
        for label, tissue, course in _TUBES:
            self._vessel(course, label, tissue, None)
        aorta = [(float(x), float(y), float(z), r * self._bore) for x, y, z, r in _aorta()]
        self._vessel(aorta, 6, "arterial_blood", None)
        self._calcify(aorta)

    def _vessel(self, line: Line, label: int, tissue: str, only: list[int] | None) -> None:
        tube = self.canvas.tube(line)
        self.canvas.paint(tube, BODY, "visceral_fat", below=1.6, only=["lung_parenchyma", "lung_vessel"])
        self.canvas.paint(tube, label, tissue, only_labels=only)

    def _calcify(self, aorta: list[tuple[float, float, float, float]]) -> None:
        for place, angle, keep in self._seeds:
            if keep > self._plaques:
                continue
            i = 8 + int(place * (len(aorta) - 9))
            x, y, z, r = aorta[i]
            turn = 2 * np.pi * angle
            spot = [
                (x + (r - 1) * np.cos(turn + d), y + (r - 1) * np.sin(turn + d), z + 14 * (place * 7 % 1) + 3 * d, 1.4)
                for d in (0.0, 0.4, 0.8)
            ]
            self.canvas.paint(self.canvas.tube(spot), None, "calcification", only=["arterial_blood"])
