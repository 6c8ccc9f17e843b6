"""Who is told what happens inside an actor: the log and the metrics."""

from __future__ import annotations

import logging

from ctmr_core.cases.case import Case
from pipelines.factory.logs import configure_logging, log_format, log_level, without_secrets
from pipelines.factory.metrics import ActorMeter
from pipelines.factory.work import ActorSettings, CaseOutcome

LOG = logging.getLogger(__name__)


class Watcher:
    """Hears of every stage, attempt and outcome; this one keeps silent. Called from the rendering and the writing thread."""

    def stage(self, case: Case, attempt: int, stage: str, seconds: float) -> None:
        """``stage`` (body, render, check, write) of an attempt is done."""

    def attempt(self, case: Case, attempt: int, result: str, reason: str = "", written: int = 0) -> None:
        """An attempt ended: ``accepted``, ``rejected`` (by the checks) or ``failed`` (it raised). written: bytes committed."""

    def storage_retry(self) -> None:
        """A write failed and is tried again."""

    def outcome(self, case: Case, outcome: CaseOutcome) -> None:
        """The case is decided."""


class ActorWatcher(Watcher):
    """Logs and counts."""

    def __init__(self, meter: ActorMeter) -> None:
        self._meter = meter

    def stage(self, case: Case, attempt: int, stage: str, seconds: float) -> None:
        self._meter.stage(case.engine, stage, seconds)
        LOG.debug("stage done", extra={**_of(case), "attempt": attempt, "stage": stage, "seconds": round(seconds, 3)})

    def attempt(self, case: Case, attempt: int, result: str, reason: str = "", written: int = 0) -> None:
        self._meter.attempt(case.engine, result)
        self._meter.written(case.engine, written)
        if result != "accepted":
            LOG.warning("attempt %s", result, extra={**_of(case), "attempt": attempt, "outcome": result, "reason": reason})

    def storage_retry(self) -> None:
        self._meter.storage_retry()

    def outcome(self, case: Case, outcome: CaseOutcome) -> None:
        LOG.info(
            "case %s",
            outcome.status,
            extra={
                **_of(case),
                "attempt": outcome.attempts - 1,
                "outcome": outcome.status,
                "seconds": round(outcome.seconds, 3),
                "reason": outcome.reason,
            },
        )


def actor_watcher(settings: ActorSettings, actor_id: str) -> ActorWatcher:
    """Set up the log of this actor's process and its metrics. ``actor_id``: Ray's; its first 8 digits name the actor."""
    dataset, actor = without_secrets(settings.dataset), actor_id[:8]
    context = {"run_id": settings.run_id, "dataset": dataset, "actor": actor}
    configure_logging(log_format(settings.log_format), context, level=log_level("INFO"))
    return ActorWatcher(ActorMeter(dataset, actor))


def _of(case: Case) -> dict[str, str]:
    return {"case_id": case.case_id, "case_key": case.key, "engine": case.engine}
