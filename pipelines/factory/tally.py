"""Counting a run while it goes on, in memory that does not grow with the cases."""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ctmr_core.cases.case import Case
from ctmr_core.store.runs import CaseCost, WorkerRecord, size_bucket
from pipelines.factory.work import FINISHING_STAGES, MAKING_STAGES, ActorStatus, CaseOutcome

LISTED_PROBLEMS = 100  # kept with their reasons; the rest is counted
LISTED_WORKERS = 200


@dataclass(frozen=True)
class Progress:
    """A run at one moment, for whoever shows it.

    planned: cases of this run, those done before included. before: done by earlier runs.
    seconds: since the run began. actors: index -> what it is doing. bytes: of the volumes committed and reported.
    nodes: machines the actors run on. deaths, replaced, second_copies: see ``RunRecord``.
    """

    planned: int
    before: int
    accepted: int
    rejected: int
    failed: int
    quarantined: int
    seconds: float
    actors: dict[int, ActorStatus] = field(default_factory=dict)
    message: str = ""
    bytes: int = 0
    nodes: int = 0
    deaths: int = 0
    replaced: int = 0
    second_copies: int = 0

    @property
    def made(self) -> int:
        """Cases that got their outcome in this run."""
        return self.accepted + self.rejected + self.failed + self.quarantined

    @property
    def done(self) -> int:
        return self.before + self.made

    @property
    def per_minute(self) -> float:
        return 60.0 * self.made / self.seconds if self.seconds > 0 else 0.0

    @property
    def eta_seconds(self) -> float | None:
        """Seconds to the end at the rate so far; None before the first case."""
        return (self.planned - self.done) * self.seconds / self.made if self.made else None


Observer = Callable[[Progress], None]


class Tally:
    """The counts of one run, what its cases cost, and the first outcomes that are not accepted."""

    def __init__(self, planned: int, before: int) -> None:
        self.planned = planned
        self.before = before
        self.counts: Counter[str] = Counter()
        self.events: Counter[str] = Counter()  # deaths, replaced, second_copies
        self.attempts = 0
        self.bytes = 0
        self.objects = 0
        self.problems: list[CaseOutcome] = []
        self.halt: str | None = None
        self.warning = ""
        self.interrupted = False
        self.stages: dict[str, float] = defaultdict(float)
        self.cpu_wait = 0.0
        self.worker_seconds = 0.0
        self.most_workers = 0
        self.hosts: set[str] = set()
        self._costs: dict[tuple[str, int], dict[str, float]] = {}
        self._fleet: list[WorkerRecord] = []
        self._begin = time.monotonic()
        self.making_seconds = 0.0

    def start_clock(self) -> None:
        """Making begins now: rates leave out the start of the cluster."""
        self._begin = time.monotonic()

    def stop_clock(self) -> None:
        self.making_seconds = self.seconds

    def add(self, case: Case, outcome: CaseOutcome) -> None:
        """A case has its outcome."""
        self.counts[outcome.status] += 1
        self.attempts += outcome.attempts
        self.bytes += outcome.bytes
        self.objects += outcome.objects
        for stage, seconds in outcome.stages.items():
            self.stages[stage] += seconds
        self.cpu_wait += outcome.cpu_wait
        if outcome.status != "accepted":
            self._list(outcome)
        if outcome.stages:
            self._add_cost(case, outcome)

    def correct(self, before: str, outcome: CaseOutcome) -> None:
        """The case was counted as ``before``, by a copy of it that came to less."""
        self.counts[before] -= 1
        self.counts[outcome.status] += 1
        self.problems = [problem for problem in self.problems if problem.case_id != outcome.case_id]

    def quarantine(self, case_id: str, reason: str) -> None:
        self.counts["quarantined"] += 1
        self._list(CaseOutcome(case_id, "failed", 0, 0.0, reason))

    def worker_ended(self, host: str, cases: int, seconds: float, status: ActorStatus) -> None:
        """A worker process is gone; keep what it did."""
        self.worker_seconds += seconds
        record = WorkerRecord(
            host=host,
            cases=cases,
            peak_bytes=status.peak_bytes,
            gpu_peak_bytes=status.gpu_peak_bytes,
            seconds=round(max(seconds, 0.0), 3),
        )
        self._fleet.append(record)
        if len(self._fleet) > 2 * LISTED_WORKERS:
            self._fleet = list(self.fleet)

    @property
    def fleet(self) -> tuple[WorkerRecord, ...]:
        """The workers that ended, largest memory first."""
        return tuple(sorted(self._fleet, key=lambda worker: -worker.peak_bytes)[:LISTED_WORKERS])

    @property
    def efficiency(self) -> float:
        """See ``RunRecord.efficiency``: seconds of body and render without waiting for a core, over the workers' seconds."""
        busy = sum(self.stages[stage] for stage in MAKING_STAGES) - self.cpu_wait
        return max(busy, 0.0) / self.worker_seconds if self.worker_seconds > 0 else 0.0

    def costs(self, device: str) -> tuple[CaseCost, ...]:
        """By engine and size of one image, in that order."""
        return tuple(
            CaseCost.model_validate({"engine": engine, "device": device, "size_bucket": bucket, **sums})
            for (engine, bucket), sums in sorted(self._costs.items())
        )

    def stage_seconds(self) -> dict[str, float]:
        """Seconds by stage, summed over the workers; ``wait``: the making threads had nothing to do."""
        making = sum(self.stages[stage] for stage in MAKING_STAGES)
        found = {stage: self.stages[stage] for stage in (*MAKING_STAGES, *FINISHING_STAGES, "seal")}
        found["wait"] = max(self.worker_seconds - making, 0.0)
        return {stage: round(max(seconds, 0.0), 3) for stage, seconds in found.items()}

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._begin

    def progress(self, actors: dict[int, ActorStatus], unreported: Mapping[str, int], message: str = "") -> Progress:
        """The counts now, with what the actors finished inside their present units."""
        counts = Counter(self.counts)
        counts.update(unreported)
        return Progress(
            planned=self.planned,
            before=self.before,
            accepted=counts["accepted"],
            rejected=counts["rejected"],
            failed=counts["failed"],
            quarantined=counts["quarantined"],
            seconds=self.seconds,
            actors=actors,
            message=message or self.warning,
            bytes=self.bytes,
            nodes=len(self.hosts),
            deaths=self.events["deaths"],
            replaced=self.events["replaced"],
            second_copies=self.events["second_copies"],
        )

    def _list(self, outcome: CaseOutcome) -> None:
        if len(self.problems) < LISTED_PROBLEMS:
            self.problems.append(outcome)

    def _add_cost(self, case: Case, outcome: CaseOutcome) -> None:
        sums = self._costs.setdefault((case.engine, size_bucket(math.prod(case.size))), defaultdict(float))
        for name, amount in {
            "cases": 1,
            "accepted": outcome.status == "accepted",
            "images": len(case.sequences),
            "attempts": outcome.attempts,
            "busy_seconds": sum(outcome.stages.get(stage, 0.0) for stage in MAKING_STAGES),
            "cpu_wait_seconds": outcome.cpu_wait,
            "finish_seconds": outcome.finishing,
            "bytes": outcome.bytes,
            "objects": outcome.objects,
        }.items():
            sums[name] += amount
