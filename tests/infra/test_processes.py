"""The containers' start commands as plain processes: a Ray head and a Prefect server, one small run on them, its metrics."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ctmr_core.cases.manifest import Manifest
from pipelines.factory.metrics import METRICS
from tests.infra.conftest import INFRA, free_ports
from tests.pipelines.conftest import small_case

ROLE = INFRA / "containers" / "ctmr-role"
PATIENCE = 240.0  # seconds, on a busy machine


@dataclass
class Factory:
    """The running processes, and what commands need to reach them."""

    environment: dict[str, str]
    ports: dict[str, int]
    folder: Path
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    seen: dict[str, dict[str, str]] = field(default_factory=dict)

    def start(self, role: str, **more: str) -> None:
        log = (self.folder / f"{role}.log").open("wb")
        environment = {**self.environment, "CTMR_ROLE_FILE": str(self.folder / f"{role}.role"), **more}
        self.processes[role] = subprocess.Popen([ROLE, role], env=environment, stdout=log, stderr=log, start_new_session=True)

    def bring_up(self, role: str) -> None:
        """Start it and wait until it answers. Ray gives up after 30 s on a busy machine: then it is started again, twice."""
        for _ in range(3):
            self.start(role)
            wait_until(lambda: self.processes[role].poll() is not None or self.health(role) == 0, role)
            if self.processes[role].poll() is None:
                return
            self.end(role)
        raise AssertionError((self.folder / f"{role}.log").read_text()[-2000:])

    def end(self, role: str) -> None:
        """Stop it as a container is stopped, and whatever it started and did not end."""
        process = self.processes[role]
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(90)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    def health(self, role: str, **more: str) -> int:
        environment = {**self.environment, "CTMR_ROLE_FILE": str(self.folder / f"{role}.role"), **more}
        return subprocess.run([ROLE, "health"], env=environment, capture_output=True, check=False, timeout=PATIENCE).returncode

    def scrape(self) -> bool:
        """Remember the metrics served now, with their labels; never True, so that it can be waited for something else."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ports['metrics']}/metrics", timeout=30) as answer:
            text = answer.read().decode()
        self.seen |= {sample.name: sample.labels for family in text_string_to_metric_families(text) for sample in family.samples}
        return False


def wait_until(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, f"waited {PATIENCE:.0f} s for {what}"
        time.sleep(0.5)


@pytest.fixture(scope="module")
def factory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Factory]:
    """A Ray head with two CPUs and a Prefect server, started as the containers start them."""
    folder = tmp_path_factory.mktemp("factory")
    names = ("ray", "dashboard", "metrics", "agent", "prefect")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    with tempfile.TemporaryDirectory(prefix="ctmr-") as short:  # sockets of Ray need a short path
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("CTMR_", "PREFECT_", "RAY_"))},
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(24),
            "RAY_metrics_report_interval_ms": "1000",
            "CTMR_RAY_TEMP": f"{short}/r",
            "CTMR_NODE_IP": "127.0.0.1",
            "CTMR_HEAD_CPUS": "2",
            "CTMR_RAY_PORT": str(ports["ray"]),
            "CTMR_DASHBOARD_PORT": str(ports["dashboard"]),
            "CTMR_METRICS_PORT": str(ports["metrics"]),
            "CTMR_RAY_OPTIONS": f"--dashboard-agent-listen-port={ports['agent']} --min-worker-port=0 --max-worker-port=0",
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_SERVER_API_PORT": str(ports["prefect"]),
        }
        running = Factory(environment, ports, folder)
        try:
            running.bring_up("head")
            running.bring_up("prefect-server")
            yield running
        finally:
            for role in running.processes:
                running.end(role)


