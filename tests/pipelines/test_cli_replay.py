"""A committed case made again is the same; a changed one is told apart."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from ctmr_core.cases.manifest import Manifest
from ctmr_core.store import Dataset
from pipelines.cli.main import app
from pipelines.factory.production import Workshop
from pipelines.factory.work import ActorSettings, WorkUnit
from tests.pipelines.conftest import small_case


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("replay") / "data"
    case, other = small_case("case-0"), small_case("not-made", body_seed=6)
    table = Manifest.from_cases([case, other]).table
    Dataset.create(path, table.append_column("case_key", [[case.key, other.key]]))
    workshop = Workshop(ActorSettings(str(path)))
    report = workshop.make_unit(WorkUnit((case,)), threading.Event())
    workshop.close()
    assert [outcome.status for outcome in report.outcomes] == ["accepted"]
    return path


def replay(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["replay", *arguments])
    return result.exit_code, result.output


def test_a_committed_case_is_made_again_voxel_for_voxel(dataset: Path) -> None:
    code, output = replay(str(dataset), "case-0", "--json")
    assert code == 0
    answer = json.loads(output)
    assert answer["identical"]
    assert answer["differing"] == {"mri_t1": 0, "labels": 0}
    assert answer["parameters"]["images"]["mri_t1"]["tr_ms"] > 0


def test_another_attempt_has_other_noise_and_nothing_to_compare_with(dataset: Path) -> None:
    code, output = replay(str(dataset), "case-0", "--attempt", "1")
    assert code == 0
    assert "nothing is committed to compare with" in output


def test_a_case_that_was_never_made_can_be_made(dataset: Path) -> None:
    code, output = replay(str(dataset), "not-made")
    assert code == 0
    assert "not-made, attempt 1: accepted" in output


def test_voxels_that_differ_are_counted(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ctmr_core.engines.tissue.engine import TissueEngine

    render = TissueEngine.render

    def brighter(*arguments: object) -> object:
        images = render(*arguments)  # type: ignore[arg-type]
        images["mri_t1"] = images["mri_t1"] + np.int16(1)
        return images

    monkeypatch.setattr(TissueEngine, "render", brighter)
    code, output = replay(str(dataset), "case-0")
    assert code == 1
    assert "mri_t1: 129,024 voxels differ" in output
    assert "labels: identical" in output


def test_an_unknown_case_is_refused(dataset: Path) -> None:
    code, output = replay(str(dataset), "nobody")
    assert code == 1
    assert "nobody" in output
