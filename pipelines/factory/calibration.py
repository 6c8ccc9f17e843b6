"""Calibration: make a few cases of every kind in a process of their own, commit them to a throw-away dataset, and measure."""

from __future__ import annotations

import multiprocessing
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np

from ctmr_core.cases.case import Case
from ctmr_core.store import Dataset
from ctmr_core.worker_processes import end_with_parent
from pipelines.factory.activity import Activity
from pipelines.factory.estimate import EstimateError, Kind, Measurements, count, from_outcomes
from pipelines.factory.work import ActorSettings, CaseOutcome, WorkUnit

WARM_UP = "calibration-warm-up"
MOST_KINDS = 8  # those in which most voxels lie, and the largest, which decides about memory; others are scaled


def choose_cases(kinds: Sequence[Kind], which: np.ndarray, per_kind: int) -> list[int]:
    """Rows to calibrate with: the first ``per_kind`` of each chosen kind, smaller ones first.

    kinds, which: see ``kinds_of``.
    """
    counts = count(kinds, which)
    by_weight = sorted(counts, key=lambda kind: (-counts[kind] * kind.voxels, kind))
    chosen = {*by_weight[: MOST_KINDS - 1], max(counts, key=lambda kind: (kind.voxels, kind))}
    for engine in sorted({kind.engine for kind in kinds} - {kind.engine for kind in chosen}):
        chosen.add(next(kind for kind in by_weight if kind.engine == engine))  # an engine nobody measured can't be scaled
    rows = []
    for kind in sorted(chosen, key=lambda kind: (kind.voxels, kind)):
        rows.extend(np.flatnonzero(which == kinds.index(kind))[:per_kind].tolist())
    return rows


def calibrate(
    cases: Sequence[Case], kinds: Sequence[Kind], library: str | None, device: str, threads: int, segmenters: str = ""
) -> Measurements:
    """Make ``cases`` (each of the kind at its place in ``kinds``) as an actor would. segmenters: see ``ActorSettings``.

    ``EstimateError`` when the process dies or a case fails.
    """
    with tempfile.TemporaryDirectory(prefix="ctmr-calibration-") as folder:
        Dataset.create(Path(folder) / "dataset")
        settings = ActorSettings(str(Path(folder) / "dataset"), library, device, threads, segmenters=segmenters)
        context = multiprocessing.get_context("spawn")  # its memory is measured: it must not inherit ours
        with ProcessPoolExecutor(1, mp_context=context, initializer=end_with_parent) as pool:
            try:
                outcomes, peak, gpu_peak = pool.submit(_make, settings, tuple(cases)).result()
            except BrokenProcessPool as error:
                raise EstimateError(
                    "the process of the calibration died", found=str(error), fix="is there enough memory for one case? see dmesg"
                ) from error
    by_id = {outcome.case_id: outcome for outcome in outcomes}
    measured = [(kind, by_id[case.case_id]) for case, kind in zip(cases, kinds, strict=True)]
    failed = [outcome for _, outcome in measured if outcome.status == "failed"]
    if failed:
        raise EstimateError("a case of the calibration failed", where=f"case {failed[0].case_id}", found=failed[0].reason)
    return from_outcomes(f"a calibration with {len(measured)} case(s)", measured, peak, gpu_peak)


def _make(settings: ActorSettings, cases: tuple[Case, ...]) -> tuple[list[CaseOutcome], int, int]:
    """In the child process: outcomes, and peak memory of the process and the GPU in bytes.

    Each case is a unit of its own, so that none waits behind the writing of another. The first is made twice: libraries are
    loaded and tables built when they are needed first.
    """
    from pipelines.factory.production import Workshop

    activity = Activity()
    shop = Workshop(settings, activity)
    outcomes: list[CaseOutcome] = []
    try:
        for turn, case in enumerate((cases[0].model_copy(update={"case_id": WARM_UP}), *cases)):
            report = shop.make_unit(WorkUnit((case,)), threading.Event(), turn)
            if case.case_id != WARM_UP:
                outcomes.extend(report.outcomes)
        status = activity.status()
    finally:
        shop.close()
    return outcomes, status.peak_bytes, status.gpu_peak_bytes
