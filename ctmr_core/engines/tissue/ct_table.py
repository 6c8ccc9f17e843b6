"""Hounsfield units of every tissue: the published table and one scan's draws from it."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np

from ctmr_core.anatomy.tissues import tissue_id, tissues
from ctmr_core.engines.tissue.ct_parameters import Phase
from ctmr_core.errors import EngineError

_SHARED = 0.85  # correlation of the between-subject draws inside one group (all blood, all bone, ...)
_TRUNCATION = 2.0  # draws beyond this many standard deviations are drawn in
_OFFSET_SD = 4.0  # HU between scanners: the same patients differ by that much (PMC5015439)
_GAIN_SD = 0.01


@dataclass(frozen=True)
class HuRow:
    """One tissue of ``data/ct_hu.csv``: mean and between-subject standard deviation in HU per contrast phase.

    fine, coarse: standard deviation in HU of the texture inside the tissue in the two bands of ``context.BANDS``;
    coarse_arterial: the coarse one in the arterial phase. source: where the numbers come from.
    """

    tissue: str
    group: str
    mean: dict[str, float]
    sd: dict[str, float]
    fine: float
    coarse: float
    coarse_arterial: float
    source: str


@dataclass(frozen=True, eq=False)
class HuDraw:
    """One scan's HU per tissue id: float32 arrays of length ``len(tissues())``; ``offset`` and ``gain`` of the scanner."""

    mean: np.ndarray
    fine: np.ndarray
    coarse: np.ndarray
    offset: float
    gain: float


@cache
def hu_table() -> tuple[HuRow, ...]:
    """The table, ordered by tissue id; ``EngineError`` when a tissue has no row."""
    source = resources.files("ctmr_core.engines.tissue.data").joinpath("ct_hu.csv")
    phases = ("native", "arterial", "portal")
    rows: dict[int, HuRow] = {}
    with source.open(encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            rows[tissue_id(row["tissue"])] = HuRow(
                tissue=row["tissue"],
                group=row["group"],
                mean={phase: float(row[phase]) for phase in phases},
                sd={phase: float(row[f"{phase}_sd"]) for phase in phases},
                fine=float(row["fine"]),
                coarse=float(row["coarse"]),
                coarse_arterial=float(row["coarse_arterial"]),
                source=row["source"],
            )
    missing = [tissue.name for tissue in tissues() if tissue.id not in rows]
    if missing:
        raise EngineError("tissues without HU", where=str(source), found=missing, fix="add a row per tissue")
    return tuple(rows[tissue.id] for tissue in tissues())


def draw_hu(phase: Phase, subject: np.random.Generator, scanner: np.random.Generator) -> HuDraw:
    """HU of every tissue for one scan.

    subject: the person's generator: started anew for every phase it gives every tissue the same place in its range,
    so that a fatty liver is fatty in all phases. scanner: the generator of offset and gain.
    """
    rows = hu_table()
    groups = sorted({row.group for row in rows})
    shared = dict(zip(groups, subject.standard_normal(len(groups)), strict=True))
    own = subject.standard_normal(len(rows))
    mean = np.empty(len(rows), np.float64)
    for i, row in enumerate(rows):
        z = _SHARED * shared[row.group] + np.sqrt(1.0 - _SHARED**2) * own[i]
        mean[i] = row.mean[phase] + row.sd[phase] * np.clip(z, -_TRUNCATION, _TRUNCATION)
    offset = float(np.clip(scanner.normal(0.0, _OFFSET_SD), -2 * _OFFSET_SD, 2 * _OFFSET_SD))
    gain = float(1.0 + np.clip(scanner.normal(0.0, _GAIN_SD), -2 * _GAIN_SD, 2 * _GAIN_SD))
    matter = np.clip(1.0 + mean / 1000.0, 0.0, 1.0)  # the calibration of air holds whatever the water does
    mean = np.where(matter > 0, mean * np.where(mean > -900, gain, 1.0) + offset * matter, mean)
    coarse = [row.coarse_arterial if phase == "arterial" else row.coarse for row in rows]
    return HuDraw(
        mean=mean.astype(np.float32),
        fine=np.array([row.fine for row in rows], np.float32),
        coarse=np.array(coarse, np.float32),
        offset=offset,
        gain=gain,
    )