@pytest.fixture(scope="module")
def finished(factory: Factory) -> list[dict[str, object]]:
    """One run on them; the lines it logged."""
    # The head of the tests is so coarse that a check of its field of view may refuse it.
    cases = [small_case(f"case-{i}", seed=i, checks={"truncation": False}) for i in range(2)]
    Manifest.from_cases(cases).write(factory.folder / "cases.parquet")
    command = [
        "ctmr",
        "generate",
        factory.folder / "cases.parquet",
        "--out",
        factory.folder / "dataset",
        "--workers",
        "1",
        "--json",
    ]
    environment = factory.environment | {
        "CTMR_RAY_ADDRESS": f"127.0.0.1:{factory.ports['ray']}",
        "CTMR_LOG_FORMAT": "json",
        "PREFECT_API_URL": f"http://127.0.0.1:{factory.ports['prefect']}/api",
        "AWS_SECRET_ACCESS_KEY": "never-to-be-seen",
    }
    out, err = factory.folder / "run.json", factory.folder / "run.log"
    with out.open("wb") as stdout, err.open("wb") as stderr:
        run = subprocess.Popen(command, env=environment, stdout=stdout, stderr=stderr)
    try:
        # What the driver tells of its run is served while it runs, as Prometheus reads it.
        wait_until(lambda: factory.scrape() or run.poll() is not None, "the run")
    finally:
        run.kill()
    assert run.wait() == 0, out.read_text() + err.read_text()
    factory.scrape()
    assert json.loads(out.read_text())["accepted"] == 2
    return [json.loads(line) for line in err.read_text().splitlines() if line.startswith("{")]


def test_a_process_without_the_token_is_not_let_in(factory: Factory) -> None:
    wait_until(lambda: factory.health("head") == 0, "the head")
    assert factory.health("head", RAY_AUTH_TOKEN=secrets.token_hex(24)) != 0


def test_every_metric_is_scraped_under_the_names_the_dashboard_uses(factory: Factory, finished: list[dict[str, object]]) -> None:
    rare = {"ctmr_storage_retries", "ctmr_actors_lost"}  # counted only when something goes wrong
    for spec in METRICS:
        if spec.name in rare:
            continue
        for name in spec.exported_names:
            assert name in factory.seen, f"{name} is not served"
            assert {"dataset", *spec.tags} <= set(factory.seen[name])
            assert factory.seen[name]["dataset"] == str(factory.folder / "dataset")


def test_the_run_logs_json_with_its_id(finished: list[dict[str, object]]) -> None:
    assert {"run started", "run ended"} <= {str(line["message"]).split(":")[0] for line in finished}
    assert len({line["run_id"] for line in finished}) == 1
    assert "never-to-be-seen" not in json.dumps(finished)


def test_actors_log_json_into_the_session_of_ray(factory: Factory, finished: list[dict[str, object]]) -> None:
    logs = Path(factory.environment["CTMR_RAY_TEMP"]) / "session_latest" / "logs"
    lines = [line for path in logs.glob("worker-*.err") for line in path.read_text().splitlines() if line.startswith("{")]
    outcomes = [line for line in map(json.loads, lines) if line.get("outcome") == "accepted"]
    assert {line["case_id"] for line in outcomes} == {"case-0", "case-1"}
    for line in outcomes:
        assert line["run_id"] == finished[0]["run_id"]
        assert {"actor", "node", "case_key", "attempt", "engine"} <= set(line)


def test_prefect_knows_the_run_and_its_events(factory: Factory, finished: list[dict[str, object]]) -> None:
    url = f"http://127.0.0.1:{factory.ports['prefect']}/api"

    def ask(path: str, body: dict[str, object]) -> object:
        request = urllib.request.Request(f"{url}/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"})
        return json.loads(urllib.request.urlopen(request, timeout=30).read())

    (run,) = ask("flow_runs/filter", {})
    assert run["id"] == finished[0]["run_id"]
    assert run["state_type"] == "COMPLETED"
    (artifact,) = ask("artifacts/filter", {})
    assert (artifact["type"], float(artifact["data"])) == ("progress", 100.0)

    def events() -> set[str]:
        found = ask("events/filter", {"filter": {"event": {"prefix": ["ctmr."]}}, "limit": 50})
        return {event["event"] for event in found["events"]}

    wait_until(lambda: {"ctmr.run.started", "ctmr.run.finished"} <= events(), "the events of the run")
