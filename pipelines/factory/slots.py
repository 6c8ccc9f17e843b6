"""One actor and the work it holds."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any

import ray

from pipelines.factory.actor import CaseMakerActor
from pipelines.factory.work import ActorSettings, ActorStatus, UnitReport, WorkUnit

IN_FLIGHT = 2  # one unit running, one prefetched: the actor never waits, and a death costs little


@dataclass
class Flight:
    """A unit that was handed to an actor and has not come back."""

    ref: Any
    unit: WorkUnit


@dataclass
class Slot:
    """A place for one actor: the actor, its units in flight in order, and its last known status."""

    index: int
    settings: ActorSettings
    gpus: float = 0.0
    actor: Any = None
    flights: deque[Flight] = field(default_factory=deque)
    status: ActorStatus = field(default_factory=ActorStatus)
    _ready_ref: Any = None
    _status_ref: Any = None
    ready: bool = False
    heard: float = field(default_factory=time.monotonic)  # when the actor last answered
    born: float = field(default_factory=time.monotonic)

    def spawn(self) -> None:
        """Start a fresh actor in this place."""
        self.actor = CaseMakerActor.options(
            num_cpus=self.settings.threads, num_gpus=self.gpus, scheduling_strategy="SPREAD"
        ).remote(self.settings)
        self.ready, self.born = False, time.monotonic()
        self.heard = self.born
        self._ready_ref, self._status_ref = self.actor.ready.remote(), None
        self.status = ActorStatus()

    def give(self, unit: WorkUnit) -> None:
        self.flights.append(Flight(self.actor.make.remote(unit), unit))

    def has_room(self, prefetch: bool) -> bool:
        """Whether the slot can take another unit; a lone suspect never shares its actor with prefetched work."""
        if any(flight.unit.alone for flight in self.flights):
            return False
        return len(self.flights) < (IN_FLIGHT if prefetch else 1)

    def take(self, ref: Any) -> tuple[WorkUnit, UnitReport]:
        """The report behind ``ref``; raises what Ray raises when the actor died."""
        flight = next(flight for flight in self.flights if flight.ref == ref)
        report: UnitReport = ray.get(ref)
        self.flights.remove(flight)
        self.status = replace(self.status, outcomes=())
        return flight.unit, report

    def poll(self) -> None:
        """Read the status if the actor has answered, and ask again; never waits.

        Raises Ray's error when the actor died before it was ready; a later death shows on its units.
        """
        if not self.ready:
            self.ready = bool(self._answered(self._ready_ref))
            self.heard = time.monotonic()
            return
        try:
            if self._status_ref is not None:
                status = self._answered(self._status_ref)
                if status is None:
                    return
                self.heard = time.monotonic()
                flying = {flight.unit.id for flight in self.flights}
                self.status = status if status.unit_id in flying else replace(status, outcomes=())
            self._status_ref = self.actor.status.remote()
        except ray.exceptions.RayActorError:
            self._status_ref = None

    @property
    def seconds_in_case(self) -> float:
        """How long the actor has been at its case, or silent: a process that stands still does not answer either."""
        silence = time.monotonic() - self.heard
        return self.status.seconds + silence if self.status.case_id else silence

    @staticmethod
    def _answered(ref: Any) -> Any:
        done, _ = ray.wait([ref], timeout=0)
        return ray.get(done[0]) if done else None

    def ask_to_stop(self) -> None:
        if self.actor is not None:
            self.actor.stop.remote()

    def lose_all(self) -> list[WorkUnit]:
        """Give up the dead actor; returns its units in the order they were handed out."""
        units = [flight.unit for flight in self.flights]
        self.flights.clear()
        self.kill()
        return units

    def kill(self) -> None:
        if self.actor is not None:
            ray.kill(self.actor, no_restart=True)
            self.actor, self.ready = None, False

    def close(self, timeout: float) -> None:
        """Let the actor release what it holds, then end its process."""
        if self.actor is None:
            return
        with contextlib.suppress(ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError):  # it is being ended anyway
            ray.get(self.actor.close.remote(), timeout=timeout)
        self.kill()
