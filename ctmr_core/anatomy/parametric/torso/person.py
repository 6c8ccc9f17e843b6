"""Who the person is: sex, stature, weight and organ sizes, drawn once from named streams."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ctmr_core.anatomy.parametric.base import Streams
from ctmr_core.errors import AnatomyError

#: mean volume (mL) of men and women and coefficient of variation. Liver, spleen, kidney, pancreas: CT volumetry of
#: 149 adults (Geraghty et al., Abdominal Imaging 2004); the rest: ICRP 110 adult male and female phantoms.
ORGAN_ML: dict[str, tuple[float, float, float]] = {
    "liver": (1710.0, 1411.0, 0.16),
    "spleen": (225.0, 175.0, 0.24),
    "kidney": (185.0, 152.0, 0.12),
    "pancreas": (95.0, 75.0, 0.18),
    "gallbladder": (42.0, 36.0, 0.35),
    "bladder": (190.0, 180.0, 0.40),
    "prostate": (24.0, 24.0, 0.25),
    "uterus": (78.0, 78.0, 0.25),
    "heart": (700.0, 560.0, 0.12),
    "thyroid": (19.2, 16.4, 0.20),
}


@dataclass(frozen=True)
class Person:
    """Traits of one person.

    stature_m, mass_kg, age_years: as worn. scale: mm per canonical mm along x, y, z. hips: extra relative width of
    the pelvis. subcutaneous_mm: thickness of the fat layer. visceral_mm: how far visceral fat pushes the abdominal
    wall forward. muscle: relative muscle bulk. inflation: 0 (expiration) .. 1 (deep inspiration). organ_ml: target
    volumes (mL). gas: 0 .. 1, how much of the bowel holds gas.
    """

    sex: str
    stature_m: float
    mass_kg: float
    age_years: float
    scale: tuple[float, float, float]
    hips: float
    subcutaneous_mm: float
    visceral_mm: float
    muscle: float
    inflation: float
    gas: float
    organ_ml: dict[str, float]

    @property
    def female(self) -> bool:
        return self.sex == "female"

    def organ_scale(self, organ: str, canonical_ml: float) -> float:
        """Linear factor that brings an organ of ``canonical_ml`` in canonical space to this person's volume."""
        return float(np.cbrt(self.organ_ml[organ] / (canonical_ml * float(np.prod(self.scale)))))


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
    return Person(
        sex=chosen,
        stature_m=stature,
        mass_kg=index * stature**2,
        age_years=age,
        scale=(breadth * normal(1.0, 0.03), breadth * normal(1.0, 0.03), stature / 1.76 * normal(1.0, 0.015)),
        hips=0.07 if female else 0.0,
        subcutaneous_mm=float(np.clip(subcutaneous, 4.0, 42.0)),
        visceral_mm=float(np.clip(excess * visceral_share * 3.0, -6.0, 36.0)),
        muscle=float(np.clip(normal(0.88 if female else 1.0, 0.08) - 0.002 * (age - 50), 0.7, 1.2)),
        inflation=float(rng.uniform(0.5, 1.0)),
        gas=float(rng.uniform(0.15, 0.7)),
        organ_ml=organs,
    )
