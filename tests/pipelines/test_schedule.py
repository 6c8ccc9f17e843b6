"""Schedules on a real Prefect server with a port, a home and a process of its own."""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import torch
from prefect.client.schemas.objects import StateType
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import Completed, Pending, Running
from typer.testing import CliRunner

from ctmr_core.errors import CtmrError
from ctmr_core.learning.training import load_checkpoint
from ctmr_core.store import Dataset, verify
from ctmr_core.store.snapshots import create_snapshot, list_snapshots
from pipelines.cli.main import app
from pipelines.flows.nightly import nightly
from pipelines.flows.nightly_records import NightRecord, NightRecords
from pipelines.flows.nightly_training import nightly_training
from pipelines.flows.nightly_worker import Caretaker
from pipelines.flows.schedules import schedules_of
from tests.pipelines.test_nightly_webhook import Receiver
from tests.pipelines.training import SNAPSHOT, small_dataset, write_config

ROOT = Path(__file__).parents[2]
LONGEST_SECONDS = 240  # of a test that asks for one and the same day
RECIPE = """
name: two-heads
groups:
  - {name: head, cases: 2, bodies: {parametric: head}, sequences: [mri_t1], size: [48, 56, 48], spacing: [4, 4, 4]}
"""


class Server:
    """A Prefect server that can be stopped and started again."""

    def __init__(self, home: Path) -> None:
        self._home = home
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.api = f"http://127.0.0.1:{self.port}/api"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-c", "from pipelines.cli.main import main; main()", "schedule", "server"]
        arguments = ["--port", str(self.port), "--home", str(self._home)]
        with (self._home.parent / "server.log").open("ab") as log:
            self._process = subprocess.Popen([*command, *arguments], stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + 240
        while not self._answers():
            assert self._process.poll() is None, "the server has ended"
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.2)

    def stop(self) -> None:
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.api}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


@pytest.fixture
def yesterday() -> dt.date:
    """The day before this one. Shortly before midnight it waits, so that the test sees one day only."""
    now = dt.datetime.now(dt.UTC)
    midnight = dt.datetime.combine(now.date() + dt.timedelta(days=1), dt.time(), dt.UTC)
    if (left := (midnight - now).total_seconds()) < LONGEST_SECONDS:
        time.sleep(left + 1)
    return dt.datetime.now(dt.UTC).date() - dt.timedelta(days=1)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("server") / "home"
    home.mkdir()
    server = Server(home)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "two-heads.yaml"
    path.write_text(RECIPE, encoding="utf-8")
    return path


def ctmr(server: Server, *arguments: str, code: int = 0) -> Any:
    """The JSON of ``ctmr schedule ...``, or its error text when it is to fail."""
    result = CliRunner().invoke(app, ["schedule", *arguments, "--server", server.api, "--json"])
    assert result.exit_code == code, result.output
    return result.output if code else json.loads(result.stdout)


def create(server: Server, recipe: Path, name: str, *more: str) -> Any:
    return ctmr(server, "create", str(recipe), "--dataset", str(recipe.parent / "dataset"), "--name", name, *more)


def test_a_schedule_is_a_deployment_that_never_overlaps(server: Server, recipe: Path) -> None:
    made = create(server, recipe, "berlin", "--cron", "0 2 * * *", "--timezone", "Europe/Berlin", "--per-night", "2")
    assert made["options"]["recipe"] == str(recipe)
    with schedules_of(server.api) as schedules:
        deployment = schedules.client.read_deployment_by_name("nightly/berlin")
        rule = deployment.schedules[0].schedule
        assert (rule.cron, rule.timezone) == ("0 2 * * *", "Europe/Berlin")  # type: ignore[union-attr]
        first, second = schedules.run_now("berlin"), schedules.run_now("berlin")
        assert schedules.client.set_flow_run_state(first.id, Pending()).state.type == StateType.PENDING  # type: ignore[union-attr]
        assert schedules.client.set_flow_run_state(second.id, Pending()).state.type == StateType.CANCELLED  # type: ignore[union-attr]
    assert "berlin" in [schedule["name"] for schedule in ctmr(server, "list")]
    assert {run["state"] for run in ctmr(server, "show", "berlin")["runs"]} == {"Pending", "Cancelled"}
    ctmr(server, "delete", "berlin")
    assert "no such schedule" in ctmr(server, "show", "berlin", code=1)


