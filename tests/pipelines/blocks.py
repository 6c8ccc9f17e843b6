"""Cases that cost next to nothing, and a dataset made of them in this process, undisturbed."""

from __future__ import annotations

import threading
from pathlib import Path

from ctmr_core.cases.case import Case
from ctmr_core.quality.registry import check_names
from ctmr_core.store import Dataset, verify
from pipelines.factory.production import Workshop
from pipelines.factory.work import ActorSettings, WorkUnit
from pipelines.flows.options import GenerateOptions
from pipelines.flows.preparation import prepare

#: Boxes are no patients: only the checks of form are asked.
NO_ANATOMY = {name: False for name in check_names() if name not in ("geometry", "labels", "finite", "constant", "clipped")}


def blocks_case(number: int, seconds: float = 0.0, **changes: object) -> Case:
    fields: dict[str, object] = {
        "case_id": f"case-{number:03d}",
        "body": "generated:blocks",
        "body_seed": number,
        "sequences": ("ct",),
        "size": (16, 16, 16),
        "spacing": (4.0, 4.0, 4.0),
        "engine": "blocks",
        "engine_parameters": {"seconds": seconds} if seconds else {},
        "checks": NO_ANATOMY,
    }
    return Case.model_validate(fields | changes)


def undisturbed_digest(manifest: Path, dataset: Path) -> str:
    """The digest of the dataset that one worker makes of the manifest in one unit."""
    with prepare(GenerateOptions(manifest=str(manifest), dataset=str(dataset))) as backlog:
        workshop = Workshop(ActorSettings(dataset=str(dataset)))
        workshop.make_unit(WorkUnit(tuple(backlog.cases())), threading.Event())
        workshop.close()
        backlog.seal()
    return digest_of(dataset)


def digest_of(dataset: Path) -> str:
    report = verify(Dataset.open(dataset))
    assert not report.problems
    return report.digest
