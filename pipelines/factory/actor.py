"""The Ray actor: takes work units, makes their cases, commits them itself and sends small reports back."""

from __future__ import annotations

import os
import socket
import threading
import time
from typing import Any

import ray

from ctmr_core.errors import CtmrError
from pipelines.factory.work import ActorPlace, ActorSettings, ActorStatus, UnitReport, WorkUnit


class CaseMaker:
    """One worker process with warm engines.

    Two calls of the group ``work`` may run: the second renders while the last case of the first is finished (see ``Turns``).
    ``ready``, ``status`` and ``stop`` answer while units are being made.
    """

    def __init__(self, settings: ActorSettings) -> None:
        self._born = time.monotonic()
        if settings.device == "cpu":
            os.environ["CUDA_VISIBLE_DEVICES"] = ""  # a CPU actor must not take memory on a GPU it happens to see
        # The heavy imports wait for the process that needs them, and for the line above.
        from pipelines.factory.activity import Activity
        from pipelines.factory.production import Workshop
        from pipelines.factory.watcher import actor_watcher

        self._activity = Activity()
        self._stopping = threading.Event()
        self._workshop: Workshop | None = None
        self._refusal = ""
        try:
            watcher = actor_watcher(settings, ray.get_runtime_context().get_actor_id() or "")
            self._workshop = Workshop(settings, self._activity, watcher)
        except (CtmrError, OSError) as error:  # told through ``ready``: an error raised here would reach nobody as it is
            self._refusal = str(error)

    @ray.method(concurrency_group="control")
    def ready(self) -> ActorPlace:
        """Where the actor runs, once it is up, and whether it can work there."""
        from pipelines.factory.activity import memory_of_machine

        node = ray.get_runtime_context().get_node_id()
        seconds = time.monotonic() - self._born
        return ActorPlace(os.getpid(), socket.gethostname(), node, memory_of_machine(), seconds, self._refusal)

    @ray.method(concurrency_group="control")
    def status(self) -> ActorStatus:
        """What the actor is doing at this moment."""
        return self._activity.status()

    @ray.method(concurrency_group="control")
    def stop(self) -> None:
        """Finish the case at hand and take no more."""
        self._stopping.set()

    @ray.method(concurrency_group="work")
    def make(self, unit: WorkUnit, turn: int) -> UnitReport:
        """Make every case of the unit; seal what was committed. ``turn``: how many units the actor was given before."""
        if self._workshop is None:
            return UnitReport(unit.id, (), abandoned=unit.cases, halt=self._refusal)
        return self._workshop.make_unit(unit, self._stopping, turn)

    @ray.method(concurrency_group="work")
    def close(self) -> None:
        """Release engines and device memory before the process ends."""
        if self._workshop is not None:
            self._workshop.close()


#: Ray never restarts the actor and never repeats a call: the driver decides what runs again.
_OPTIONS: Any = {"max_restarts": 0, "max_task_retries": 0, "concurrency_groups": {"work": 2, "control": 2}}
CaseMakerActor: Any = ray.remote(**_OPTIONS)(CaseMaker)
