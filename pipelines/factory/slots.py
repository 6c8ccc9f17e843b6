"""One actor and the work it holds."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import ray

from pipelines.factory.actor import CaseMakerActor
from pipelines.factory.work import ActorPlace, ActorSettings, ActorStatus, UnitReport, WorkUnit

IN_FLIGHT = 2  # one unit running, one prefetched: the actor never waits, and a death costs little
#: What Ray raises when an actor's process, its node, or the way to it is gone. An OOM kill is no RayActorError in Ray.
DEATHS = (
    ray.exceptions.RayActorError,
    ray.exceptions.OutOfMemoryError,
    ray.exceptions.NodeDiedError,
    ray.exceptions.WorkerCrashedError,
)


@dataclass(frozen=True)
class Need:
    """What Ray reserves for one actor. memory_bytes: 0 reserves none."""

    cpus: float
    gpus: float = 0.0
    memory_bytes: int = 0

    def fits(self, resources: dict[str, float]) -> int:
        """How many such actors have room in ``resources`` (as Ray counts them)."""
        wanted = {"CPU": self.cpus, "GPU": self.gpus, "memory": float(self.memory_bytes)}
        return min((int(resources.get(name, 0.0) / amount + 1e-9) for name, amount in wanted.items() if amount > 0), default=0)

    def __str__(self) -> str:
        parts = [f"{self.cpus:g} CPU", f"{self.gpus:g} GPU" if self.gpus else ""]
        return ", ".join([*filter(None, parts), *([f"{self.memory_bytes / 1e9:.1f} GB of memory"] if self.memory_bytes else [])])


@dataclass
class Flight:
    """A unit that was handed to an actor and has not come back. ``second_copy``: of a unit that takes too long elsewhere."""

    ref: Any
    unit: WorkUnit
    began: float = field(default_factory=time.monotonic)
    second_copy: bool = False


@dataclass
class Slot:
    """A place for one actor: the actor, its units in flight in order, and its last known status.

    heard: when the actor last answered. began: when its process did. cases: reported by it. retiring: it holds too much memory
    and gets no more work.
    """

    index: int
    settings: ActorSettings
    need: Need
    actor: Any = None
    flights: deque[Flight] = field(default_factory=deque)
    status: ActorStatus = field(default_factory=ActorStatus)
    place: ActorPlace | None = None
    heard: float = 0.0
    began: float = 0.0
    cases: int = 0
    retiring: bool = False
    _turns: int = 0
    _ready_ref: Any = None
    _status_ref: Any = None

    @property
    def ready(self) -> bool:
        return self.place is not None

    def spawn(self, avoid: Iterable[str] = ()) -> None:
        """Start a fresh actor in this place, on any node but those of ``avoid`` (Ray's node ids)."""
        options: dict[str, Any] = {"num_cpus": self.need.cpus, "num_gpus": self.need.gpus, "scheduling_strategy": "SPREAD"}
        if self.need.memory_bytes:
            options["memory"] = self.need.memory_bytes
        if nodes := sorted(avoid):
            options["label_selector"] = {"ray.io/node-id": f"!in({','.join(nodes)})"}
        self.actor = CaseMakerActor.options(**options).remote(self.settings)
        self.place, self.retiring, self._turns, self.cases = None, False, 0, 0
        self._ready_ref, self._status_ref = self.actor.ready.remote(), None
        self.status = ActorStatus()

    def give(self, unit: WorkUnit, *, second_copy: bool = False) -> None:
        self.flights.append(Flight(self.actor.make.remote(unit, self._turns), unit, second_copy=second_copy))
        self._turns += 1

    def has_room(self, prefetch: bool) -> bool:
        """Whether the slot can take another unit; a lone suspect never shares its actor with prefetched work."""
        if self.retiring or any(flight.unit.alone for flight in self.flights):
            return False
        return len(self.flights) < (IN_FLIGHT if prefetch else 1)

    def take(self, flight: Flight) -> UnitReport:
        """The report of ``flight``; raises what Ray raises when the actor died, or the error of an actor that lost its way."""
        report: UnitReport = ray.get(flight.ref)
        self.flights.remove(flight)
        self.cases += len(report.outcomes)
        if self.flights:
            self.flights[0].began = time.monotonic()
        return report

    def poll(self) -> None:
        """Read the status if the actor has answered, and ask again; never waits.

        Raises Ray's error when the actor died before it was ready; a later death shows on its units.
        """
        if self.place is None:
            self.place = self._answered(self._ready_ref)
            if self.place is not None:
                self.heard = time.monotonic()
                self.began = self.heard - self.place.starting_seconds
            return
        try:
            if self._status_ref is not None:
                status = self._answered(self._status_ref)
                if status is None:
                    return
                self.status, self.heard = status, time.monotonic()
            self._status_ref = self.actor.status.remote()
        except DEATHS:
            self._status_ref = None

    @staticmethod
    def _answered(ref: Any) -> Any:
        done, _ = ray.wait([ref], timeout=0)
        return ray.get(done[0]) if done else None

    @property
    def finished(self) -> dict[str, int]:
        """Status -> cases decided in units that are not reported yet; second copies left out."""
        counts: dict[str, int] = {}
        for flight in self.flights:
            if not flight.second_copy:
                for status, cases in self.status.finished.get(flight.unit.id, {}).items():
                    counts[status] = counts.get(status, 0) + cases
        return counts

    def ask_to_stop(self) -> None:
        if self.actor is not None:
            self.actor.stop.remote()

    def lose_all(self) -> list[Flight]:
        """Give up the dead actor; returns its flights in the order they were handed out."""
        flights = list(self.flights)
        self.flights.clear()
        self.kill()
        return flights

    def kill(self) -> None:
        if self.actor is not None:
            ray.kill(self.actor, no_restart=True)
            self.actor, self.place = None, None

    def close(self, timeout: float) -> None:
        """Let the actor release what it holds, then end its process."""
        if self.place is not None:
            with contextlib.suppress(*DEATHS, ray.exceptions.GetTimeoutError):  # it is being ended anyway
                ray.get(self.actor.close.remote(), timeout=timeout)
        self.kill()