def test_the_server_plans_the_runs_of_the_rule(server: Server, recipe: Path) -> None:
    create(server, recipe, "planned", "--cron", "0 2 * * *", "--timezone", "Europe/Berlin")
    deadline = time.monotonic() + 240
    while (coming := ctmr(server, "show", "planned")["next_run"]) is None:
        assert time.monotonic() < deadline, "the server's scheduler makes no runs"
        time.sleep(1)
    assert dt.datetime.fromisoformat(coming).astimezone(ZoneInfo("Europe/Berlin")).hour == 2
    ctmr(server, "delete", "planned")


def test_nights_of_a_pause_are_not_due_unless_asked_for(server: Server, recipe: Path) -> None:
    create(server, recipe, "resting")
    paused = ctmr(server, "pause", "resting")
    assert paused["paused"]
    assert paused["options"]["pauses"][0]["until"] is None
    resumed = ctmr(server, "resume", "resting")
    assert not resumed["paused"]
    assert resumed["options"]["pauses"][0]["until"]
    ctmr(server, "pause", "resting")
    assert len(ctmr(server, "resume", "resting", "--make-up")["options"]["pauses"]) == 1
    ctmr(server, "delete", "resting")


def test_a_name_that_is_taken_is_refused_and_replacing_keeps_the_start(server: Server, recipe: Path) -> None:
    first = create(server, recipe, "taken", "--since", "2026-01-01")
    assert "--replace" in ctmr(server, "create", str(recipe), "--dataset", "d", "--name", "taken", code=1)
    second = create(server, recipe, "taken", "--cron", "30 3 * * *", "--replace")
    assert second["options"]["start"] == first["options"]["start"] == "2026-01-01T00:00:00"
    assert second["options"]["cron"] == "30 3 * * *"
    ctmr(server, "delete", "taken")


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--cron", "0 25 * * *", "cron"),
        ("--timezone", "Europe/Berlim", "Berlim"),
        ("--mode", "slice", "per-night"),
        ("--catch-up", "some", "some"),
        ("--webhook", "not-a-url", "not a URL"),
    ],
)
def test_what_could_not_work_at_night_is_refused_now(server: Server, recipe: Path, option: str, value: str, said: str) -> None:
    output = ctmr(server, "create", str(recipe), "--dataset", "d", "--name", "bad", option, value, code=1)
    assert said in output
    assert "bad" not in [schedule["name"] for schedule in ctmr(server, "list")]


def test_no_server_is_said_with_what_to_do(server: Server) -> None:
    result = CliRunner().invoke(app, ["schedule", "list", "--server", "http://127.0.0.1:9/api"])
    assert result.exit_code == 1
    assert "ctmr schedule server" in result.output


def test_a_run_survives_the_server_and_a_dead_one_is_made_up_for_once(server: Server, recipe: Path, yesterday: dt.date) -> None:
    """Running before a restart of the server: still running, still alone. Its process gone: crashed, and one run in its place."""
    made = create(server, recipe, "restarted", "--since", yesterday.isoformat(), "--cron", "0 0 * * *")
    with schedules_of(server.api) as schedules:
        run = schedules.run_now("restarted")
        schedules.client.set_flow_run_state(run.id, Pending())
        schedules.client.set_flow_run_state(run.id, Running())
    server.stop()
    server.start()
    assert ctmr(server, "show", "restarted")["options"] == made["options"]
    dataset = Dataset.create(recipe.parent / "dataset")
    records = NightRecords(dataset.storage, "restarted")
    records.write(NightRecord(night=yesterday, state="begun", attempts=1, flow_run=str(run.id)))
    records.claim(str(run.id))
    said: list[str] = []
    with schedules_of(server.api) as schedules:
        other = schedules.run_now("restarted")
        assert schedules.client.set_flow_run_state(other.id, Pending()).state.type == StateType.CANCELLED  # type: ignore[union-attr]
        Caretaker(schedules, said.append).look()
        assert not said  # this process made the claim, and lives
        gone = subprocess.Popen([sys.executable, "-c", ""])
        gone.wait()
        claim = json.loads(dataset.storage.read("nights/restarted/running.json"))
        dataset.storage.write("nights/restarted/running.json", json.dumps(claim | {"pid": gone.pid}).encode())
        Caretaker(schedules, said.append).look()
        Caretaker(schedules, said.append).look()
        assert schedules.client.read_flow_run(run.id).state_name == "Crashed"
        waiting = [found for found in schedules.runs(schedules.get("restarted")) if found.state_type == StateType.SCHEDULED]
        assert len(waiting) == 1
        assert [str(yesterday) in line for line in said] == [False, True]
        assert schedules.client.set_flow_run_state(waiting[0].id, Pending()).state.type == StateType.PENDING  # type: ignore[union-attr]
    ctmr(server, "delete", "restarted")


