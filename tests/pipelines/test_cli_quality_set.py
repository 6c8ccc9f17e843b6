"""``ctmr quality set`` and ``drift``: what is measured, shown and kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from ctmr_core.assessment.set_measures import read_documents
from ctmr_core.assessment.targets import NumberTarget, Targets, keep_targets, targets_of
from ctmr_core.report.judgement import target_lines
from ctmr_core.store import Dataset, create_snapshot
from pipelines.cli.main import app
from tests.assessment.small_sets import add_cases, person, small_case, small_set

CASES = 5


def run(*arguments: object, code: int = 0) -> str:
    answer = CliRunner().invoke(app, ["quality", *(str(argument) for argument in arguments)])
    assert answer.exit_code == code, answer.output
    return answer.output


def answer_of(*arguments: object, code: int = 0) -> Any:
    return json.loads(run(*arguments, "--json", code=code))


@pytest.fixture(autouse=True)
def _few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Intervals of distances take most of the time."""
    monkeypatch.setattr("ctmr_core.assessment.frechet._DRAWS", 3)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return small_set(tmp_path_factory.mktemp("quality") / "set", [small_case(i) for i in range(CASES)])


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scans")
    for seed in range(20, 25):
        label_map, images = person(seed)
        nib.save(nib.Nifti1Image(images["ct"], label_map.affine), folder / f"scan-{seed}.nii.gz")
    return folder


def test_all_measures_are_taken_and_kept(dataset: Dataset, scans: Path, tmp_path: Path) -> None:
    out = tmp_path / "set.json"
    found = answer_of("set", dataset.uri, "--reference", scans, "--pairs", 3, "--out", out)
    assert (found["cases"], found["skipped"], found["verdict"]) == (CASES, {}, {"passed": True, "lines": []})
    assert set(found["measures"]) == {"profile", "duplicates", "frechet", "diversity"}
    distances = found["measures"]["frechet"]["ct"]
    assert (distances["volumes"], distances["reference_volumes"]) == (CASES, 5)
    assert distances["low"] <= distances["distance"] <= distances["high"]
    assert found["measures"]["diversity"]["ct"]["pairs"] == 3
    assert json.loads(out.read_text()) == found
    assert read_documents(dataset)[0] == found
    assert dataset.storage.stat(found["measures"]["duplicates"]["table"]) is not None
    again = answer_of("set", dataset.uri, "--reference", scans, "--pairs", 3, "--workers", 1)
    assert {**again, "made_at": ""} == {**found, "made_at": ""}
    assert len(read_documents(dataset)) == 1


def test_targets_of_the_recipe_count_unless_others_are_given(tmp_path: Path) -> None:
    made = small_set(tmp_path / "set", [small_case(i) for i in range(2)])
    missed = Targets(numbers={"labels": NumberTarget(low=1000)})
    keep_targets(made.storage, Targets(shares={"sequence": {"ct": 1.0}}).model_dump_json())
    assert answer_of("set", made.uri, "--measures", "profile")["verdict"]["passed"]
    keep_targets(made.storage, missed.model_dump_json(exclude_none=True))
    assert targets_of(made) == missed
    found = answer_of("set", made.uri, "--measures", "profile", code=1)
    assert found["settings"]["targets"]["numbers"]["labels"]["low"] == 1000
    (finding,) = target_lines(made)
    assert [finding["line"]] == found["verdict"]["lines"]
    (tmp_path / "others.yaml").write_text("targets: {numbers: {labels: {low: 1}}}\n")
    assert answer_of("set", made.uri, "--measures", "profile", "--targets", tmp_path / "others.yaml")["verdict"]["passed"]


def test_the_cases_digest_is_that_of_a_snapshot(dataset: Dataset) -> None:
    snapshot = create_snapshot(dataset, "all")
    live = answer_of("set", dataset.uri, "--measures", "profile")
    kept = answer_of("set", dataset.uri, "--measures", "profile", "--snapshot", "all")
    assert live["cases_digest"] == kept["cases_digest"] == snapshot.digest
    assert (live["snapshot"], kept["snapshot"], live["digest"]) == ("", "all", kept["digest"])


