"""Prefect events of a run, for automations: notify, call a web hook, start what comes next.

The resource is the dataset: ``ctmr.dataset.<name>``. Events: ``ctmr.run.started``, ``ctmr.run.finished`` (every case has an
outcome and none failed), ``ctmr.run.failed`` (stopped, halted, or cases failed) and ``ctmr.case.quarantined``.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Any, Literal

from ctmr_core.cases.case import Case
from pipelines.factory.logs import without_secrets
from pipelines.flows.options import RunSummary

LOG = logging.getLogger(__name__)
Quarantine = Callable[[Case, str], None]
RunEvent = Literal["ctmr.run.started", "ctmr.run.finished", "ctmr.run.failed", "ctmr.case.quarantined"]
MAX_QUARANTINE_EVENTS = 20  # a broken node can lose thousands of cases; the summary tells the number


def dataset_resource(dataset: str) -> dict[str, str]:
    """The dataset as a Prefect resource: an id of safe characters, and the address without credentials."""
    uri = without_secrets(dataset)
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", uri.split("://")[-1]).strip("-")
    return {"prefect.resource.id": f"ctmr.dataset.{name}", "prefect.resource.name": uri, "prefect.resource.role": "dataset"}


def emit_run_event(event: RunEvent, dataset: str, payload: dict[str, Any]) -> None:
    """Emit one event. Prefect sends it in the background; a server that does not answer never stops a run."""
    from prefect.events import emit_event

    emit_event(event=event, resource=dataset_resource(dataset), payload=payload)


def announced(dataset: str, quarantine: Quarantine) -> Quarantine:
    """``quarantine``, followed by a log line and an event (for the first cases of a run)."""
    lost = 0

    def quarantine_and_tell(case: Case, reason: str) -> None:
        nonlocal lost
        quarantine(case, reason)
        lost += 1
        fields = {"case_id": case.case_id, "case_key": case.key, "reason": without_secrets(reason)}
        LOG.error("case quarantined", extra={**fields, "outcome": "quarantined"})
        if lost <= MAX_QUARANTINE_EVENTS:
            emit_run_event("ctmr.case.quarantined", dataset, fields)

    return quarantine_and_tell


def emit_end(summary: RunSummary) -> None:
    """Emit how the run ended."""
    well = summary.complete and not summary.failed and not summary.quarantined
    counts = summary.model_dump(exclude={"problems", "skipped_rows", "dataset"})
    emit_run_event("ctmr.run.finished" if well else "ctmr.run.failed", summary.dataset, counts)