def test_a_webhook_is_a_secret_and_hears_of_a_failed_night(server: Server, recipe: Path, yesterday: dt.date) -> None:
    receiver = Receiver()
    options = create(
        server,
        recipe,
        "loud",
        "--since",
        yesterday.isoformat(),
        "--cron",
        "59 23 * * *",
        "--webhook",
        receiver.url,
        "--attempts",
        "1",
        "--retry",
        "0",
    )["options"]
    assert "s3cr3t" not in json.dumps(ctmr(server, "show", "loud"))
    recipe.write_text("name: broken\n", encoding="utf-8")
    with temporary_settings({PREFECT_API_URL: server.api}):
        with pytest.raises(CtmrError, match="groups"):
            nightly(options, night=yesterday.isoformat())
        nightly(options)  # the attempts are used up
    receiver.close()
    ctmr(server, "delete", "loud")
    assert [message["event"] for message in receiver.messages][:2] == ["ctmr.night.failed", "ctmr.night.given-up"]
    assert receiver.messages[0]["night"] == yesterday.isoformat()


@pytest.mark.usefixtures("cluster")
def test_a_night_made_twice_adds_nothing_and_the_next_one_adds_itself(server: Server, recipe: Path, yesterday: dt.date) -> None:
    since = yesterday - dt.timedelta(days=1)
    options = create(server, recipe, "twice", "--since", since.isoformat(), "--workers", "1", "--keep", "1")["options"]
    dataset = recipe.parent / "dataset"
    with temporary_settings({PREFECT_API_URL: server.api}):
        first = nightly(options, night=since.isoformat())
        digest = verify(Dataset.open(dataset)).digest
        again = nightly(options, night=since.isoformat())
        assert verify(Dataset.open(dataset)).digest == digest
        nightly(options, night=yesterday.isoformat())
    ctmr(server, "delete", "twice")
    assert (first[0]["state"], first[0]["cases"], again[0]["counts"]) == ("finished", 2, first[0]["counts"])
    opened = Dataset.open(dataset)
    assert opened.manifest is not None
    stamps = [f"{night:%Y%m%d}" for night in (since, yesterday)]
    assert opened.manifest["case_id"].to_pylist() == [f"head-{stamp}-000000{n}" for stamp in stamps for n in (0, 1)]
    assert [snapshot.name for snapshot in list_snapshots(opened.storage)] == [f"night-{yesterday}"]


def test_the_newest_snapshot_is_trained_on_once_and_a_night_comes_first(server: Server, recipe: Path, yesterday: dt.date) -> None:
    """The caretaker begins the training when no night is made; the flow trains, keeps its record, and makes way for a night."""
    folder = recipe.parent
    dataset = small_dataset(folder / "dataset")
    config = write_config(folder / "tiny.yaml", dataset.uri, steps=12)
    options = create(server, recipe, "trained", "--then-train", str(config), "--train-threads", "1", "--catch-up", "none")[
        "options"
    ]
    assert options["then_train"]["out"] == str(folder / "dataset-training")
    night = NightRecord(night=yesterday, state="finished", snapshot=SNAPSHOT)
    NightRecords(dataset.storage, "trained").write(night)
    said: list[str] = []
    with schedules_of(server.api) as schedules, temporary_settings({PREFECT_API_URL: server.api}):
        made = schedules.run_now("trained")
        schedules.client.set_flow_run_state(made.id, Running(), force=True)
        Caretaker(schedules, said.append).look()
        assert not said  # a night is made
        rested = nightly_training(options, SNAPSHOT)
        assert (rested["state"], rested["attempts"], rested["problem"]) == ("begun", 0, None)
        assert 0 < rested["step"] < 12
        schedules.client.set_flow_run_state(made.id, Completed(), force=True)
        Caretaker(schedules, said.append).look()
        Caretaker(schedules, said.append).look()
        assert said == [f"trained: a training on {SNAPSHOT}"]
        (run,) = schedules.training_runs(schedules.get("trained"))
        assert run.parameters["snapshot"] == SNAPSHOT
        ended = nightly_training(run.parameters["options"], SNAPSHOT)
        schedules.client.set_flow_run_state(run.id, Completed(), force=True)
        Caretaker(schedules, said.append).look()
        assert len(said) == 1  # once
    assert (ended["state"], ended["step"], ended["attempts"]) == ("finished", 12, 1)
    assert (folder / "dataset-training" / SNAPSHOT / "summary.json").exists()
    assert ctmr(server, "show", "trained")["trainings"] == [ended]
    assert ended["weights"] is None
    _carries_on(
        options,
        dataset,
        write_config(folder / "one.yaml", dataset.uri, steps=1, optimizer={"name": "sgd", "learning_rate": 1e-6}),
        ended,
        server,
    )
    ctmr(server, "delete", "trained")


