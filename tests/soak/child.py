"""Running the one-process line in a child that may be killed: a fork of a server that has everything imported."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import traceback
import uuid
from collections.abc import Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

_PRELOADED = ["tests.soak.line", "ctmr_core.engines.blocks", "tensorstore", "zarr.codecs", "nibabel"]
FAILED = 3  # exit code of a line that raised; ``error_of`` tells what


def start(manifest: Path, dataset: str | Path, drill: Mapping[str, Any] | None = None, **environment: str) -> BaseProcess:
    """Begin making ``dataset``, under ``drill`` if one is given; more variables for its environment by name."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    variables = dict(environment)
    if drill is not None:
        plan = manifest.with_name(f"{manifest.stem}-{uuid.uuid4().hex[:8]}.json")
        plan.write_text(json.dumps(drill), encoding="utf-8")
        variables["CTMR_FAULTS"] = str(plan)
    process = context.Process(target=_make, args=(str(manifest), str(dataset), variables))
    process.start()
    return process


def run(manifest: Path, dataset: str | Path, drill: Mapping[str, Any] | None = None, **environment: str) -> int:
    """Make ``dataset`` and wait; the exit code, negative for a signal."""
    process = start(manifest, dataset, drill, **environment)
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def error_of(manifest: Path) -> str:
    """What the last line of ``manifest`` that failed raised."""
    return manifest.with_suffix(".error").read_text(encoding="utf-8")


def _make(manifest: str, dataset: str, variables: Mapping[str, str]) -> None:
    os.environ.update(variables)
    logging.disable()
    from tests.soak.line import make

    try:
        make(manifest, dataset)
    except Exception:  # noqa: BLE001 - whatever it is, the parent reads it
        Path(manifest).with_suffix(".error").write_text(traceback.format_exc(), encoding="utf-8")
        os._exit(FAILED)
