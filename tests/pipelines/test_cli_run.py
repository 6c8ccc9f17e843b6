"""The commands as a person types them, in processes of their own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from ctmr_core.store import Dataset, orphans
from tests.pipelines.conftest import Write, small_case

CTMR = [sys.executable, "-c", "from pipelines.cli.main import main; main()"]
PATIENCE = 400.0
MARK = "CTMR_TEST_STARTED_THIS"


def ctmr(*arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*CTMR, *map(str, arguments)], capture_output=True, text=True, timeout=PATIENCE, stdin=subprocess.DEVNULL, check=False
    )
    if check:
        assert done.returncode == 0, done.stderr[-4000:] + done.stdout[-2000:]
    return done


def start(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*CTMR, *map(str, arguments)],
        env=os.environ | {MARK: "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )


def wait_for_a_commit(dataset: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not list(dataset.glob("commits/*/*.json")):
        assert process.poll() is None, process.stdout.read() if process.stdout else ""
        assert time.monotonic() < deadline, "no commit in time"
        time.sleep(0.1)


def left_behind() -> list[str]:
    """Processes that a started command left running, after a minute and a half to end."""
    deadline = time.monotonic() + 90
    while True:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if MARK in process.environ() and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(" ".join(process.cmdline())[:120])
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.5)


def digest_of(dataset: Path) -> str:
    return json.loads(ctmr("verify", dataset, "--json").stdout)["digest"]


def test_every_command_has_help_with_an_example() -> None:
    overview = ctmr("--help").stdout
    for command in ("demo", "plan", "validate", "generate", "status", "verify", "report"):
        assert command in overview
        assert "Example" in ctmr(command, "--help").stdout


def test_a_command_imports_what_it_needs(tmp_path: Path) -> None:
    Dataset.create(tmp_path)
    program = "import sys\nfrom pipelines.cli.main import app\napp(sys.argv[1:], standalone_mode=False)\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program, "status", tmp_path, "--json"], capture_output=True, text=True, check=True
    )
    modules = set(done.stdout.rpartition("}")[2].split())
    assert "ctmr_core.store.progress" in modules
    assert not modules & {"ray", "prefect", "torch", "scipy", "zarr", "nibabel", "pipelines.cli.generate"}


def test_wrong_usage_exits_with_2_and_a_refusal_with_1(tmp_path: Path) -> None:
    assert ctmr("generate", tmp_path / "missing.parquet", "--out", tmp_path / "out", check=False).returncode == 2
    refused = ctmr("status", tmp_path, check=False)
    assert refused.returncode == 1
    assert "not a dataset" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_demo_makes_a_dataset_that_verifies_reports_and_notices_one_changed_byte(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    shown = ctmr("demo", "--cases", 4, "--out", out)
    assert "4 accepted" in shown.stdout
    assert "Next:" in shown.stdout
    counts = json.loads(ctmr("status", out, "--json").stdout)
    assert {name: counts[name] for name in ("planned", "accepted", "rejected", "failed", "quarantined")} == {
        "planned": 4,
        "accepted": 4,
        "rejected": 0,
        "failed": 0,
        "quarantined": 0,
    }
    ctmr("verify", out)
    ctmr("report", out)
    assert (out / "report.html").stat().st_size > 100_000
    assert (out / "montage.png").stat().st_size > 50_000
    dataset = Dataset.open(out)
    assert {body.split(":")[1] for body in dataset.to_pandas(columns=["body"])["body"]} == {"torso", "head"}
    chunk = max((path for path in (out / "volumes").rglob("c.*")), key=lambda path: path.stat().st_size)
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 1
    chunk.write_bytes(data)
    damaged = ctmr("verify", out, check=False)
    assert damaged.returncode == 1
    case_id = next(part for part in chunk.parts if part.endswith(".ome.zarr")).split(".")[0]
    assert case_id in damaged.stderr


@pytest.mark.slow  # of other bodies, what test_faults_processes.py shows by default
def test_kill_9_of_the_driver_and_a_second_run_give_the_undisturbed_dataset(write_manifest: Write, tmp_path: Path) -> None:
    manifest = write_manifest([small_case(f"case-{i}", body_seed=i) for i in range(5)])
    ctmr("generate", manifest, "--out", tmp_path / "calm", "--workers", 2)
    process = start("generate", manifest, "--out", tmp_path / "storm", "--workers", 2)
    wait_for_a_commit(tmp_path / "storm", process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(PATIENCE)
    again = ctmr("generate", manifest, "--out", tmp_path / "storm", "--workers", 1, "--json")
    summary = json.loads(again.stdout)
    assert summary["done_before"] + summary["accepted"] == 5
    assert digest_of(tmp_path / "storm") == digest_of(tmp_path / "calm")
    assert not orphans(Dataset.open(tmp_path / "storm"))


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM])
def test_a_signal_ends_the_run_cleanly_and_leaves_it_resumable(
    number: signal.Signals, write_manifest: Write, tmp_path: Path
) -> None:
    manifest = write_manifest([small_case(f"case-{i}", body_seed=i) for i in range(40)])
    process = start("generate", manifest, "--out", tmp_path / "out", "--workers", 2)
    wait_for_a_commit(tmp_path / "out", process)
    process.send_signal(number)
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert "Run the same command again" in output
    assert "Traceback" not in output
    assert not left_behind()
    counts = json.loads(ctmr("status", tmp_path / "out", "--json").stdout)
    assert 0 < counts["accepted"] < 40
    assert counts["accepted"] + counts["pending"] == 40
    ctmr("verify", tmp_path / "out")