def test_people_read_tables(dataset: Dataset) -> None:
    shown = run("set", dataset.uri, "--pairs", 2)
    for word in ("5 cases", "sequence", "labels", "ms_ssim", "frechet: left out, no reference was given", "quality/set-"):
        assert word in shown, word


def test_a_network_from_a_file_gives_the_features(dataset: Dataset, scans: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    file = tmp_path / "net.pt"
    torch.jit.script(torch.nn.Conv2d(3, 4, 3).eval()).save(str(file))
    found = answer_of("set", dataset.uri, "--measures", "frechet", "--reference", scans, "--network", file)
    assert found["measures"]["frechet"]["features"]["name"] == "net"
    assert found["measures"]["frechet"]["ct"]["slices"] == CASES * 36  # 12 + 12 + 12 of 32 x 28 x 30


def test_missed_targets_and_copies_end_with_1(tmp_path: Path) -> None:
    cases = [small_case(i, body_seed=i) for i in range(3)]
    dataset = small_set(tmp_path / "set", cases, lambda case: person(min(case.body_seed, 1)))
    targets = tmp_path / "targets.yaml"
    targets.write_text("targets: {shares: {split: {test: 1.0}}}")
    found = answer_of("set", dataset.uri, "--measures", "profile,duplicates", "--targets", targets, code=1)
    assert not found["verdict"]["passed"]
    assert any("split" in line for line in found["verdict"]["lines"])
    assert "1 pair is alike (exact)" in found["verdict"]["lines"]


def test_what_can_not_be_measured_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    assert "no such measure" in run("set", dataset.uri, "--measures", "beauty", code=1)
    assert "there is no reference here" in run("set", dataset.uri, "--reference", tmp_path / "nowhere", code=1)
    (tmp_path / "empty").mkdir()
    assert "has no scans" in run("set", dataset.uri, "--reference", tmp_path / "empty", code=1)
    bad = tmp_path / "bad" / "scan.nii.gz"
    bad.parent.mkdir()
    bad.write_bytes(b"nothing")
    assert "can not be read" in run("set", dataset.uri, "--measures", "frechet", "--reference", bad.parent, code=1)


def test_drift_between_snapshots(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    first = [small_case(i) for i in range(12)]
    dataset = small_set(tmp_path / "set", first, scores={case.case_id: {"noise/ct": rng.normal(10, 1)} for case in first})
    create_snapshot(dataset, "night-1")
    second = [small_case(i) for i in range(12, 36)]
    add_cases(dataset, second, scores={case.case_id: {"noise/ct": rng.normal(40, 1)} for case in second})
    create_snapshot(dataset, "night-2", cases=[case.case_id for case in second])
    found = answer_of("drift", dataset.uri, "night-1", "night-2", code=1)
    assert [entry["what"] for entry in found["moved"]] == ["number score/noise/ct"]
    shown = run("drift", dataset.uri, "night-1", "night-2", code=1)
    assert "score/noise/ct" in shown
    assert "drifted" in shown
    assert "nothing moved" in run("drift", dataset.uri, "night-1", "night-1")
    assert "no such snapshot" in run("drift", dataset.uri, "night-1", "night-9", code=1)


def test_a_set_in_an_object_store_is_measured_there(s3_uri: str) -> None:
    dataset = small_set(s3_uri, [small_case(i) for i in range(3)])
    found = answer_of("set", s3_uri, "--pairs", 1, "--reference", s3_uri, code=1)
    assert found["measures"]["frechet"]["ct"]["distance"] == pytest.approx(0, abs=1e-5)
    assert found["measures"]["duplicates"]["counts"]["reference-image"] == 3  # every case is in the reference, itself
    assert read_documents(dataset)[0]["digest"] == found["digest"]
