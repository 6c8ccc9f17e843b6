"""The command itself killed, stopped, taken over, and left by its Prefect server: what stays behind, and what a new run makes."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from ctmr_core.store.lock import STALE_SECONDS
from tests.soak import child, factory
from tests.soak.cases import write_manifest
from tests.soak.evidence import Evidence, difference, evidence

CASES = 12


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_manifest(tmp_path_factory.mktemp("processes") / "cases.parquet", CASES, seconds=0.5)


@pytest.fixture(scope="module")
def calm(manifest: Path) -> Evidence:
    assert child.run(manifest, manifest.with_name("calm")) == 0
    found = evidence(manifest.with_name("calm"))
    assert len(found.objects) == CASES
    return found


def finished(manifest: Path, out: Path, calm: Evidence) -> None:
    """One process finishes what the storm has left, and it is the calm run's dataset."""
    assert child.run(manifest, out) == 0, child.error_of(manifest)
    assert difference(calm, evidence(out)) == []


def test_a_killed_driver_leaves_no_process_behind_and_nothing_half_done(manifest: Path, calm: Evidence, tmp_path: Path) -> None:
    out = tmp_path / "out"
    # Ray's agents report the death to the store of cluster facts that died as well, by default for a minute
    run = factory.start(manifest, out, RAY_gcs_rpc_server_reconnect_timeout_s="5")
    run.await_commits(2)
    started = run.children()
    assert {"raylet", "ray::CaseMaker"} <= {process.name() for process in started}
    os.kill(run.pid, signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL
    again = factory.start(manifest, out)  # at once, while Ray's processes are still about to end
    assert again.wait() == 0, again.errors()
    assert again.summary()["done_before"] + again.summary()["accepted"] == CASES
    assert difference(calm, evidence(out)) == []
    assert not factory.those_alive(started, within=120)


@pytest.mark.slow
@pytest.mark.parametrize("again", [False, True], ids=["once", "twice"])
def test_sigterm_ends_the_run(again: bool, manifest: Path, calm: Evidence, tmp_path: Path) -> None:
    run = factory.start(manifest, tmp_path / "out")
    run.await_commits(2)
    started = run.children()
    os.kill(run.pid, signal.SIGTERM)
    if again:
        time.sleep(0.3)
        os.kill(run.pid, signal.SIGTERM)
        assert run.wait() != 0
    else:
        assert run.wait() == 1
        summary = run.summary()
        assert summary["interrupted"]
        assert 2 <= summary["accepted"] < CASES
        assert summary["failed"] == summary["quarantined"] == 0
    assert not factory.those_alive(started, within=120)
    finished(manifest, tmp_path / "out", calm)


def test_a_run_goes_on_without_its_prefect_server(manifest: Path, calm: Evidence, tmp_path: Path) -> None:
    run = factory.start(manifest, tmp_path / "out", PREFECT_CLIENT_MAX_RETRIES="1")
    run.await_commits(2)
    (server,) = [process for process in run.children() if "pipelines.flows.local_server" in process.cmdline()]
    server.kill()
    assert run.wait() == 0, run.errors()
    assert run.summary()["accepted"] == CASES
    assert "went on without it" in run.summary()["tracking_lost"]
    assert difference(calm, evidence(tmp_path / "out")) == []


@pytest.mark.slow
def test_a_run_goes_on_without_the_prefect_server_it_was_given(manifest: Path, calm: Evidence, tmp_path: Path) -> None:
    from pipelines.flows.environment import PrefectServer

    server = PrefectServer()
    run = factory.start(manifest, tmp_path / "out", PREFECT_API_URL=server.url, PREFECT_CLIENT_MAX_RETRIES="1")
    run.await_commits(2)
    server.stop()
    assert run.wait() == 0, run.errors()
    assert "went on without it" in run.summary()["tracking_lost"]
    assert difference(calm, evidence(tmp_path / "out")) == []


def test_a_prefect_server_that_is_not_there_is_named_before_any_work(manifest: Path, tmp_path: Path) -> None:
    run = factory.start(manifest, tmp_path / "out", PREFECT_API_URL="http://127.0.0.1:9/api", PREFECT_CLIENT_MAX_RETRIES="0")
    assert run.wait() == 1
    assert "Prefect's server does not answer" in run.errors()
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_run_that_lost_its_dataset_stops_and_says_so(tmp_path: Path) -> None:
    manifest, out = write_manifest(tmp_path / "slow.parquet", CASES, seconds=1.5), tmp_path / "out"
    run = factory.start(manifest, out)
    run.await_commits(1)
    os.kill(run.pid, signal.SIGSTOP)  # the driver; its actors go on
    long_ago = time.time() - 2 * STALE_SECONDS
    for lock in (out / "lock").iterdir():
        os.utime(lock, (long_ago, long_ago))
    assert child.run(manifest, out) == 0
    os.kill(run.pid, signal.SIGCONT)
    assert run.wait() == 1
    assert "taken over by another run" in run.errors()
    assert child.run(manifest, tmp_path / "calm") == 0
    finished(manifest, out, evidence(tmp_path / "calm"))


@pytest.mark.slow
@pytest.mark.parametrize("point", ["wave.begin", "adopt.made", "lock.made", "compact.merged"])
def test_the_driver_killed_at_its_own_points(point: str, manifest: Path, calm: Evidence, tmp_path: Path) -> None:
    drill = factory.write_drill(tmp_path / "drill.json", {f"@{point}": {"fault": "kill", "once": True}})
    run = factory.start(manifest, tmp_path / "out", drill=drill)
    assert run.wait() == -signal.SIGKILL
    finished(manifest, tmp_path / "out", calm)


def test_no_process_of_a_test_is_left() -> None:
    mine = psutil.Process().children(recursive=True)
    assert not [process for process in mine if "pipelines.cli.main" in " ".join(process.cmdline())]
