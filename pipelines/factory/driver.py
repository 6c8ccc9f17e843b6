"""The driver: hands work units to actors, watches them, and finds the one case that kills its process.

Ray never retries here (``max_restarts=0``, ``max_task_retries=0``): an actor error may be reported for work that did
finish, so after a death the ledger of commits is asked first. What is left of the unit that was running are the
*suspects*: they run again, each alone in its actor. A case that kills its process alone twice is quarantined.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import ray

from ctmr_core.cases.case import Case
from ctmr_core.errors import CtmrError
from pipelines.factory.slots import Slot
from pipelines.factory.tally import Observer, Tally
from pipelines.factory.work import ActorSettings, CaseOutcome, OutcomeStatus, WorkUnit

TICK_SECONDS = 0.25
MAX_LONE_DEATHS = 2  # a case is guilty when it dies alone twice
MAX_STILLBORN = 3  # actors in a row that die before they take any work: the environment is broken, not a case


class FactoryError(CtmrError):
    """The factory itself cannot run: actors do not start, or the storage gives up."""


@dataclass(frozen=True)
class Crew:
    """How many actors, and what each gets. ``case_timeout``: seconds after which a case counts as hanging."""

    workers: int
    settings: ActorSettings
    gpus_per_worker: float = 0.0
    case_timeout: float = 3600.0
    stop_timeout: float = 120.0


@dataclass(frozen=True)
class Ledger:
    """What the driver needs of the dataset: the committed status of a case (None if it has none), and quarantine."""

    decided: Callable[[Case], OutcomeStatus | None]
    quarantine: Callable[[Case, str], None]


class Driver:
    """Makes a stream of units with a crew of actors. One driver serves all waves of a run."""

    def __init__(
        self, crew: Crew, ledger: Ledger, tally: Tally, observer: Observer, stopping: Callable[[], bool] = lambda: False
    ) -> None:
        self._crew, self._ledger, self._tally, self._observer = crew, ledger, tally, observer
        self._stopping = stopping
        self._slots = [Slot(i, crew.settings, crew.gpus_per_worker) for i in range(crew.workers)]
        self._suspects: deque[WorkUnit] = deque()
        self._waiting: deque[WorkUnit] = deque()  # taken from the source and not handed out, or given back by a dead actor
        self._lone_deaths: Counter[str] = Counter()
        self._stillborn = 0
        self._stop_deadline: float | None = None

    def run(self, units: Iterable[WorkUnit]) -> None:
        """Make all units; returns when each is reported, abandoned by a stop, or quarantined."""
        source = iter(units)
        exhausted = False
        while True:
            self._watch_for_stop()
            if not self._halting:
                exhausted = self._hand_out(source)
            refs = [flight.ref for slot in self._slots for flight in slot.flights]
            if refs:
                done, _ = ray.wait(refs, num_returns=1, timeout=TICK_SECONDS)
                for ref in done:
                    self._collect(ref)
            elif self._halting or (exhausted and not self._suspects and not self._waiting):
                break
            else:
                time.sleep(TICK_SECONDS)  # the actors are starting
            self._watch_actors()
            self._observe()
        self._observe()

    def close(self) -> None:
        """End every actor."""
        for slot in self._slots:
            slot.close(timeout=10.0)

    @property
    def _halting(self) -> bool:
        return self._tally.interrupted or self._tally.halt is not None

    @property
    def _near_the_end(self) -> bool:
        done = self._tally.before + sum(self._tally.counts.values())
        flying = sum(len(flight.unit.cases) for slot in self._slots for flight in slot.flights)
        return self._tally.planned - done - flying <= 2 * len(self._slots)

    def _hand_out(self, source: Iterator[WorkUnit]) -> bool:
        """Start actors while there is work and fill their free places; True when the source has no more."""
        for prefetch in (False, True):  # everybody gets one unit before anybody gets a second
            if prefetch and (self._suspects or self._near_the_end):
                break  # suspects need an empty actor; near the end a prefetched unit would wait while others idle
            for slot in self._slots:
                if slot.actor is None and self._has_work(source):
                    slot.spawn()
                while slot.ready and slot.has_room(prefetch):
                    unit = self._next(source, slot)
                    if unit is None:
                        return True
                    slot.give(unit)
        return not self._has_work(source)

    def _has_work(self, source: Iterator[WorkUnit]) -> bool:
        """Whether any unit waits; looks one unit ahead."""
        if not self._suspects and not self._waiting:
            self._waiting.extend(itertools.islice(source, 1))
        return bool(self._suspects or self._waiting)

    def _next(self, source: Iterator[WorkUnit], slot: Slot) -> WorkUnit | None:
        if self._suspects and not slot.flights:
            return self._suspects.popleft()
        if self._waiting:
            return self._waiting.popleft()
        return next(source, None)

    def _collect(self, ref: object) -> None:
        slot = next(slot for slot in self._slots if any(flight.ref == ref for flight in slot.flights))
        try:
            _, report = slot.take(ref)
        except ray.exceptions.RayActorError as death:
            self._bury(slot, _first_line(death))
            return
        self._stillborn = 0
        self._tally.add(report.outcomes)
        if report.halt and self._tally.halt is None:
            self._tally.halt = report.halt
            self._ask_all_to_stop()

    def _bury(self, slot: Slot, cause: str) -> None:
        """Sort the units of a dead actor: decided, suspect, or innocent (never begun)."""
        suspected = False
        for unit in slot.lose_all():
            open_cases = self._count_decided(unit)
            if suspected:
                self._waiting.extend([WorkUnit(tuple(open_cases), unit.alone)] if open_cases else [])
                continue
            for case in open_cases:
                self._accuse(case, alone=unit.alone or len(unit.cases) == 1, cause=cause)
            suspected = bool(open_cases)

    def _count_decided(self, unit: WorkUnit) -> list[Case]:
        """Count the cases whose commit outlived their actor; returns the others."""
        open_cases = []
        for case in unit.cases:
            status = self._ledger.decided(case)
            if status is None:
                open_cases.append(case)
            else:
                self._tally.add([CaseOutcome(case.case_id, status, 1, 0.0)])
        return open_cases

    def _accuse(self, case: Case, *, alone: bool, cause: str) -> None:
        if alone:
            self._lone_deaths[case.key] += 1
        if self._lone_deaths[case.key] >= MAX_LONE_DEATHS:
            reason = f"killed its process {MAX_LONE_DEATHS} times while alone in it ({cause})"
            self._ledger.quarantine(case, reason)
            self._tally.quarantine(case.case_id, reason)
            return
        self._suspects.append(WorkUnit((case,), alone=True))

    def _watch_actors(self) -> None:
        for slot in self._slots:
            if slot.actor is None:
                continue
            try:
                slot.poll()
            except ray.exceptions.RayActorError as death:
                self._count_stillborn(slot, _first_line(death))
                continue
            if slot.flights and slot.seconds_in_case > self._crew.case_timeout:
                seconds = round(slot.seconds_in_case)
                slot.kill()
                self._bury(slot, f"no result after {seconds} s (case_timeout {self._crew.case_timeout:.0f} s)")

    def _count_stillborn(self, slot: Slot, cause: str) -> None:
        """An actor died before it was ready: start another, unless that keeps happening."""
        slot.kill()
        self._stillborn += 1
        if self._stillborn >= MAX_STILLBORN:
            raise FactoryError(
                f"{MAX_STILLBORN} actors in a row died while starting",
                found=cause,
                fix="look at the worker logs of Ray (session_latest/logs); check memory, GPU driver and installed packages",
            )

    def _watch_for_stop(self) -> None:
        if self._stopping() and not self._tally.interrupted:
            self._tally.interrupted = True
            self._ask_all_to_stop()
        if self._stop_deadline is not None and time.monotonic() > self._stop_deadline:
            for slot in self._slots:
                slot.lose_all()

    def _ask_all_to_stop(self) -> None:
        self._stop_deadline = time.monotonic() + self._crew.stop_timeout
        for slot in self._slots:
            with contextlib.suppress(ray.exceptions.RayActorError):
                slot.ask_to_stop()

    def _observe(self) -> None:
        message = "stopping: finishing the cases at hand" if self._halting else ""
        self._observer(self._tally.progress({slot.index: slot.status for slot in self._slots}, message))


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
