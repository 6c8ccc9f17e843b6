"""What a set of cases will take: time, memory, bytes and objects, from what their like has taken before.

Cases of one engine, one sort of body, one set of sequences and about one number of voxels are taken to cost the same. Figures
come from a calibration or from the records of earlier runs (which know engine and size only); what nobody measured is scaled
from the nearest size of the same engine. Every figure carries an uncertainty: about nine of ten runs should end inside it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ctmr_core.errors import CtmrError
from ctmr_core.store.runs import RunRecord, size_bucket
from pipelines.factory.work import FINISHING_STAGES, MAKING_STAGES, CaseOutcome

STAGES = (*MAKING_STAGES, *FINISHING_STAGES)
NINETY = 1.645  # half-width of a normal 90 % interval in standard deviations
#: Relative: a machine is never twice equally quick; cases of one kind of which one or none was measured; per doubling of size.
LOAD_SPREAD, UNKNOWN_SPREAD, SCALED_SPREAD = 0.10, 0.35, 0.20
#: Resident bytes of an actor with its libraries loaded and no case in hand: what does not grow with the size of a case.
IDLE_BYTES = 450_000_000


class Kind(NamedTuple):
    """What cases must share to cost the same. voxels: over all sequences, rounded to a power of two. what: body and sequences,
    for example ``"torso ct"``; "" where it is not known."""

    engine: str
    voxels: int
    what: str = ""


class EstimateError(CtmrError):
    """A plan of which nothing is known that an estimate could be made from."""


@dataclass(frozen=True)
class Measured:
    """What one kind of case took, per case. cases: how many were measured.

    seconds: one worker's, at its slower thread, without waiting for a core. spread: relative standard deviation of one case.
    attempts: at least 1. accepted: share. bytes, objects: of an accepted volume. stages: seconds by stage.
    """

    cases: int
    seconds: float
    spread: float
    attempts: float
    accepted: float
    bytes: float
    objects: float
    stages: Mapping[str, float] = field(default_factory=dict)

    @property
    def uncertainty(self) -> float:
        """Relative half-width of the mean of many such cases."""
        return NINETY * math.hypot(self.spread / math.sqrt(max(self.cases, 1)), LOAD_SPREAD)

    def scaled(self, ratio: float) -> Measured:
        """The same for cases of ``ratio`` times the voxels."""
        return Measured(
            cases=1,
            seconds=self.seconds * ratio,
            spread=math.hypot(self.spread, SCALED_SPREAD * abs(math.log2(ratio))),
            attempts=self.attempts,
            accepted=self.accepted,
            bytes=self.bytes * ratio,
            objects=self.objects,
            stages={stage: seconds * ratio for stage, seconds in self.stages.items()},
        )


@dataclass(frozen=True)
class Measurements:
    """Everything measured. source: for people. peak_bytes, gpu_peak_bytes: the most one worker held, cases up to ``largest``.

    efficiency: of the run they come from; 1 for a calibration with one worker.
    """

    source: str
    kinds: Mapping[Kind, Measured]
    peak_bytes: int = 0
    gpu_peak_bytes: int = 0
    largest: int = 0
    efficiency: float = 1.0

    @property
    def engines(self) -> set[str]:
        return {kind.engine for kind in self.kinds}

    def source_of(self, kind: Kind) -> Kind:
        """The measured kind that stands for ``kind``; ``EstimateError`` when no case of the engine was measured."""
        known = [other for other in self.kinds if other.engine == kind.engine]
        if not known:
            raise EstimateError(
                f"nothing was measured for engine {kind.engine}",
                where=self.source,
                allowed=sorted(self.engines),
                fix="let the estimate calibrate (--calibrate 1)",
            )
        return min(known, key=lambda k: (k.what not in ("", kind.what), abs(math.log2(k.voxels / kind.voxels)), k))

    def of(self, kind: Kind) -> Measured:
        """What cases of this kind take, scaled from another size if need be."""
        nearest = self.source_of(kind)
        found = self.kinds[nearest]
        return found if nearest.voxels == kind.voxels else found.scaled(kind.voxels / nearest.voxels)

    def memory(self, largest: int) -> int:
        """Resident bytes of a worker that makes cases up to this size."""
        if not self.largest or largest <= self.largest:
            return self.peak_bytes
        return round(IDLE_BYTES + max(self.peak_bytes - IDLE_BYTES, 0) * largest / self.largest)


@dataclass(frozen=True)
class Estimate:
    """What a plan will take. Seconds are one worker's; ``uncertainty`` is relative, for ``worker_seconds``, hours and bytes.

    hours: on the clock with ``workers``. stages: worker seconds by stage. memory_bytes, gpu_bytes: of one worker at most.
    """

    source: str
    cases: int
    attempts: float
    accepted: float
    objects: int
    bytes: int
    worker_seconds: float
    stages: dict[str, float]
    workers: int
    hours: float
    memory_bytes: int
    gpu_bytes: int
    prefect_task_runs: int
    uncertainty: float
    kinds: list[dict[str, Any]]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def kinds_of(table: pa.Table) -> tuple[list[Kind], np.ndarray]:
    """The kinds in a manifest's table, and for every row which of them it is."""
    voxels = np.prod(np.asarray(table["size"].combine_chunks().flatten()).reshape(-1, 3).astype(np.int64), axis=1)
    amounts, which = np.unique(voxels * np.asarray(pc.list_value_length(table["sequences"])), return_inverse=True)
    buckets = np.array([size_bucket(int(amount)) for amount in amounts], np.int64)[which]
    bodies = pc.replace_substring_regex(table["body"], pattern="^parametric:|:.*$", replacement="")
    what = pc.binary_join_element_wise(bodies, pc.binary_join(table["sequences"], "+"), " ")
    names = pc.binary_join_element_wise(table["engine"], pc.cast(pa.array(buckets), pa.string()), what, "\n")
    codes = names.combine_chunks().dictionary_encode()
    parts = [name.split("\n") for name in codes.dictionary.to_pylist()]
    return [Kind(engine, int(size), rest) for engine, size, rest in parts], np.asarray(codes.indices)


