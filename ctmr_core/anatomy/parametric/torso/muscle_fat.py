"""Fat inside the muscles of hip and back: streaks that widen with age and weight.

CT attenuation of muscle at L3 falls from 43 HU below 45 years to 25 HU above 75 in women, with a standard deviation of 6-7 HU
at any age (Framingham Heart Study, Investigative Radiology 2024, PMC10920396); the gluteal and paraspinal muscles hold more
fat than the psoas.
"""

from __future__ import annotations

import numpy as np

from ctmr_core.anatomy.parametric.shapes import SplineNoise
from ctmr_core.anatomy.parametric.torso.canvas import COARSE, Canvas, Patch
from ctmr_core.anatomy.parametric.torso.person import Person

#: grain of the streaks, mm: bundles of fascicles.
GRAIN_MM = 11.0
#: labels, and how much fat they hold relative to the person's ``muscle_fat``.
_MUSCLES = (
    ((98, 99), 1.2),  # gluteus maximus
    ((100, 101, 102, 103, 104, 105), 1.0),  # gluteus medius and minimus, autochthonous back muscles
    ((106, 107), 0.55),  # iliopsoas
)
#: half widths of the streaks at ``muscle_fat`` 1, in standard deviations of the noise: fat, and fibres mixed with fat around it.
_FAT, _MIXED = 0.25, 1.5


def infiltrate(canvas: Canvas, person: Person, noise: SplineNoise) -> None:
    """Paint streaks of fat, and of fibres mixed with fat around them, into muscles; labels stay as they are."""
    present = np.bincount(canvas.labels.ravel(), minlength=256)
    if person.muscle_fat <= 0 or not any(present[list(labels)].any() for labels, _ in _MUSCLES):
        return
    streaks = canvas.field((-190, -170, -320), (190, 90, 440), lambda p: noise.on_lattice(p.axes), COARSE)
    if streaks is None:
        return
    streaks = Patch(streaks.box, np.abs(streaks.values))  # after interpolation, which would blunt the zero
    for labels, share in _MUSCLES:
        amount = min(1.0, share * person.muscle_fat)
        canvas.paint(streaks, None, "connective_tissue", below=_MIXED * amount, only=["muscle"], only_labels=labels)
        canvas.paint(streaks, None, "subcutaneous_fat", below=_FAT * amount, only=["connective_tissue"], only_labels=labels)
