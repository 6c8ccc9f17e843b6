"""The real command in a process of its own, with its cluster and its Prefect server, to be killed, stopped and watched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

WAIT_SECONDS = 300.0
_COMMAND = "from pipelines.cli.main import main; main()"


@dataclass
class Run:
    """``ctmr generate`` under way."""

    process: subprocess.Popen[bytes]
    dataset: Path
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def wait(self) -> int:
        """Its exit code; negative for a signal."""
        return self.process.wait(timeout=WAIT_SECONDS)

    def summary(self) -> dict[str, Any]:
        """What it printed."""
        return dict(json.loads(self.log.read_text(encoding="utf-8")))

    def errors(self) -> str:
        """What it said to stderr."""
        return self.log.with_suffix(".err").read_text(encoding="utf-8")

    def children(self) -> list[psutil.Process]:
        """Every process it has started, and theirs."""
        return psutil.Process(self.pid).children(recursive=True)

    def await_commits(self, count: int) -> None:
        """Return when so many cases are committed, or the run is over."""
        deadline = time.monotonic() + WAIT_SECONDS
        while len(list(self.dataset.glob("commits/*/*.json"))) < count and self.process.poll() is None:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{count} commits in {self.dataset}: {self.errors()[-2000:]}")
            time.sleep(0.05)


def start(manifest: Path, dataset: Path, *options: str, drill: Path | None = None, **environment: str) -> Run:
    """Begin ``ctmr generate`` with two workers and units of two cases."""
    log = dataset.with_name(f"{dataset.name}-{time.monotonic_ns()}.json")
    command = [sys.executable, "-c", _COMMAND, "generate", str(manifest), "--out", str(dataset), "--workers", "2"]
    command += ["--unit-size", "2", "--json", *options]
    variables = {**os.environ, **environment}
    variables.pop("CTMR_FAULTS", None)
    if drill is not None:
        variables["CTMR_FAULTS"] = str(drill)
    with log.open("wb") as out, log.with_suffix(".err").open("wb") as errors:
        return Run(subprocess.Popen(command, stdout=out, stderr=errors, env=variables), dataset, log)


def write_drill(path: Path, plan: Mapping[str, Any]) -> Path:
    """A drill file whose marks are not those of another."""
    path.write_text(json.dumps(plan), encoding="utf-8")
    return path


def those_alive(processes: list[psutil.Process], within: float) -> list[psutil.Process]:
    """Those of ``processes`` that are still there after at most ``within`` seconds."""
    _, alive = psutil.wait_procs(processes, timeout=within)
    return [process for process in alive if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