def count(kinds: Sequence[Kind], which: np.ndarray) -> dict[Kind, int]:
    """Kind -> number of rows."""
    return dict(zip(kinds, np.bincount(which, minlength=len(kinds)).tolist(), strict=True))


def from_outcomes(source: str, outcomes: Sequence[tuple[Kind, CaseOutcome]], peak: int, gpu_peak: int) -> Measurements:
    """Measurements of single cases."""
    kinds: dict[Kind, Measured] = {}
    for kind in {kind for kind, _ in outcomes}:
        mine = [outcome for other, outcome in outcomes if other == kind]
        stages = {stage: _mean(_undisturbed(outcome, stage) for outcome in mine) for stage in STAGES}
        seconds = np.array([_pace(outcome) for outcome in mine])
        accepted = [outcome for outcome in mine if outcome.status == "accepted"]
        kinds[kind] = Measured(
            cases=len(mine),
            seconds=float(seconds.mean()),
            spread=float(seconds.std(ddof=1) / seconds.mean()) if len(mine) > 2 else UNKNOWN_SPREAD,
            attempts=_mean(outcome.attempts for outcome in mine),
            accepted=len(accepted) / len(mine),
            bytes=_mean(outcome.bytes for outcome in accepted),
            objects=_mean(outcome.objects for outcome in accepted),
            stages=stages,
        )
    return Measurements(source, kinds, peak, gpu_peak, max((kind.voxels for kind in kinds), default=0))


