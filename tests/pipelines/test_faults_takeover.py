"""Two runs on one dataset: refused while the first lives, taken over when it is gone or silent, harmless when it wakes up."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from ctmr_core.store import Dataset
from ctmr_core.store.lock import STALE_SECONDS
from tests.soak import child
from tests.soak.cases import write_manifest
from tests.soak.evidence import difference, evidence

Stopper = Callable[[str, Path, Path], child.BaseProcess]


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    return write_manifest(tmp_path / "cases.parquet", 3)


@pytest.fixture
def stopped_at() -> Iterator[Stopper]:
    """Start a line that stands still at a point, as on a paused machine; killed after the test."""
    started: list[child.BaseProcess] = []

    def stopped_at(point: str, manifest: Path, out: Path) -> child.BaseProcess:
        started.append(frozen_at(point, manifest, out))
        return started[-1]

    yield stopped_at
    for process in started:
        process.kill()
        process.join()


def frozen_at(point: str, manifest: Path, out: Path) -> child.BaseProcess:
    order = {"fault": "freeze", "nth": 2, "once": True}
    if point == "file.half":
        order["object"] = "volumes/*"  # not the files of a new dataset, which are written before the lock
    process = child.start(manifest, out, {f"@{point}": order})
    deadline = time.monotonic() + 120
    while psutil.Process(process.pid).status() != psutil.STATUS_STOPPED:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process


def silence(out: Path) -> None:
    """Make the lock's last sign of life too old."""
    long_ago = time.time() - 2 * STALE_SECONDS
    for lock in (out / "lock").iterdir():
        os.utime(lock, (long_ago, long_ago))


def wake(process: child.BaseProcess) -> int:
    assert process.pid is not None
    os.kill(process.pid, signal.SIGCONT)
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def test_a_second_run_is_refused_with_the_holder_and_the_time(manifest: Path, tmp_path: Path, stopped_at: Stopper) -> None:
    first = stopped_at("commit.begin", manifest, tmp_path / "out")
    assert child.run(manifest, tmp_path / "out") == child.FAILED
    assert f"process {first.pid} on" in child.error_of(manifest)
    assert "since 20" in child.error_of(manifest)
    assert wake(first) == 0


@pytest.mark.parametrize("point", ["volume.begin", "file.half", "volume.made", "commit.begin", "commit.made"])
def test_a_run_that_wakes_up_after_it_was_taken_over_damages_nothing(
    point: str, manifest: Path, tmp_path: Path, stopped_at: Stopper
) -> None:
    out = tmp_path / "out"
    first = stopped_at(point, manifest, out)
    silence(out)
    # The second run removes what no record names, and dies before it has made those cases itself.
    assert child.run(manifest, out, {"@volume.begin": {"fault": "kill"}}) == -signal.SIGKILL
    wake(first)
    dataset = Dataset.open(out)
    for row in dataset.catalog.to_table(columns=["case_id"]).to_pylist():
        assert dataset[row["case_id"]].labels.shape == (48, 48, 48)
    assert child.run(manifest, out) == 0
    assert child.run(manifest, tmp_path / "calm") == 0
    calm = evidence(tmp_path / "calm")
    assert len(calm.objects) == 3
    assert difference(calm, evidence(out)) == []