def _carries_on(options: dict[str, Any], dataset: Dataset, config: Path, before: dict[str, Any], server: Server) -> None:
    """The training on the next snapshot starts with the weights that the last one ended with."""
    create_snapshot(dataset, "night-after")
    changed = {**options, "then_train": {**options["then_train"], "config": str(config), "carry_on": True}}
    with temporary_settings({PREFECT_API_URL: server.api}):
        after = nightly_training(changed, "night-after")
    assert (after["state"], after["weights"]) == ("finished", before["trained"])
    first, second = (load_checkpoint(Path(record["trained"])).weights["network"] for record in (before, after))
    assert all(torch.allclose(first[name], second[name], atol=1e-4) for name in first)


TORSOS = """
name: torsos
groups:
  - {name: torso, cases: 4, bodies: {parametric: torso}, sequences: [ct], size: [48, 48, 32], spacing: [6, 6, 6]}
"""


@pytest.mark.slow
def test_a_worker_makes_a_night_and_then_trains_on_its_snapshot(server: Server, tmp_path: Path, yesterday: dt.date) -> None:
    recipe = tmp_path / "torsos.yaml"
    recipe.write_text(TORSOS, encoding="utf-8")
    write_config(tmp_path / "tiny.yaml", "dataset", validation=False)
    environment = {**os.environ, "PREFECT_API_URL": server.api, "PREFECT_WORKER_QUERY_SECONDS": "3"}
    create = [
        "create",
        "torsos.yaml",
        "--dataset",
        "dataset",
        "--name",
        "torsos",
        "--since",
        yesterday.isoformat(),
        "--workers",
        "1",
    ]
    command = [sys.executable, "-c", "from pipelines.cli.main import main; main()", "schedule"]
    subprocess.run(
        [*command, *create, "--cron", "0 0 * * *", "--catch-up", "last", "--then-train", "tiny.yaml", "--train-threads", "1"],
        cwd=tmp_path,  # relative paths of the configuration start from here, not from where the worker is
        env=environment,
        check=True,
    )
    with (tmp_path / "worker.log").open("wb") as log:
        worker = subprocess.Popen([*command, "worker"], env=environment, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 900
        while not (found := ctmr(server, "show", "torsos")["trainings"]) or found[0]["state"] == "begun":
            assert worker.poll() is None
            assert time.monotonic() < deadline, (tmp_path / "worker.log").read_text(encoding="utf-8")[-3000:]
            time.sleep(2)
    finally:
        worker.terminate()
        worker.wait(timeout=180)
        ctmr(server, "delete", "torsos")
    (night,) = [record for record in ctmr_nights(tmp_path / "dataset") if record.state == "finished"]
    assert (found[0]["snapshot"], found[0]["state"], found[0]["step"]) == (night.snapshot, "finished", 4)
    assert (tmp_path / "dataset-training" / str(night.snapshot) / "checkpoints" / "last.pt").exists()


def ctmr_nights(dataset: Path) -> list[NightRecord]:
    return list(NightRecords(Dataset.open(dataset).storage, "torsos").all().values())


@pytest.mark.slow
def test_the_show_of_three_nights_with_a_restart_of_the_server_ends_well(tmp_path: Path) -> None:
    """A schedule that fires, a worker, the server stopped and started: every night once, nothing left running."""
    folder = tmp_path / "night"
    program = [sys.executable, str(ROOT / "infra" / "examples" / "night.py"), str(folder)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("accepted, snapshot night-") >= 3
    shutil.rmtree(folder)
