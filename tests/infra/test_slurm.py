"""The Slurm script with stand-ins for Slurm, Ray and ctmr: what is started where, and what a preemption does."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.infra.conftest import INFRA, Tool

SCRIPT = INFRA / "slurm" / "generate.sbatch"
CTMR = """trap 'echo "ctmr stopped" >> "$CALLS"; exit 1' TERM
for _ in $(seq ${CTMR_SECONDS:-0}); do sleep 0.1; done; exit ${CTMR_STATUS:-0}"""
STAND_INS = {
    "scontrol": 'if [ "$1" = show ]; then printf "node1\\nnode2\\nnode3\\n"; fi',
    "srun": 'case "$*" in *hostname*) echo "10.0.0.1 fe80::1";; esac',
    "ray": "exit 0",
    "ctmr": CTMR,
}


@pytest.fixture
def allocation(tmp_path: Path) -> dict[str, str]:
    """An environment like that of a job on three nodes; every command writes its call to $CALLS."""
    for name, body in STAND_INS.items():
        path = tmp_path / name
        path.write_text(f'#!/usr/bin/env bash\necho "{name} $*" >> "$CALLS"\n{body}\n')
        path.chmod(0o755)
    return {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "CALLS": str(tmp_path / "calls"),
        "SLURM_JOB_NODELIST": "node[1-3]",
        "SLURM_JOB_ID": "4711",
        "SLURM_CPUS_PER_TASK": "16",
        "SLURM_SUBMIT_DIR": str(INFRA.parent),
    }


def calls(environment: dict[str, str]) -> list[str]:
    return Path(environment["CALLS"]).read_text().splitlines()


def test_shellcheck_finds_nothing(tool: Tool) -> None:
    found = tool("shellcheck", SCRIPT)
    assert found.returncode == 0, found.stdout


def test_a_head_on_the_first_node_and_workers_on_the_others(allocation: dict[str, str]) -> None:
    subprocess.run([SCRIPT, "night.parquet", "/scratch/night", "--limit", "5"], env=allocation, check=True, timeout=60)
    made = calls(allocation)
    assert "ctmr generate night.parquet --out /scratch/night --address 10.0.0.1:24711 --limit 5" in made
    starts = [call for call in made if call.startswith("srun") and "ctmr-role" in call]
    assert sorted(start.rsplit(" ", 1)[1] for start in starts) == ["head", "worker"]
    assert any("--nodelist=node1 " in start and start.endswith(" head") for start in starts)
    assert any("--nodes=2 " in start and "--nodelist=node2,node3 " in start for start in starts)
    assert not any("requeue" in call for call in made)
    assert not list((Path(allocation["HOME"]) / ".ctmr").iterdir())  # the token went with the job


def test_the_exit_code_is_that_of_the_run(allocation: dict[str, str]) -> None:
    ended = subprocess.run([SCRIPT, "m", "d"], env={**allocation, "CTMR_STATUS": "1"}, check=False, timeout=60)
    assert ended.returncode == 1


@pytest.mark.parametrize(("restarts", "again"), [("0", True), ("20", False)])
def test_preemption_stops_the_driver_cleanly_and_queues_the_job_again(
    allocation: dict[str, str], restarts: str, again: bool
) -> None:
    environment = {**allocation, "CTMR_SECONDS": "600", "SLURM_RESTART_COUNT": restarts}
    job = subprocess.Popen([SCRIPT, "m", "d"], env=environment)
    deadline = time.monotonic() + 60
    while not (Path(allocation["CALLS"]).exists() and any(call.startswith("ctmr generate") for call in calls(allocation))):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(0.5)  # until the stand-in has set its trap
    job.send_signal(signal.SIGTERM)
    assert job.wait(60) == 1
    assert "ctmr stopped" in calls(allocation)
    assert ("scontrol requeue 4711" in calls(allocation)) == again