def from_runs(runs: Iterable[RunRecord], device: str, where: str) -> Measurements | None:
    """Measurements of earlier runs on this kind of device, all of them together; None when they made nothing there."""
    used = [run for run in runs if any(cost.device == device and cost.cases for cost in run.costs)]
    if not used:
        return None
    sums: dict[Kind, Counter[str]] = {}
    stages: Counter[str] = Counter()
    for run in used:
        stages.update({stage: run.stages.get(stage, 0.0) for stage in STAGES})
        for cost in run.costs:
            if cost.device == device:
                total = sums.setdefault(Kind(cost.engine, cost.size_bucket), Counter())
                total.update({name: getattr(cost, name) for name in ("cases", "accepted", "attempts", "bytes", "objects")})
                total["seconds"] += cost.seconds_per_case * cost.cases  # type: ignore[assignment]
    kinds = {key: _of_sums(total, stages) for key, total in sums.items() if total["cases"]}
    fleet = [worker for run in used for worker in run.fleet]
    return Measurements(
        source=f"{len(used)} earlier run(s) of {where}",
        kinds=kinds,
        peak_bytes=max((worker.peak_bytes for worker in fleet), default=0),
        gpu_peak_bytes=max((worker.gpu_peak_bytes for worker in fleet), default=0),
        largest=max((kind.voxels for kind in kinds), default=0),
        efficiency=min(max(used[-1].efficiency, 0.05), 1.0) if used[-1].efficiency else 1.0,
    )


def estimate(
    kinds: Mapping[Kind, int], measured: Measurements, *, workers: int, at_once: int | None = None, prefect_task_runs: int = 0
) -> Estimate:
    """What ``kinds`` (kind -> number of cases) take with this many workers, of which ``at_once`` have a core (default all).

    ``EstimateError`` for an engine nobody measured.
    """
    parts: list[dict[str, Any]] = []
    stages: Counter[str] = Counter()
    seconds = attempts = accepted = objects = volumes = variance = 0.0
    for kind, cases in sorted(kinds.items()):
        one, source = measured.of(kind), measured.source_of(kind)
        seconds += one.seconds * cases
        variance += (one.seconds * cases * one.uncertainty) ** 2
        attempts += one.attempts * cases
        accepted += one.accepted * cases
        objects += one.objects * one.accepted * cases
        volumes += one.bytes * one.accepted * cases
        stages.update({stage: cases * one.stages.get(stage, 0.0) for stage in STAGES})  # type: ignore[dict-item]
        parts.append(
            {
                **kind._asdict(),
                "cases": cases,
                "measured_cases": one.cases if source.voxels == kind.voxels else 0,
                "seconds_per_case": round(one.seconds, 3),
                "bytes_per_case": round(one.bytes),
            }
        )
    whole = sum(kinds.values())
    return Estimate(
        source=measured.source,
        cases=whole,
        attempts=round(attempts, 1),
        accepted=round(accepted, 1),
        objects=round(objects) + whole,  # a commit record per case
        bytes=round(volumes),
        worker_seconds=round(seconds, 1),
        stages={stage: round(float(amount), 1) for stage, amount in stages.items()},
        workers=workers,
        hours=round(seconds / 3600.0 / min(workers, at_once or workers) / measured.efficiency, 4),
        memory_bytes=measured.memory(max((kind.voxels for kind in kinds), default=0)),
        gpu_bytes=measured.gpu_peak_bytes,
        prefect_task_runs=prefect_task_runs,
        uncertainty=round(math.sqrt(variance) / seconds, 3) if seconds else 0.0,
        kinds=parts,
    )


def _of_sums(total: Counter[str], stages: Counter[str]) -> Measured:
    cases, accepted = total["cases"], max(total["accepted"], 1)
    seconds, whole = total["seconds"] / cases, sum(stages.values()) or 1.0
    return Measured(
        cases=cases,
        seconds=seconds,
        spread=UNKNOWN_SPREAD,
        attempts=total["attempts"] / cases,
        accepted=total["accepted"] / cases,
        bytes=total["bytes"] / accepted,
        objects=total["objects"] / accepted,
        stages={stage: seconds * share / whole for stage, share in stages.items()},
    )


def _undisturbed(outcome: CaseOutcome, stage: str) -> float:
    """Seconds of a stage without the time its thread waited for a core (known of body and render together)."""
    seconds = outcome.stages.get(stage, 0.0)
    making = sum(outcome.stages.get(name, 0.0) for name in MAKING_STAGES)
    return seconds * (1.0 - outcome.cpu_wait / making) if making and stage in MAKING_STAGES else seconds


def _pace(outcome: CaseOutcome) -> float:
    """Seconds the case kept the busiest of the worker's threads busy; never 0."""
    return max(sum(_undisturbed(outcome, stage) for stage in MAKING_STAGES), outcome.finishing, 1e-3)


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found) if found else 0.0
