"""What is to do and why, after any interruption; a killed run that is run again ends where an undisturbed one does."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from ctmr_core.store import Dataset, FailureRecord, commit, orphans, record_failure, resume, seal_missing, status, sweep, verify
from ctmr_core.store.resume import changed_fields
from tests.store import store_maker
from tests.store.store_maker import generate, make_case, make_dataset, manifest_of, reject_case, write_case

CASES = 7
resume_module = importlib.import_module("ctmr_core.store.resume")  # the package offers the function under the same name


def _failed(case: object, status: str) -> FailureRecord:
    return FailureRecord(case_id=case.case_id, case_key=case.key, status=status, attempts=3, reason="no")


def test_every_undone_case_has_its_reason(tmp_path: Path) -> None:
    cases = [make_case(i, template_digest="t1", engine_identity="e1") for i in range(8)]
    dataset = make_dataset(tmp_path, cases[:6], rejected=(1,))
    planned = [
        cases[0],
        cases[1],
        make_case(2, template_digest="t2", engine_identity="e2"),
        make_case(3, template_digest="t1", engine_identity="e2"),
        make_case(4, template_digest="t1", engine_identity="e1", seed=9),
        *cases[5:],
        make_case(8),
        make_case(9),
    ]
    manifest = manifest_of(planned)
    dataset.adopt(manifest)
    record_failure(dataset.storage, _failed(planned[8], "failed"))
    record_failure(dataset.storage, _failed(planned[9], "quarantined"))
    found = resume(dataset, manifest)
    assert (found.accepted, found.rejected, found.done) == (2, 1, 3)
    assert {todo.case_id[-1]: todo.why for todo in found.todo} == {
        "2": "changed template", "3": "changed engine", "4": "changed row", "6": "new", "7": "new", "8": "failed",
    }  # fmt: skip
    assert [(todo.case_id, todo.why) for todo in found.quarantined] == [("case-0009", "quarantined")]
    assert [planned[todo.position].key for todo in found.todo] == [todo.case_key for todo in found.todo]
    assert found.reasons["new"] == 2
    assert changed_fields(dataset, planned[4]) == ("seed",)
    assert changed_fields(dataset, planned[2]) == ("template_digest", "engine_identity")
    assert changed_fields(dataset, cases[0]) == changed_fields(dataset, planned[8]) == ()
    counts = status(dataset)
    assert {k: counts[k] for k in ("planned", "accepted", "rejected", "failed", "quarantined", "pending", "superseded")} == {
        "planned": 10, "accepted": 2, "rejected": 1, "failed": 1, "quarantined": 1, "pending": 5, "superseded": 3,
    }  # fmt: skip


@pytest.mark.parametrize("few", [0, 5_000])
def test_commits_without_a_row_are_found_and_sealed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few: int) -> None:
    monkeypatch.setattr(resume_module, "_FEW", few)
    cases = [make_case(i) for i in range(6)]
    dataset = make_dataset(tmp_path, cases[:2])
    manifest = manifest_of(cases)
    dataset.adopt(manifest)
    commit(dataset.storage, write_case(dataset, cases[2]))
    commit(dataset.storage, reject_case(cases[3]))
    found = resume(dataset, manifest)
    assert [ref[0] for ref in found.unsealed] == ["case-0002", "case-0003"]
    assert (found.accepted, found.rejected) == (3, 1)
    assert [todo.case_id for todo in found.todo] == ["case-0004", "case-0005"]
    assert status(dataset)["unsealed"] == 2
    digest = verify(dataset).digest
    seal_missing(dataset.storage, found.unsealed)
    dataset.refresh()
    assert status(dataset)["unsealed"] == 0
    assert resume(dataset, manifest).unsealed == ()
    assert verify(dataset).digest == digest


def test_an_empty_dataset_and_an_empty_manifest(tmp_path: Path) -> None:
    dataset = Dataset.create(tmp_path)
    assert resume(dataset, manifest_of([make_case()])).reasons == {"new": 1}
    for empty in (manifest_of([make_case()]).slice(0, 0), manifest_of([])):
        assert resume(dataset, empty).done == 0
    assert status(dataset)["planned"] == 0
    assert verify(dataset).ok


def test_orphans_are_found_and_swept_and_nothing_else(tmp_path: Path) -> None:
    cases = [make_case(i) for i in range(4)]
    dataset = make_dataset(tmp_path, cases[:2])
    commit(dataset.storage, write_case(dataset, cases[2]))
    lost = write_case(dataset, cases[3])
    (tmp_path / ".tmp").mkdir(exist_ok=True)
    (tmp_path / ".tmp" / "left-over").write_bytes(b"x")
    assert orphans(dataset) == [lost.volume]
    assert sweep(dataset) == [lost.volume]
    assert orphans(dataset) == []
    assert not list(tmp_path.glob(".tmp/*"))
    assert verify(dataset).ok
    assert len(list(tmp_path.glob("volumes/*/*"))) == 3


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("undisturbed")
    generate(folder, [make_case(i) for i in range(CASES)])
    report = verify(Dataset.open(folder))
    assert report.ok
    assert report.cases == CASES
    return report.digest


@pytest.mark.parametrize("point", store_maker.CRASH_POINTS)
def test_a_killed_run_leaves_no_half_volume_and_ends_the_same(tmp_path: Path, undisturbed: str, point: str) -> None:
    command = [sys.executable, "-m", "tests.store.store_maker", str(tmp_path), str(CASES), point, "4"]
    killed = subprocess.run(command, check=False, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=120)
    assert killed.returncode == -9, killed.stderr
    crashed = Dataset.open(tmp_path)
    assert len(crashed) == (6 if point == "after the catalog part" else 3)
    assert verify(crashed).ok
    assert verify(crashed).digest != undisturbed
    generate(tmp_path, [make_case(i) for i in range(CASES)])
    again = Dataset.open(tmp_path)
    report = verify(again)
    assert report.ok
    assert report.digest == undisturbed
    assert list(again) == [make_case(i).case_id for i in range(CASES)]
    assert orphans(again) == []
    assert len(list(tmp_path.glob("volumes/*/*"))) == CASES
    assert list(tmp_path.glob("lock/*")) == []


def test_a_finished_set_is_recognised_from_the_catalog_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [make_case(i) for i in range(3)]
    dataset = make_dataset(tmp_path, cases)

    def never(*_: object) -> None:
        raise AssertionError("looked at a commit record")

    monkeypatch.setattr(resume_module, "commit_refs", never)
    monkeypatch.setattr(resume_module, "read_commit_named", never)
    assert resume(dataset, manifest_of(cases)).todo == ()


def test_the_manifest_copy_is_written_once(tmp_path: Path) -> None:
    manifest = manifest_of([make_case(i) for i in range(3)])
    Dataset.create(tmp_path, manifest)
    before = (tmp_path / "manifest.parquet").stat().st_mtime_ns
    Dataset.create(tmp_path, manifest.take(pa.array([2, 0, 1])))
    assert (tmp_path / "manifest.parquet").stat().st_mtime_ns == before
    assert Dataset.open(tmp_path).manifest.equals(manifest)
