"""One run per dataset; what a dead run left behind does not stand in the way."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ctmr_core.errors import StoreError
from ctmr_core.store import RunLock, open_storage

LOCK = "lock/000001.json"
HOLDER = """
import sys, time
from ctmr_core.store import RunLock, open_storage
RunLock(open_storage(sys.argv[1])).acquire()
print("held", flush=True)
time.sleep(60)
"""


def test_a_second_run_is_told_who_and_since_when(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    with RunLock(storage) as lock:
        lock.check()
        since = json.loads((tmp_path / LOCK).read_text())["started"]
        with pytest.raises(StoreError, match=f"process {os.getpid()} on .* since {since.replace('+', '.')}"):
            RunLock(storage).acquire()
    with RunLock(storage):
        pass
    assert list((tmp_path / "lock").iterdir()) == []


def test_a_killed_holder_is_taken_over_with_a_notice(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    storage = open_storage(tmp_path)
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StoreError, match=f"process {holder.pid} "):
            RunLock(storage).acquire()
        holder.kill()
    with caplog.at_level(logging.WARNING), RunLock(storage):
        assert f"process {holder.pid} " in caplog.text
        assert "gone" in caplog.text
    assert list((tmp_path / "lock").iterdir()) == []


def test_a_silent_holder_on_another_host_is_taken_over_only_when_stale(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    storage = open_storage(tmp_path)
    elsewhere = {**vars(RunLock(storage).holder), "host": "another-host"}
    storage.create(LOCK, json.dumps(elsewhere).encode())
    with pytest.raises(StoreError, match="another-host"):
        RunLock(storage, stale_seconds=60).acquire()
    long_ago = time.time() - 120
    os.utime(tmp_path / LOCK, (long_ago, long_ago))
    with caplog.at_level(logging.WARNING), RunLock(storage, stale_seconds=60):
        assert "no sign of life for 1" in caplog.text


def test_a_reused_pid_is_not_taken_for_the_holder(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    gone = {**vars(RunLock(storage).holder), "process_started": 1.0}
    storage.create(LOCK, json.dumps(gone).encode())
    with RunLock(storage):
        pass


def test_a_run_that_was_taken_over_notices(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    lock = RunLock(storage, heartbeat_seconds=0.02).acquire()
    storage.delete(LOCK)
    for _ in range(500):
        if lock._lost.wait(0.02):
            break
    with pytest.raises(StoreError, match="taken over"):
        lock.check()
    lock.release()


def test_the_heartbeat_shows(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    with RunLock(storage, heartbeat_seconds=0.02):
        os.utime(tmp_path / LOCK, (0, 0))
        for _ in range(500):
            if (tmp_path / LOCK).stat().st_mtime > 0:
                break
            time.sleep(0.02)
        assert (tmp_path / LOCK).stat().st_mtime > 0
