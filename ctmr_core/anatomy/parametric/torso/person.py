"""Who the person is: sex, stature, weight and organ sizes, drawn once from named streams."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ctmr_core.anatomy.parametric.base import Streams
from ctmr_core.anatomy.parametric.torso.proportions import Proportions, draw_proportions
from ctmr_core.errors import AnatomyError

#: mean volume (mL) of men and women and coefficient of variation. Liver, spleen, kidney, pancreas: CT volumetry of
#: 149 adults (Geraghty et al., Abdominal Imaging 2004); the rest: ICRP 110 adult male and female phantoms. A bladder holds
#: whatever has gathered, from 50 mL to more than half a litre.
ORGAN_ML: dict[str, tuple[float, float, float]] = {
    "liver": (1710.0, 1411.0, 0.16),
    "spleen": (225.0, 175.0, 0.24),
    "kidney": (185.0, 152.0, 0.12),
    "pancreas": (95.0, 75.0, 0.18),
    "gallbladder": (42.0, 36.0, 0.35),
    "bladder": (230.0, 220.0, 0.60),
    "prostate": (24.0, 24.0, 0.25),
    "uterus": (78.0, 78.0, 0.25),
    "heart": (700.0, 560.0, 0.12),
    "thyroid": (19.2, 16.4, 0.20),
}
#: canonical height (mm) at which an organ lies.
_ORGAN_HEIGHT: dict[str, float] = {
    "liver": 105.0,
    "spleen": 132.0,
    "kidney": 48.0,
    "pancreas": 82.0,
    "gallbladder": 65.0,
    "bladder": -180.0,
    "prostate": -226.0,
    "uterus": -160.0,
    "heart": 212.0,
    "thyroid": 372.0,
}
_BLADDER_ML = (50.0, 600.0)


@dataclass(frozen=True)
class Person:
    """Traits of one person.

    stature_m, mass_kg, age_years: as worn. scale: mm per canonical mm along x, y, z; proportions: how much longer or shorter
    than that pelvis, lumbar spine and thorax are. hips: extra relative width of
    the pelvis. subcutaneous_mm: thickness of the fat layer. visceral_mm: how far visceral fat pushes the abdominal
    wall forward. muscle: relative muscle bulk. muscle_fat: 0 .. 1, how much fat runs through it. inflation: 0
    (expiration) .. 1 (deep inspiration). recess_mm: how much deeper than usual the lungs reach behind. gas: 0 .. 1, how
    much of the bowel holds gas. organ_ml: target volumes (mL).
    """

    sex: str
    stature_m: float
    mass_kg: float
    age_years: float
    scale: tuple[float, float, float]
    proportions: Proportions
    hips: float
    subcutaneous_mm: float
    visceral_mm: float
    muscle: float
    muscle_fat: float
    inflation: float
    recess_mm: float
    gas: float
    organ_ml: dict[str, float]

    @property
    def female(self) -> bool:
        return self.sex == "female"

    def organ_scale(self, organ: str, canonical_ml: float) -> float:
        """Linear factor that brings an organ of ``canonical_ml`` in canonical space to this person's volume."""
        return float(np.cbrt(self.organ_ml[organ] / (canonical_ml * self.organ_growth(organ))))

    def organ_growth(self, organ: str) -> float:
        """mL per canonical mL where ``organ`` lies."""
        return float(np.prod(self.scale) * self.proportions.stretch(_ORGAN_HEIGHT[organ]))


def draw_person(streams: Streams, sex: str | None) -> Person:
    """A person from the stream ``"torso/person"``; ``sex`` None: either, evenly."""
    if sex not in (None, "female", "male"):
        raise AnatomyError("unknown sex", found=sex, allowed=["female", "male", None])
    rng = streams("torso/person")

    def normal(mean: float, sd: float) -> float:
        return mean + sd * float(np.clip(rng.standard_normal(), -2.5, 2.5))

    drawn = "female" if rng.random() < 0.5 else "male"
    chosen = sex or drawn
    female = chosen == "female"
    stature = normal(1.63, 0.065) if female else normal(1.76, 0.07)
    age = float(rng.uniform(25, 85))
    index = float(np.clip(normal(25.5, 3.6), 18.0, 35.0))  # body mass index, kg/m2
    excess = index - 22.0
    visceral_share = float(rng.uniform(0.2, 0.6) if female else rng.uniform(0.4, 0.85))
    subcutaneous = (13.0 if female else 8.0) + excess * (2.3 - visceral_share)
    breadth = (stature / 1.76) ** 0.6 * (0.97 if female else 1.0)
    organs = {}
    for organ, (male_ml, female_ml, cv) in ORGAN_ML.items():
        mean = (female_ml if female else male_ml) * (stature / (1.63 if female else 1.76))
        organs[organ] = mean * float(np.exp(normal(0.0, cv) - cv * cv / 2))
    organs["bladder"] = float(np.clip(organs["bladder"], *_BLADDER_ML))
    fat = 0.08 + 0.0085 * max(age - 35, 0) + 0.012 * excess + 0.15 * float(streams("torso/muscle fat").standard_normal())
    return Person(
        sex=chosen,
        stature_m=stature,
        mass_kg=index * stature**2,
        age_years=age,
        scale=(breadth * normal(1.0, 0.03), breadth * normal(1.0, 0.03), stature / 1.76 * normal(1.0, 0.015)),
        proportions=draw_proportions(streams("torso/proportions")),
        hips=0.07 if female else 0.0,
        subcutaneous_mm=float(np.clip(subcutaneous, 4.0, 42.0)),
        visceral_mm=float(np.clip(excess * visceral_share * 3.0, -6.0, 36.0)),
        muscle=float(np.clip(normal(0.88 if female else 1.0, 0.08) - 0.002 * (age - 50), 0.7, 1.2)),
        muscle_fat=float(np.clip(fat, 0.0, 1.0)),
        inflation=float(rng.uniform(0.5, 1.0)),
        recess_mm=8.0 * float(np.clip(streams("torso/recess").standard_normal(), -2, 2)),
        gas=float(rng.uniform(0.15, 0.7)),
        organ_ml=organs,
    )
