"""How long the parts of the trunk are relative to each other: one smooth map of heights that everything follows.

A level of the lumbar spine is 32 mm in the ICRP 110 male (1.76 m) on whose heights canonical space is built, and 34-36 mm in
published series (bodies 25-28 mm: Gilad and Nissan, Spine 1986, Panjabi et al., Spine 1992, Zhou et al., European Spine Journal
2000; discs 8-12 mm: Zhou et al. 2000), so a lumbar spine is drawn longer than the canonical one on average. Lumbar length has a
coefficient of variation of 5-6 % among adults of one sex, of which stature explains about half.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: heights (canonical mm) between which one part goes over into the next: L5 to S1, and L1 to T12.
_PELVIS_TO_LUMBAR = (-112.0, -72.0)
_LUMBAR_TO_THORAX = (70.0, 110.0)
_STEP = 2.0
_REACH = 900.0
#: mean length relative to canonical space and standard deviation between people of one stature, per part.
LENGTHS: dict[str, tuple[float, float]] = {"pelvis": (1.0, 0.03), "lumbar": (1.08, 0.04), "thorax": (1.0, 0.03)}


def _ramp(z: np.ndarray, ends: tuple[float, float]) -> np.ndarray:
    """0 below ``ends``, 1 above, smooth between."""
    t = np.clip((z - ends[0]) / (ends[1] - ends[0]), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


@dataclass(frozen=True)
class Proportions:
    """Lengths of pelvis, lumbar spine and thorax (neck included) of one person relative to canonical space."""

    pelvis: float = 1.0
    lumbar: float = 1.0
    thorax: float = 1.0

    def stretch(self, z: np.ndarray | float) -> np.ndarray:
        """mm per canonical mm along z at canonical heights ``z`` (any shape), before stature."""
        z = np.asarray(z, float)
        low, high = _ramp(z, _PELVIS_TO_LUMBAR), _ramp(z, _LUMBAR_TO_THORAX)
        return np.asarray(self.pelvis + (self.lumbar - self.pelvis) * low + (self.thorax - self.lumbar) * high)

    def heights(self) -> tuple[np.ndarray, np.ndarray]:
        """Canonical heights, increasing, and this person's for them (mm, before stature); 0 stays 0. For interpolation."""
        canonical = np.arange(-_REACH, _REACH + _STEP, _STEP)
        steps = self.stretch(canonical[:-1] + _STEP / 2) * _STEP
        own = np.concatenate([[0.0], np.cumsum(steps)])
        return canonical, own - np.interp(0.0, canonical, own)


def draw_proportions(rng: np.random.Generator) -> Proportions:
    """Independent lengths of the three parts, normal within 2.5 standard deviations."""
    draws = np.clip(rng.standard_normal(len(LENGTHS)), -2.5, 2.5)
    parts = {name: mean * (1 + sd * float(draw)) for (name, (mean, sd)), draw in zip(LENGTHS.items(), draws, strict=True)}
    return Proportions(**parts)
