"""Relaxation times, proton density and magnetism of every tissue (``data/relaxation.csv``)."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np

from ctmr_core.anatomy.tissues import tissues
from ctmr_core.errors import EngineError

_SHARED_SPREAD = 0.6  # share of the between-subject variance that all tissues of a subject have in common (age, temperature)


@dataclass(frozen=True, eq=False)
class Relaxation:
    """One value per tissue id, float64 [tissues].

    t1, t2, t2star: ms at ``field_strength`` (T); 0 = no protons. pd: relative to water. fat_fraction, fat_variation: part of
    the signal that comes from fat, and how much of it varies with the coarse texture. chemical_shift: of that fat, ppm.
    susceptibility: ppm (SI) relative to water. flow: share of fresh spins, 0 = still. spread: between subjects, percent.
    texture, variation: within the tissue on the fine and on the coarse scale, percent.
    """

    field_strength: float
    t1: np.ndarray
    t2: np.ndarray
    t2star: np.ndarray
    pd: np.ndarray
    fat_fraction: np.ndarray
    fat_variation: np.ndarray
    chemical_shift: np.ndarray
    susceptibility: np.ndarray
    flow: np.ndarray
    spread: np.ndarray
    texture: np.ndarray
    variation: np.ndarray


@cache
def _columns() -> dict[str, np.ndarray]:
    source = resources.files("ctmr_core.engines.tissue.data").joinpath("relaxation.csv")
    rows = {row["tissue"]: row for row in csv.DictReader(source.read_text(encoding="utf-8").splitlines())}
    missing = [tissue.name for tissue in tissues() if tissue.name not in rows]
    if missing:
        raise EngineError("tissues without relaxation times", where="relaxation.csv", found=missing, fix="add a row for each")
    ordered = [rows[tissue.name] for tissue in tissues()]
    return {name: np.array([float(row[name]) for row in ordered]) for name in ordered[0] if name not in ("tissue", "source")}


def chemical_shift_of_fat() -> float:
    """Of subcutaneous fat against water, ppm."""
    return float(_columns()["chemical_shift_ppm"].max())


def relaxation_at(field_strength: float, rng: np.random.Generator | None = None) -> Relaxation:
    """The table at ``field_strength`` (T), for the average subject or, with ``rng``, for one drawn subject.

    T1 follows the power law through its values at 1.5 T and 3 T (Bottomley et al. 1984); the reversible part of 1/T2*
    grows with the field. A subject's T1 and T2 deviate by the tabled spread, in part alike for all tissues, at most by
    two standard deviations; proton density by a third of it.
    """
    table = _columns()
    low, high = table["t1_1.5t_ms"], table["t1_3t_ms"]
    protons = low > 0
    safe = np.where(protons, low, 1.0)
    t1 = np.where(protons, safe * (field_strength / 1.5) ** np.log2(np.where(protons, high / safe, 1.0)), 0.0)
    t2 = table["t2_ms"].copy()
    pd = table["proton_density"].copy()
    if rng is not None:
        deviations = [_subject_deviation(len(t1), rng) for _ in range(3)]
        spread = table["spread_percent"] / 100
        t1 *= 1 + spread * deviations[0]
        t2 *= 1 + spread * deviations[1]
        pd *= 1 + spread / 3 * deviations[2]
    with np.errstate(divide="ignore", invalid="ignore"):
        reversible = np.maximum(1 / table["t2star_3t_ms"] - 1 / table["t2_ms"], 0) * field_strength / 3.0
        t2star = np.where(protons, 1 / (1 / t2 + reversible), 0.0)
    return Relaxation(
        field_strength,
        t1,
        t2,
        t2star,
        pd,
        table["fat_fraction"],
        table["fat_variation"],
        table["chemical_shift_ppm"],
        table["susceptibility_ppm"],
        table["flow"],
        table["spread_percent"],
        table["texture_percent"],
        table["variation_percent"],
    )


def _subject_deviation(count: int, rng: np.random.Generator) -> np.ndarray:
    """In standard deviations, float64 [count]: one part common to all tissues, one of their own."""
    common, own = rng.standard_normal(), rng.standard_normal(count)
    return np.clip(np.sqrt(_SHARED_SPREAD) * common + np.sqrt(1 - _SHARED_SPREAD) * own, -2.0, 2.0)
