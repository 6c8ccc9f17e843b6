"""The driver: hands work units to actors, watches them, and finds the one case that kills its process.

Ray never retries here (``max_restarts=0``, ``max_task_retries=0``): an actor error may be reported for work that did
finish, so after a death the ledger of commits is asked first. Of what is left, the few cases the actor can have had in its
hands are the *suspects*: they run again, each alone in its actor. A case that kills its process alone twice is quarantined.
A node that leaves the cluster takes its actors along; their cases are nobody's fault and are simply handed out again.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import ray

from ctmr_core.cases.case import Case
from ctmr_core.errors import CtmrError
from pipelines.factory.copies import Copies
from pipelines.factory.nodes import Nodes
from pipelines.factory.sizing import Costs, UnitSource
from pipelines.factory.slots import DEATHS, Flight, Need, Slot
from pipelines.factory.tally import Observer, Tally
from pipelines.factory.work import ActorSettings, CaseOutcome, OutcomeStatus, UnitReport, WorkUnit, lanes

LOG = logging.getLogger(__name__)
TICK_SECONDS = 0.25
MAX_LONE_DEATHS = 2  # a case is guilty when it dies alone twice
MAX_STILLBORN = 3  # actors in a row that die before they take any work: the environment is broken, not a case
MEMORY_SHARE = 0.85  # of a machine's memory for the actors on it together; the rest is the system's and Ray's
ASK_AHEAD = 2  # actors asked for beyond the cluster's room: what an autoscaler needs to see to add a node


class FactoryError(CtmrError):
    """The factory itself cannot run: actors do not start, or the storage gives up."""


@dataclass(frozen=True)
class Crew:
    """How many actors, and what each gets.

    workers: at most; None: as many as the cluster has room for, now and later. memory_per_worker: bytes reserved for an
    actor, and the resident memory above which it is replaced after its unit; 0: an even share of its machine, none reserved.
    case_timeout: seconds after which an attempt at a case counts as hanging. node_timeout: seconds without a node that has
    room for even one actor. unit_size: cases per unit; None goes by what cases cost.
    """

    workers: int | None
    settings: ActorSettings
    gpus_per_worker: float = 0.0
    memory_per_worker: int = 0
    case_timeout: float = 3600.0
    stop_timeout: float = 120.0
    node_timeout: float = 600.0
    unit_size: int | None = None

    @property
    def need(self) -> Need:
        """What Ray reserves for one actor."""
        return Need(self.settings.threads, self.gpus_per_worker, self.memory_per_worker)


@dataclass(frozen=True)
class Ledger:
    """What the driver needs of the dataset: the committed status of a case (None if it has none), whether a failure of it is on
    record, and quarantine.
    """

    decided: Callable[[Case], OutcomeStatus | None]
    quarantine: Callable[[Case, str], None]
    has_failed: Callable[[Case], bool] = lambda _: False


class Driver:
    """Makes streams of cases with a crew of actors. One driver serves all waves of a run."""

    def __init__(
        self, crew: Crew, ledger: Ledger, tally: Tally, observer: Observer, stopping: Callable[[], bool] = lambda: False
    ) -> None:
        self._crew, self._ledger, self._tally, self._observer = crew, ledger, tally, observer
        self._stopping = stopping
        self._nodes = Nodes(crew.need)
        self._slots: list[Slot] = []
        self._costs = Costs()
        self._copies = Copies(self._costs)
        self._source = UnitSource((), 0, self._costs)
        self._after = 0
        self._suspects: deque[WorkUnit] = deque()
        self._waiting: deque[WorkUnit] = deque()  # given back by a dead actor
        self._lone_deaths: Counter[str] = Counter()
        self._stillborn = 0
        self._roomless_since: float | None = None
        self._stop_deadline: float | None = None
        self._next_look = 0.0

    def run(self, cases: Iterable[Case], count: int, after: int = 0) -> None:
        """Make ``count`` cases. after: cases of later calls.

        With none to come, returns when each case is reported, abandoned by a stop, or quarantined; otherwise as soon as all are
        handed out, so that the actors go on while the next wave begins.
        """
        self._source = UnitSource(cases, count, self._costs, self._crew.unit_size)
        self._after = after
        while True:
            self._watch_for_stop()
            if not self._halting:
                self._staff()
                self._hand_out()
                if after and not self._has_work():
                    return
            refs = [flight.ref for slot in self._slots for flight in slot.flights]
            if refs:
                self._collect(ray.wait(refs, num_returns=1, timeout=TICK_SECONDS)[0])
            elif self._halting or not self._has_work():
                break
            else:
                time.sleep(TICK_SECONDS)  # the actors are starting
            if time.monotonic() >= self._next_look:
                self._look()
        self._look()

    def close(self) -> None:
        """End every actor."""
        for slot in self._slots:
            self._end(slot, lambda slot: slot.close(timeout=10.0))

    @property
    def _halting(self) -> bool:
        return self._tally.interrupted or self._tally.halt is not None

    @property
    def _staffed(self) -> list[Slot]:
        return [slot for slot in self._slots if slot.actor is not None]

    def _staff(self) -> None:
        """Start actors while there is work for more of them and room in the cluster."""
        room = self._nodes.room()
        self._watch_room(room)
        most = room if self._crew.workers is None else min(self._crew.workers, room + ASK_AHEAD)
        work = len(self._suspects) + len(self._waiting) + self._source.left
        idle = sum(not slot.flights for slot in self._staffed)
        for _ in range(min(most - len(self._staffed), work - idle)):
            slot = next((slot for slot in self._slots if slot.actor is None), None)
            if slot is None:
                slot = Slot(len(self._slots), self._crew.settings, self._crew.need)
                self._slots.append(slot)
            slot.spawn(avoid=self._nodes.refused)

    def _watch_room(self, room: int) -> None:
        """Refuse to wait for ever for a node that can hold an actor."""
        if room or any(slot.ready for slot in self._slots):
            self._roomless_since = None
            return
        if self._nodes.refused:
            raise FactoryError("\n".join(["no node can work on this dataset", *sorted(set(self._nodes.refused.values()))]))
        self._roomless_since = self._roomless_since or time.monotonic()
        if time.monotonic() - self._roomless_since > self._crew.node_timeout:
            raise FactoryError(
                f"no node of the cluster has room for an actor, and none came for {self._crew.node_timeout:.0f} s",
                found=self._nodes.describe(),
                allowed=f"a node with {self._crew.need}",
                fix="ask for less with --threads, --gpus-per-worker, --memory-per-worker, or add a node that has it",
            )

    def _hand_out(self) -> None:
        """Fill the free places of the actors."""
        for prefetch in (False, True):  # everybody gets one unit before anybody gets a second
            if prefetch and (self._suspects or self._near_the_end):
                break  # suspects need an empty actor; near the end a prefetched unit would wait while others idle
            for slot in self._slots:
                while slot.ready and slot.has_room(prefetch):
                    unit = self._next(slot)
                    if unit is None:
                        return
                    slot.give(unit)

    @property
    def _near_the_end(self) -> bool:
        waiting = self._source.left + self._after + sum(len(unit.cases) for unit in self._waiting)
        return waiting <= len(self._staffed)

    def _has_work(self) -> bool:
        """Whether any unit waits to be handed out."""
        return bool(self._suspects or self._waiting) or self._source.has_more()

    def _next(self, slot: Slot) -> WorkUnit | None:
        if self._suspects and not slot.flights:
            return self._suspects.popleft()
        if self._waiting:
            return self._waiting.popleft()
        return self._source.cut(len(self._staffed), self._after)

    def _collect(self, refs: list[object]) -> None:
        for ref in refs:
            found = [(slot, flight) for slot in self._slots for flight in slot.flights if flight.ref == ref]
            for slot, flight in found:
                self._receive(slot, flight)

    def _receive(self, slot: Slot, flight: Flight) -> None:
        try:
            report = slot.take(flight)
        except DEATHS as death:
            self._bury(slot, _first_line(death))
            return
        except ray.exceptions.RayTaskError as error:  # the unit raised outside its cases: its actor is not to be trusted
            LOG.warning("a unit raised: %s", error)
            self._bury(slot, _last_line(error))
            return
        self._stillborn = 0
        self._count(flight.unit, report)
        for loser in self._copies.settled_by(flight, self._slots):
            self._drop(*loser)
        if report.halt and self._tally.halt is None:
            self._tally.halt = report.halt
            self._ask_all_to_stop()

    def _count(self, unit: WorkUnit, report: UnitReport) -> None:
        cases = {case.case_id: case for case in unit.cases}
        self._tally.stages["seal"] += report.seal_seconds
        for outcome in report.outcomes:
            self._costs.learn(cases[outcome.case_id], outcome.pace)
            self._count_one(cases[outcome.case_id], outcome)

    def _count_one(self, case: Case, outcome: CaseOutcome) -> None:
        before = self._copies.counted(case, outcome.status)
        if before is None:
            self._tally.add(case, outcome)
        elif before == "failed" != outcome.status:
            self._tally.correct(before, outcome)

    def _drop(self, slot: Slot, flight: Flight) -> None:
        """End the actor whose unit another actor has finished meanwhile; what else it held is handed out again."""
        others = [other for other in slot.flights if other is not flight]
        self._end(slot, Slot.lose_all)
        self._count_decided(flight.unit)
        self._waiting.extend(other.unit for other in others)

    def _bury(self, slot: Slot, cause: str, culprit: str = "") -> None:
        """Sort the cases of a dead actor: decided, suspect, or innocent (never begun, or not the ``culprit``)."""
        gone = slot.place is not None and self._nodes.is_gone(slot.place.node_id)
        self._tally.events["deaths"] += 1
        LOG.warning("actor %d ended: %s", slot.index, cause)
        flights = slot.flights.copy()
        self._end(slot, Slot.lose_all)
        # cases it can have begun and not decided: one rendered, the others being finished
        in_hand = 1 + max((lanes(case) for flight in flights for case in flight.unit.cases), default=0)
        for flight in flights:
            innocent = []
            for case in self._count_decided(flight.unit):
                if self._copies.flies_elsewhere(case, self._slots):
                    continue
                if gone or (culprit and case.case_id != culprit) or in_hand <= 0:
                    innocent.append(case)
                    continue
                in_hand -= not self._ledger.has_failed(case)
                alone = bool(culprit) or flight.unit.alone or (len(flights) == 1 == len(flight.unit.cases))
                self._accuse(case, alone=alone, cause=cause)
            if innocent:
                self._waiting.append(WorkUnit(tuple(innocent), flight.unit.alone))

    def _count_decided(self, unit: WorkUnit) -> list[Case]:
        """Count the cases whose commit outlived their actor; returns the others."""
        open_cases = []
        for case in unit.cases:
            status = self._ledger.decided(case)
            if status is None:
                open_cases.append(case)
            else:
                self._count_one(case, CaseOutcome(case.case_id, status, 1, 0.0))
        return open_cases

    def _accuse(self, case: Case, *, alone: bool, cause: str) -> None:
        if alone:
            self._lone_deaths[case.key] += 1
        if self._lone_deaths[case.key] >= MAX_LONE_DEATHS:
            reason = f"ended its process {MAX_LONE_DEATHS} times while alone in it ({cause})"
            self._ledger.quarantine(case, reason)
            self._tally.quarantine(case.case_id, reason)
            return
        self._suspects.append(WorkUnit((case,), alone=True))

    def _look(self) -> None:
        """What is done a few times a second, however fast units come in."""
        self._next_look = time.monotonic() + TICK_SECONDS
        for slot in self._staffed:
            self._watch(slot)
        if not self._halting and not self._has_work() and not self._after:
            self._start_second_copies()
        ready = [slot for slot in self._slots if slot.ready]
        self._tally.most_workers = max(self._tally.most_workers, len(ready))
        self._tally.hosts.update(slot.place.node_id for slot in ready if slot.place is not None)
        unreported: Counter[str] = Counter()
        for slot in ready:
            unreported.update(slot.finished)
        message = "stopping: finishing the cases at hand" if self._halting else self._waiting_for_nodes()
        self._observer(self._tally.progress({slot.index: slot.status for slot in self._staffed}, unreported, message))

    def _waiting_for_nodes(self) -> str:
        return "" if self._roomless_since is None else f"waiting for a node with {self._crew.need}"

    def _watch(self, slot: Slot) -> None:
        was_ready = slot.ready
        try:
            slot.poll()
        except DEATHS as death:
            self._count_stillborn(slot, _first_line(death))
            return
        if slot.place is None:
            return
        if slot.place.refusal:
            self._refuse_node(slot, slot.place.node_id, slot.place.refusal)
            return
        if not was_ready:
            LOG.info("actor %d works on %s", slot.index, slot.place.host)
        self._watch_memory(slot)
        self._watch_time(slot)

    def _watch_memory(self, slot: Slot) -> None:
        """An actor that outgrew its share gets no more work, and a fresh one takes its place."""
        assert slot.place is not None  # noqa: S101
        beside = sum(other.place is not None and other.place.node_id == slot.place.node_id for other in self._slots)
        limit = self._crew.memory_per_worker or MEMORY_SHARE * slot.place.memory_bytes / max(beside, 1)
        if slot.status.rss_bytes > limit and slot.cases:
            slot.retiring = True
        if slot.retiring and not slot.flights and self._has_work():
            LOG.warning("actor %d holds %.1f GB, more than %.1f: replaced", slot.index, slot.status.rss_bytes / 1e9, limit / 1e9)
            self._tally.events["replaced"] += 1
            self._end(slot, lambda slot: slot.close(timeout=10.0))

    def _watch_time(self, slot: Slot) -> None:
        """End an actor that hangs: in an attempt at a case, or without an answer to anything."""
        timeout = self._crew.case_timeout
        if not slot.flights:
            return
        if slot.status.oldest_case and slot.status.oldest_seconds > timeout:
            seconds, culprit = slot.status.oldest_seconds, slot.status.oldest_case
            self._bury(slot, f"no result after {seconds:.0f} s (case_timeout {timeout:.0f} s)", culprit)
        elif time.monotonic() - slot.heard > timeout:
            self._bury(slot, f"no result and no sign of life for {timeout:.0f} s (case_timeout)")

    def _refuse_node(self, slot: Slot, node_id: str, refusal: str) -> None:
        """Use a node no more whose actors can't work; raise when there is no other."""
        slot.kill()
        self._nodes.refused[node_id] = refusal
        self._tally.warning = refusal.splitlines()[0]
        LOG.error("a node is left out: %s", refusal)

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

    def _start_second_copies(self) -> None:
        """At the end, start what takes too long a second time on actors that have nothing to do."""
        idle = [slot for slot in self._slots if slot.ready and not slot.flights and not slot.retiring]
        for flight in self._copies.stragglers(self._slots)[: len(idle)]:
            open_cases = [case for case in flight.unit.cases if self._ledger.decided(case) is None]
            if open_cases:
                self._tally.events["second_copies"] += 1
                self._copies.begin(flight, open_cases)
                idle.pop().give(WorkUnit(tuple(open_cases)), second_copy=True)

    def _end(self, slot: Slot, deed: Callable[[Slot], object]) -> None:
        """Do what ends the actor of ``slot``, and keep account of it."""
        place, status, cases = slot.place, slot.status, slot.cases
        deed(slot)
        if place is not None:
            self._tally.worker_ended(place.host, cases, time.monotonic() - slot.began, status)

    def _watch_for_stop(self) -> None:
        if self._stopping() and not self._tally.interrupted:
            self._tally.interrupted = True
            self._ask_all_to_stop()
        if self._stop_deadline is not None and time.monotonic() > self._stop_deadline:
            for slot in self._slots:
                self._end(slot, Slot.lose_all)

    def _ask_all_to_stop(self) -> None:
        self._stop_deadline = time.monotonic() + self._crew.stop_timeout
        for slot in self._slots:
            with contextlib.suppress(*DEATHS):
                slot.ask_to_stop()


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1]
