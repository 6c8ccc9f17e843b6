"""The production line in one process: everything a run does to a dataset, without Ray and Prefect, in about a second."""

from __future__ import annotations

import threading

from pipelines.factory.production import Workshop
from pipelines.factory.work import ActorSettings, in_units
from pipelines.flows.options import GenerateOptions
from pipelines.flows.preparation import prepare

UNIT_SIZE = 2


class HaltError(RuntimeError):
    """The line stopped, as the driver would, because the storage gave up."""


def make(manifest: str, dataset: str) -> None:
    """Make what ``dataset`` lacks of ``manifest``; two cases to a unit, sealed and merged at the end."""
    with prepare(GenerateOptions(manifest=manifest, dataset=dataset)) as backlog:
        workshop = Workshop(ActorSettings(dataset=dataset))
        try:
            for unit in in_units(backlog.cases(), UNIT_SIZE):
                report = workshop.make_unit(unit, threading.Event())
                if report.halt:
                    raise HaltError(report.halt)
        finally:
            workshop.close()
        backlog.seal()
