"""``ctmr snapshot``, ``status`` and ``release`` on datasets that no run holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ctmr_core.store import Dataset, FailureRecord, RunLock, commit, create_snapshot, record_failure, seal, status
from ctmr_core.store.runs import RunRecord, write_run
from ctmr_core.store.snapshot_diff import Distribution
from pipelines.cli.main import app
from pipelines.cli.snapshot import most_moved
from tests.store.store_maker import make_case, make_dataset, manifest_of, write_case


def run(*arguments: object, code: int = 0) -> str:
    answer = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert answer.exit_code == code, answer.output
    return answer.output


def answer_of(*arguments: object) -> Any:
    return json.loads(run(*arguments, "--json"))


def test_of_hundreds_of_scores_a_comparison_shows_those_that_moved_most() -> None:
    one = (0.0, 0.0, 0.0)
    numbers = {f"score a/{i}": Distribution(one, one, i / 100) for i in range(30)}
    numbers |= {"score gone/x": Distribution(one, None, 1.0), "lesions per case": Distribution(one, one, 0.01)}
    shown = most_moved(numbers, most=5)
    assert list(shown) == [*(f"score a/{i}" for i in range(25, 30)), "lesions per case"]


def test_two_nights_are_kept_and_compared(tmp_path: Path) -> None:
    cases = [make_case(i) for i in range(3)]
    dataset = make_dataset(tmp_path / "set", cases)
    recipe = Path(__file__).parents[2] / "manifests" / "demo.yaml"
    first = answer_of("snapshot", "create", dataset.uri, "--name", "night-1", "--recipe", recipe, "--note", "first")
    assert (first["cases"], first["recipe"]["name"], first["note"]) == (3, "demo", "first")
    assert answer_of("snapshot", "create", dataset.uri, "--name", "night-1") == first

    new = make_case(3, sequences=("ct",))
    dataset.adopt(manifest_of([new]))
    commit(dataset.storage, write_case(dataset, new))
    seal(dataset.storage, "unit-1", [(new.case_id, new.key)])
    assert "night-2" in run("snapshot", "create", dataset.uri, "--name", "night-2")
    assert [entry["name"] for entry in answer_of("snapshot", "list", dataset.uri)] == ["night-1", "night-2"]
    assert answer_of("snapshot", "list", dataset.uri)[1]["parent"] == "night-1"
    assert first["digest"] in run("snapshot", "show", dataset.uri, first["digest"][:5])
    diff = answer_of("snapshot", "diff", dataset.uri, "night-1", "night-2")
    assert (diff["added"], diff["removed"], diff["changed"], diff["same"]) == (["case-0003"], [], [], False)
    assert diff["strata"]["sequences"] == {"ct": [0, 1]}
    assert "1 added, 0 removed, 0 changed" in run("snapshot", "diff", dataset.uri, "night-1", "night-2")
    assert "the same cases" in run("snapshot", "diff", dataset.uri, "night-1", "night-1")
    run("snapshot", "delete", dataset.uri, "night-1")
    assert [entry["name"] for entry in answer_of("snapshot", "list", dataset.uri)] == ["night-2"]
    run("snapshot", "show", dataset.uri, "night-1", code=1)


def test_a_snapshot_of_listed_cases(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path / "set", [make_case(i) for i in range(3)])
    listed = tmp_path / "cases.txt"
    listed.write_text("case-0002\n\ncase-0000\n")
    made = answer_of("snapshot", "create", dataset.uri, "--cases", listed)
    assert list(Dataset.open(dataset.uri, made["name"])) == ["case-0000", "case-0002"]
    listed.write_text("case-0009\n")
    run("snapshot", "create", dataset.uri, "--cases", listed, code=1)


def test_released_cases_are_tried_again(tmp_path: Path) -> None:
    cases = [make_case(i) for i in range(4)]
    dataset = make_dataset(tmp_path, cases[:1])
    dataset.adopt(manifest_of(cases))
    for case, outcome in zip(cases[1:], ("failed", "quarantined", "quarantined"), strict=True):
        failure = FailureRecord(case_id=case.case_id, case_key=case.key, status=outcome, attempts=3, reason="no")
        record_failure(dataset.storage, failure)
    run("release", dataset.uri, code=2)
    run("release", dataset.uri, "case-0002", "--all", code=2)
    run("release", dataset.uri, "case-0002", "case-0000", code=1)
    assert status(dataset)["quarantined"] == 2
    assert answer_of("release", dataset.uri, "case-0002") == {"released": ["case-0002"]}
    assert (status(dataset)["quarantined"], status(dataset)["pending"]) == (1, 1)
    assert "2 cases released" in run("release", dataset.uri, "--all")
    assert status(dataset)["pending"] == 3


def test_status_tells_of_runs_snapshots_and_who_holds_the_dataset(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, [make_case(i) for i in range(2)])
    plain = answer_of("status", dataset.uri)
    assert (plain["accepted"], plain["snapshots"], plain["holder"], plain["last_run"]) == (2, 0, None, None)
    create_snapshot(dataset)
    write_run(
        dataset.storage, RunRecord(accepted=2, seconds=60.0, workers=2, efficiency=0.9, stages={"render": 90.0, "body": 30.0})
    )
    with RunLock(dataset.storage) as lock:
        told = answer_of("status", dataset.uri)
        assert (told["snapshots"], told["holder"]) == (1, str(lock.holder))
        assert told["last_run"]["efficiency"] == 0.9
        assert "render 75%" in run("status", dataset.uri).replace("\n", " ")


@pytest.mark.parametrize("as_json", [True, False])
def test_watching_ends_when_every_case_has_its_outcome(tmp_path: Path, as_json: bool) -> None:
    dataset = make_dataset(tmp_path, [make_case(i) for i in range(3)], rejected=(1,))
    output = run("status", dataset.uri, "--watch", *(["--json"] if as_json else []))
    if as_json:
        (sample,) = [json.loads(line) for line in output.splitlines()]
        assert (sample["planned"], sample["committed"], sample["rejected"], sample["pending"]) == (3, 3, 1, 0)
    else:
        assert "3/3 cases" in output
        assert "nothing is left to make" in output.replace("\n", " ")
