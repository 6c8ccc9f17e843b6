"""A real Prefect server and a real Ray cluster, started once, and small manifests to run on them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ctmr_core.cases.case import Case
from ctmr_core.cases.manifest import Manifest
from pipelines.flows.options import GenerateOptions

Write = Callable[[list[Case]], Path]


@pytest.fixture(scope="session", autouse=True)
def own_prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Prefect's database and settings in a folder of this session, so that no user's server is touched."""
    home = tmp_path_factory.mktemp("prefect")
    before = {name: os.environ.get(name) for name in ("PREFECT_HOME", "PREFECT_API_URL")}
    os.environ["PREFECT_HOME"] = str(home)
    os.environ.pop("PREFECT_API_URL", None)
    yield home
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """One local Ray cluster for the tests of a module."""
    import ray

    from pipelines.factory.cluster import ray_cluster

    with ray_cluster(None, cpus=2):
        yield
    assert not ray.is_initialized()


def small_case(name: str, **changes: object) -> Case:
    """A head in T1 that takes about a second."""
    fields: dict[str, object] = {
        "case_id": name,
        "body": "parametric:head",
        "body_seed": 5,
        "sequences": ("mri_t1",),
        "size": (48, 56, 48),
        "spacing": (4.0, 4.0, 4.0),
    }
    return Case.model_validate(fields | changes)


@pytest.fixture
def write_manifest(tmp_path: Path) -> Write:
    def write(cases: list[Case]) -> Path:
        path = tmp_path / "cases.parquet"
        Manifest.from_cases(cases).write(path)
        return path

    return write


@pytest.fixture
def drill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, dict[str, object]]], None]:
    """Tell chosen attempts at chosen cases to fail."""
    path = tmp_path / "faults.json"
    path.write_text("{}", encoding="utf-8")

    def plan(faults: dict[str, dict[str, object]]) -> None:
        path.write_text(json.dumps(faults), encoding="utf-8")

    monkeypatch.setenv("CTMR_FAULTS", str(path))
    return plan


def options(manifest: Path, dataset: Path, **changes: object) -> GenerateOptions:
    return GenerateOptions.model_validate({"manifest": str(manifest), "dataset": str(dataset), "workers": 2} | changes)
