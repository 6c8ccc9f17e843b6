"""The compose file: valid, local, without secrets."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.infra.conftest import INFRA, Tool, documents

FILE = INFRA / "compose" / "compose.yaml"
EXAMPLE = INFRA / "compose" / "factory.env.example"


def filled_in(folder: Path, without: str = "-") -> Path:
    """The example with a value for every secret, but for one."""
    path = folder / "factory.env"
    path.write_text(re.sub(rf"(?m)^((?!{without}=)\w+)=$", r"\1=a:b", EXAMPLE.read_text()))
    return path


def config(tool: Tool, env: Path, *more: str) -> subprocess.CompletedProcess[str]:
    options = ("--env-file", env, "-f", FILE, *more)
    return tool("docker-compose", *options, "config", "--format", "json", env={"PATH": "/usr/bin:/bin"})


def test_it_follows_the_compose_specification(tool: Tool) -> None:
    found = tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", FILE)
    assert found.returncode == 0, found.stdout + found.stderr


def test_every_service_resolves_and_listens_on_this_machine_only(tool: Tool, tmp_path: Path) -> None:
    found = config(tool, filled_in(tmp_path), "--profile", "*")
    assert found.returncode == 0, found.stderr
    services = json.loads(found.stdout)["services"]
    assert set(services) == {
        "postgres", "prefect-server", "ray-head", "ray-worker", "ray-worker-gpu", "s3", "prometheus", "grafana",
    }  # fmt: skip
    for name, service in services.items():
        assert service.get("healthcheck", {}).get("test"), name
        assert not service.get("privileged"), name
        assert service.get("network_mode") is None, name
        for port in service.get("ports", []):
            assert port["host_ip"] == "127.0.0.1", name
        for mount in service.get("volumes", []):
            assert mount["type"] == "volume" or mount.get("read_only"), name
        if not service["image"].startswith("ctmr-factory"):
            assert re.search(r":v?\d+\.\d+", service["image"]), name


def test_profiles_start_only_what_was_asked_for(tool: Tool, tmp_path: Path) -> None:
    env = filled_in(tmp_path)
    plain = json.loads(config(tool, env).stdout)["services"]
    assert set(plain) == {"postgres", "prefect-server", "ray-head", "ray-worker"}
    assert {"prometheus", "grafana"} <= set(json.loads(config(tool, env, "--profile", "monitoring").stdout)["services"])


@pytest.mark.parametrize("name", re.findall(r"(?m)^(\w+)=$", EXAMPLE.read_text()))
def test_a_secret_that_is_not_set_is_refused(tool: Tool, tmp_path: Path, name: str) -> None:
    found = config(tool, filled_in(tmp_path, without=name), "--profile", "*")
    assert found.returncode != 0
    assert name in found.stderr


def test_no_value_of_a_secret_is_written_down() -> None:
    for service in documents(FILE)[0]["services"].values():
        for name, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD|SECRET|TOKEN|AUTH_STRING|ACCESS_KEY", name):
                assert value.startswith("${"), name
