"""Three nights in a few minutes: a Prefect server, a worker and a schedule of their own, with a restart of the server in between.

Every firing counts as one more night. Afterwards everything is stopped, and the exit code is 0 only if every night was made
exactly once, left its snapshot, and added its cases and nothing else.

    python infra/examples/night.py runs/night
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

CTMR = [sys.executable, "-c", "from pipelines.cli.main import main; main()"]
RECIPE = Path(__file__).parents[2] / "manifests" / "nightly.yaml"
NIGHTS = 3
PATIENCE = 900.0  # seconds; a quiet machine needs a sixth of it


class Stage:
    """The programs of the show, their folder and their server."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.dataset = self.folder / "dataset"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.api = f"http://127.0.0.1:{self.port}/api"
        self.deadline = time.monotonic() + PATIENCE
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        quick = {"PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "5", "PREFECT_WORKER_QUERY_SECONDS": "3"}
        self.environment = {**os.environ, **quick, "PREFECT_API_URL": self.api, "PREFECT_HOME": str(self.folder / "prefect")}

    def start(self, name: str, *arguments: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(  # noqa: S603
                [*CTMR, "schedule", *arguments], env=self.environment, stdout=log, stderr=log, start_new_session=True
            )

    def start_server(self) -> None:
        self.start("server", "server", "--port", str(self.port), "--home", str(self.folder / "prefect"))
        self.wait(self._answers, "the server answers")

    def stop(self, name: str) -> None:
        process = self.running.pop(name, None)
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=180)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def schedule(self, *arguments: str) -> Any:
        done = subprocess.run(  # noqa: S603
            [*CTMR, "schedule", *arguments, "--json"], env=self.environment, check=False, stdout=subprocess.PIPE, timeout=180
        )
        if done.returncode:
            sys.exit(f"ctmr schedule {arguments[0]} failed")
        return json.loads(done.stdout)

    def finished(self) -> int:
        records = (json.loads(path.read_text()) for path in sorted(self.dataset.glob("nights/nightly/20*.json")))
        return sum(record["state"] == "finished" for record in records)

    def wait(self, happened: Callable[[], bool], what: str) -> None:
        while not happened():
            if time.monotonic() > self.deadline:
                sys.exit(f"gave up waiting: {what}")
            time.sleep(1)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.api}/health", timeout=5) as answer:  # noqa: S310
                return bool(answer.status == 200)
        except OSError:
            return False


def say(text: str) -> None:
    sys.stdout.write(f"{time.strftime('%H:%M:%S')}  {text}\n")
    sys.stdout.flush()


def play(stage: Stage) -> Any:
    say(f"a Prefect server on port {stage.port}, a worker, a schedule that fires every 30 seconds")
    stage.start_server()
    rule = ("--cron", "* * * * * */30", "--per-night", "2", "--simulate", "--catch-up", "all")
    stage.schedule("create", str(RECIPE), "--dataset", str(stage.dataset), "--workers", "2", *rule)
    stage.start("worker", "worker")
    stage.wait(lambda: stage.finished() >= 1, "a first night")
    say("one night is made; the server is stopped and started again")
    stage.stop("server")
    stage.start_server()
    stage.wait(lambda: stage.finished() >= NIGHTS, f"{NIGHTS} nights")
    stage.schedule("pause", "nightly")
    say("enough nights; stopping the worker")
    stage.stop("worker")
    return stage.schedule("show", "nightly")


def judge(stage: Stage, shown: Any) -> list[str]:
    """What does not hold."""
    from ctmr_core.store import Dataset, verify
    from ctmr_core.store.snapshots import diff_snapshots, list_snapshots

    dataset = Dataset.open(stage.dataset)
    nights = [night for night in shown["nights"] if night["state"] == "finished"]
    for run in reversed(shown["runs"]):
        say(f"run {run['name']}, due {run['due']}: {run['state']}  {run['message'] or ''}")
    wrong = []
    previous = None
    snapshots = {snapshot.name: snapshot for snapshot in list_snapshots(dataset.storage)}
    for night in nights:
        counts = night["counts"]
        say(f"night {night['night']}: {counts['accepted']} of {night['cases']} cases accepted, snapshot {night['snapshot']}")
        snapshot = snapshots.get(night["snapshot"])
        if snapshot is None:
            wrong.append(f"night {night['night']} has no snapshot")
            continue
        if previous is not None:
            diff = diff_snapshots(previous, snapshot)
            say(f"  beside the night before: {len(diff.added)} added, {len(diff.removed)} removed, {len(diff.changed)} changed")
            of_night = f"-{night['night'].replace('-', '')}-"
            if diff.removed or diff.changed or len(diff.added) != counts["accepted"]:
                wrong.append(f"snapshot {snapshot.name} differs by more than its night")
            if not all(of_night in case_id for case_id in diff.added):
                wrong.append(f"snapshot {snapshot.name} holds cases of another night")
        previous = snapshot
    report = verify(dataset)
    say(f"{report.cases} cases verified, {len(report.problems)} problems")
    if report.problems:
        wrong.append("the dataset is damaged")
    if len(nights) < NIGHTS:
        wrong.append(f"only {len(nights)} nights were finished")
    return wrong


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/night")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    stage = Stage(folder)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        shown = play(stage)
    finally:
        stage.stop("worker")
        stage.stop("server")
    wrong = judge(stage, shown)
    for line in wrong:
        say(f"WRONG: {line}")
    say(f"failed; logs are in {folder}" if wrong else f"every night was made once; dataset {stage.dataset}")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
