"""Failure drills: make chosen attempts at chosen cases fail, to see that a factory survives it.

``CTMR_FAULTS`` names a JSON file ``{"<case_id>": {"<attempt or *>": "<fault>@<stage>"}}``; faults are ``raise``, ``exit``,
``kill``, ``hang`` and ``disk_full``, stages ``render`` (meant when none is given), ``commit`` and ``committed``.
With ``"once": true`` beside the attempts a fault strikes only the first process that reaches it (a marker file
next to the JSON file remembers it). Nothing happens, and nothing is read, when the variable is not set.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import time
from pathlib import Path

VARIABLE = "CTMR_FAULTS"


class DrillError(RuntimeError):
    """The exception a drill raises."""


def strike(case_id: str, attempt: int, stage: str) -> None:
    """Fail here if the drill says so: before rendering, before the commit, or just after it."""
    path = os.environ.get(VARIABLE)
    if not path:
        return
    plan = json.loads(Path(path).read_text(encoding="utf-8")).get(case_id)
    if not plan:
        return
    fault, _, planned_stage = str(plan.get(str(attempt), plan.get("*", ""))).partition("@")
    if not fault or stage != (planned_stage or "render") or (plan.get("once") and not _first_time(Path(path), case_id, attempt)):
        return
    if fault == "raise":
        raise DrillError(f"drill: attempt {attempt} of {case_id} was told to fail")
    if fault == "exit":
        os._exit(66)
    if fault == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "hang":
        time.sleep(86_400)
    if fault == "disk_full":
        raise OSError(errno.ENOSPC, "drill: no space left on device")


def _first_time(plan: Path, case_id: str, attempt: int) -> bool:
    marker = plan.with_name(f"{plan.stem}.{case_id}.{attempt}.struck")
    try:
        marker.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
