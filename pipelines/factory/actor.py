"""The Ray actor: takes work units, makes their cases, commits them itself and sends small reports back."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import replace
from typing import Any

import ray

from pipelines.factory.work import ActorSettings, ActorStatus, CaseOutcome, UnitReport, WorkUnit


class CaseMaker:
    """One worker process with warm engines.

    Calls of the group ``work`` run one after the other; ``status`` and ``stop`` answer while a unit is being made.
    """

    def __init__(self, settings: ActorSettings) -> None:
        if settings.device == "cpu":
            os.environ["CUDA_VISIBLE_DEVICES"] = ""  # a CPU actor must not take memory on a GPU it happens to see
        # The heavy imports wait for the process that needs them, and for the line above.
        from pipelines.factory.production import Workshop
        from pipelines.factory.watcher import actor_watcher

        self._lock = threading.Lock()
        self._status = ActorStatus(stage="idle")
        self._since = time.monotonic()
        self._unit_id = ""
        self._outcomes: list[CaseOutcome] = []
        self._stopping = threading.Event()
        self._watcher = actor_watcher(settings, ray.get_runtime_context().get_actor_id() or "")
        self._workshop = Workshop(settings, self._enter, self._watcher)

    @ray.method(concurrency_group="control")
    def ready(self) -> int:
        """The process id, once the actor is up."""
        return os.getpid()

    @ray.method(concurrency_group="control")
    def status(self) -> ActorStatus:
        """What the actor is doing at this moment."""
        with self._lock:
            return replace(
                self._status, seconds=time.monotonic() - self._since, unit_id=self._unit_id, outcomes=tuple(self._outcomes)
            )

    @ray.method(concurrency_group="control")
    def stop(self) -> None:
        """Finish the case at hand and take no more."""
        self._stopping.set()

    @ray.method(concurrency_group="work")
    def make(self, unit: WorkUnit) -> UnitReport:
        """Make every case of the unit; seal what was committed."""
        self._cases = {case.case_id: case for case in unit.cases}
        with self._lock:
            self._unit_id, self._outcomes = unit.id, []
        try:
            return self._workshop.make_unit(unit, self._stopping, self._finished)
        finally:
            with self._lock:
                self._status, self._since = ActorStatus(stage="idle"), time.monotonic()

    @ray.method(concurrency_group="work")
    def close(self) -> None:
        """Release engines and device memory before the process ends."""
        self._workshop.close()

    def _enter(self, case_id: str, stage: str, attempt: int) -> None:
        with self._lock:
            if case_id != self._status.case_id:
                self._since = time.monotonic()
            self._status = ActorStatus(case_id, stage, attempt)

    def _finished(self, outcome: CaseOutcome) -> None:
        self._watcher.outcome(self._cases[outcome.case_id], outcome)
        with self._lock:
            self._outcomes.append(outcome)


#: Ray never restarts the actor and never repeats a call: the driver decides what runs again.
_OPTIONS: Any = {"max_restarts": 0, "max_task_retries": 0, "concurrency_groups": {"work": 1, "control": 2}}
CaseMakerActor: Any = ray.remote(**_OPTIONS)(CaseMaker)
