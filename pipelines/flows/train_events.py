"""Prefect events of a training, for automations.

The resource is the run folder: ``ctmr.training.<name>``. Events: ``ctmr.training.started``, ``ctmr.training.finished`` (all
steps, or all minutes), ``ctmr.training.stopped`` (asked to, with a checkpoint) and ``ctmr.training.failed``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

TrainingEvent = Literal["ctmr.training.started", "ctmr.training.finished", "ctmr.training.stopped", "ctmr.training.failed"]


def training_resource(folder: Path) -> dict[str, str]:
    """The run folder as a Prefect resource, with an id of safe characters."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", str(folder)).strip("-")
    return {
        "prefect.resource.id": f"ctmr.training.{name}",
        "prefect.resource.name": str(folder),
        "prefect.resource.role": "training",
    }


def emit_training_event(event: TrainingEvent, folder: Path, payload: dict[str, Any]) -> None:
    """Emit one event. Prefect sends it in the background; a server that does not answer never stops a training."""
    from prefect.events import emit_event

    emit_event(event=event, resource=training_resource(folder), payload=payload)
