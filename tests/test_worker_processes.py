"""Workers of a pool do not outlive the process that started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ctmr_core.assessment import judging
from ctmr_core.exchange import driver
from ctmr_core.quality.policy import load_policy
from ctmr_core.store import open_storage

PATIENCE = 60.0
#: A pool at work, as a killed command leaves it. Prints the id of its worker.
PROGRAM = """
import multiprocessing, os, time
from concurrent.futures import ProcessPoolExecutor
from ctmr_core.worker_processes import end_with_parent

if __name__ == "__main__":
    pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), end_with_parent)
    print(pool.submit(os.getpid).result(), flush=True)
    pool.submit(time.sleep, 600).result()
"""


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_worker_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    with subprocess.Popen([sys.executable, "program.py"], cwd=tmp_path, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        assert is_alive(worker)
        parent.kill()
    try:
        until = time.monotonic() + PATIENCE
        while is_alive(worker) and time.monotonic() < until:
            time.sleep(0.05)
        assert not is_alive(worker)
    finally:
        if is_alive(worker):
            os.kill(worker, signal.SIGKILL)


def test_exporting_and_judging_workers_begin_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = []
    for module in (driver, judging):
        monkeypatch.setattr(module, "end_with_parent", lambda: begun.append(1))
    monkeypatch.setattr(driver, "_worker", [])
    monkeypatch.setattr(judging, "_WORKER", {})
    driver._begin_worker(None, None, tmp_path, tmp_path)  # type: ignore[arg-type]
    judging._begin_process(open_storage(tmp_path), load_policy("default"))
    assert len(begun) == 2
