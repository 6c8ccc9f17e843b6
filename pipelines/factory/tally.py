"""Counting a run while it goes on."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from pipelines.factory.work import ActorStatus, CaseOutcome


@dataclass(frozen=True)
class Progress:
    """A run at one moment, for whoever shows it.

    planned: cases of this run, those done before included. before: done by earlier runs.
    seconds: since the run began. actors: index -> what it is doing.
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
    """The counts of one run, and the outcomes that are not accepted."""

    def __init__(self, planned: int, before: int) -> None:
        self.planned = planned
        self.before = before
        self.counts: Counter[str] = Counter()
        self.attempts = 0
        self.case_seconds = 0.0
        self.problems: list[CaseOutcome] = []
        self.halt: str | None = None
        self.interrupted = False
        self._begin = time.monotonic()
        self.making_seconds = 0.0

    def start_clock(self) -> None:
        """Making begins now: rates leave out the start of the cluster."""
        self._begin = time.monotonic()

    def stop_clock(self) -> None:
        self.making_seconds = self.seconds

    def add(self, outcomes: Iterable[CaseOutcome]) -> None:
        for outcome in outcomes:
            self.counts[outcome.status] += 1
            self.attempts += outcome.attempts
            self.case_seconds += outcome.seconds
            if outcome.status != "accepted":
                self.problems.append(outcome)

    def quarantine(self, case_id: str, reason: str) -> None:
        self.counts["quarantined"] += 1
        self.problems.append(CaseOutcome(case_id, "failed", 0, 0.0, reason))

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._begin

    def progress(self, actors: dict[int, ActorStatus], message: str = "") -> Progress:
        """The counts now, with what the actors finished inside their present units."""
        counts = self.counts.copy()
        for status in actors.values():
            counts.update(outcome.status for outcome in status.outcomes)
        return Progress(
            planned=self.planned,
            before=self.before,
            accepted=counts["accepted"],
            rejected=counts["rejected"],
            failed=counts["failed"],
            quarantined=counts["quarantined"],
            seconds=self.seconds,
            actors=dict(actors),
            message=message,
        )
