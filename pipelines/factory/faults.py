"""Failure drills for cases: make chosen attempts at chosen cases fail, to see that a factory survives it.

``CTMR_FAULTS`` names a JSON file ``{"<case_id>": {"<attempt or *>": "<fault>@<stage>"}}``; stages are ``render`` (meant when
none is given), ``commit`` and ``committed``; the faults are those of :mod:`ctmr_core.store.drills`, which also tells of the
points of the store and the driver, and of ``once`` and ``times`` beside the attempts.
"""

from __future__ import annotations

import os

from ctmr_core.store import drills
from ctmr_core.store.drills import VARIABLE, DrillError

__all__ = ["VARIABLE", "DrillError", "strike"]


def strike(case_id: str, attempt: int, stage: str) -> None:
    """Fail here if the drill says so: before rendering, before the commit, or just after it."""
    if VARIABLE not in os.environ:
        return
    order = drills.plan().get(case_id)
    if not order:
        return
    fault, _, planned_stage = str(order.get(str(attempt), order.get("*", ""))).partition("@")
    if fault and stage == (planned_stage or "render") and drills.is_due(order, f"{case_id}.{attempt}"):
        drills.fail(fault, f"attempt {attempt} of {case_id}")
