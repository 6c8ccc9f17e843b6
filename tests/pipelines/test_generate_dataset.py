"""The flow on a real Prefect server and a real Ray cluster."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ctmr_core.errors import CtmrError, StoreError
from ctmr_core.store import Dataset, RunLock, open_storage, status, verify
from pipelines.factory.tally import Progress
from pipelines.flows.generate_dataset import run_generate_dataset
from tests.pipelines.conftest import Write, options, small_case

pytestmark = pytest.mark.usefixtures("cluster")


def digest_of(dataset: Path) -> str:
    report = verify(Dataset.open(dataset))
    assert not report.problems
    return report.digest


def test_every_case_of_the_manifest_is_committed_and_counted(write_manifest: Write, tmp_path: Path) -> None:
    manifest = write_manifest([small_case(f"case-{i}", body_seed=i) for i in range(4)])
    seen: list[Progress] = []
    summary = run_generate_dataset(options(manifest, tmp_path / "out"), seen.append)
    assert (summary.planned, summary.accepted, summary.failed, summary.quarantined) == (4, 4, 0, 0)
    assert summary.complete
    assert summary.reasons == {"new": 4}
    assert seen[-1].done == 4
    assert any(actor.case_id.startswith("case-") for progress in seen for actor in progress.actors.values())
    dataset = Dataset.open(tmp_path / "out")
    assert list(dataset) == [f"case-{i}" for i in range(4)]
    row = dataset.row("case-2")
    assert row["engine_identity"].startswith("tissue/")
    assert row["versions"]["torch"]
    assert set(row["timings"]) >= {"body", "render", "check"}


def test_one_and_two_workers_give_the_same_dataset(write_manifest: Write, tmp_path: Path) -> None:
    manifest = write_manifest([small_case(f"case-{i}", body_seed=i) for i in range(3)])
    run_generate_dataset(options(manifest, tmp_path / "one", workers=1))
    run_generate_dataset(options(manifest, tmp_path / "two", workers=2, unit_size=2))
    assert digest_of(tmp_path / "one") == digest_of(tmp_path / "two")


def test_a_second_run_makes_only_what_is_missing_and_says_why(write_manifest: Write, tmp_path: Path) -> None:
    cases = [small_case(f"case-{i}") for i in range(3)]
    run_generate_dataset(options(write_manifest(cases), tmp_path / "out", limit=2))
    assert status(Dataset.open(tmp_path / "out"))["pending"] == 1
    changed = [cases[0], small_case("case-1", seed=1), cases[2], small_case("case-3")]
    summary = run_generate_dataset(options(write_manifest(changed), tmp_path / "out"))
    assert summary.reasons == {"changed row": 1, "new": 2}
    assert summary.done_before == 1
    assert status(Dataset.open(tmp_path / "out"))["superseded"] == 1
    nothing = run_generate_dataset(options(write_manifest(changed), tmp_path / "out"))
    assert (nothing.reasons, nothing.done_before, nothing.accepted) == ({}, 4, 0)


def test_a_dataset_in_use_is_refused_with_its_holder(write_manifest: Write, tmp_path: Path) -> None:
    manifest = write_manifest([small_case("case-0")])
    Dataset.create(tmp_path / "out")
    lock = RunLock(open_storage(tmp_path / "out")).acquire()
    try:
        with pytest.raises(StoreError, match=r"process \d+ on"):
            run_generate_dataset(options(manifest, tmp_path / "out"))
    finally:
        lock.release()


def test_a_case_no_engine_can_render_is_refused_before_any_work(write_manifest: Write, tmp_path: Path) -> None:
    manifest = write_manifest([small_case("good"), small_case("bad", engine_parameters={"ct": {"doze": 2}})])
    with pytest.raises(CtmrError, match=r"case bad[\s\S]*doze"):
        run_generate_dataset(options(manifest, tmp_path / "out"))
    assert not (tmp_path / "out" / "volumes").exists()


def test_a_lesion_the_body_cannot_have_is_refused_before_any_work(write_manifest: Write, tmp_path: Path) -> None:
    manifest = write_manifest([small_case("good"), small_case("bad", lesions=[{"label": "hepatic tumor", "diameter": 20}])])
    with pytest.raises(CtmrError, match=r"row 2, case bad, field lesions[\s\S]*hepatic tumor"):
        run_generate_dataset(options(manifest, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_skip_invalid_leaves_bad_rows_out_and_reports_them(write_manifest: Write, tmp_path: Path) -> None:
    manifest = write_manifest([small_case("good"), small_case("bad", engine="no-such-engine")])
    summary = run_generate_dataset(options(manifest, tmp_path / "out", skip_invalid=True))
    assert (summary.planned, summary.accepted) == (1, 1)
    assert "bad" in summary.skipped_rows[0]


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_manifest_written_by_hand_gives_the_dataset_of_a_planned_one(
    suffix: str, write_manifest: Write, tmp_path: Path
) -> None:
    planned = write_manifest([small_case("by-hand", split="val")])
    written = tmp_path / f"cases.{suffix}"
    if suffix == "csv":
        written.write_text(
            "case_id,body,body_seed,split,sequences,size,spacing\nby-hand,parametric:head,5,val,mri_t1,48x56x48,4x4x4\n",
            encoding="utf-8",
        )
    else:
        row = {"case_id": "by-hand", "body": "parametric:head", "body_seed": 5, "split": "val", "sequences": ["mri_t1"]}
        written.write_text(json.dumps(row | {"size": [48, 56, 48], "spacing": [4, 4, 4]}) + "\n", encoding="utf-8")
    run_generate_dataset(options(planned, tmp_path / "planned", workers=1))
    run_generate_dataset(options(written, tmp_path / "written", workers=1))
    assert digest_of(tmp_path / "written") == digest_of(tmp_path / "planned")
