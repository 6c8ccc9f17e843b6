"""Watching a dataset grow, and knowing whether a run left commits unsealed, without reading everything again."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pytest

from ctmr_core.store import Dataset, FailureRecord, RunLock, commit, compact, open_storage, record_failure, seal, status
from ctmr_core.store.progress import Watch, lock_holder
from ctmr_core.store.resume import close_runs, open_run, runs_left_open, unsealed_among, unsealed_commits
from tests.store.store_maker import make_case, make_dataset, manifest_of, reject_case, write_case

resume_module = importlib.import_module("ctmr_core.store.resume")


def test_a_watched_dataset_is_counted_as_it_grows(tmp_path: Path) -> None:
    cases = [make_case(i) for i in range(6)]
    dataset = make_dataset(tmp_path, cases[:2])
    dataset.adopt(manifest_of(cases))
    watch = Watch(Dataset.open(tmp_path))
    first = watch.sample()
    assert (first.planned, first.committed, first.pending, first.per_minute) == (6, 2, 4, None)
    for case in cases[2:4]:
        commit(dataset.storage, reject_case(case))
    record_failure(
        dataset.storage, FailureRecord(case_id="case-0005", case_key=cases[5].key, status="quarantined", attempts=1, reason="no")
    )
    second = watch.sample()
    assert (second.committed, second.rejected, second.quarantined, second.pending) == (4, 0, 1, 1)
    assert second.per_minute > 0
    assert second.eta_seconds == pytest.approx(60 / second.per_minute)
    seal(dataset.storage, "u1", [(case.case_id, case.key) for case in cases[2:4]])
    compact(dataset.storage, min_rows=100)
    assert watch.sample().rejected == 2
    commit(dataset.storage, write_case(dataset, cases[4]))
    assert watch.sample().finished
    dataset.adopt(manifest_of([make_case(0, seed=1), make_case(6)]))
    again = watch.sample()
    assert (again.planned, again.committed, again.pending) == (7, 4, 2)
    assert {name: status(Dataset.open(tmp_path))[name] for name in ("planned", "pending")} == {"planned": 7, "pending": 2}


def test_the_holder_is_told(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, [])
    assert lock_holder(dataset.storage) is None
    with RunLock(dataset.storage) as lock:
        holder = lock_holder(dataset.storage)
        assert holder is not None
        assert holder[0] == lock.holder


def test_a_run_marks_that_it_commits_until_it_has_sealed(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    assert runs_left_open(storage) == []
    open_run(storage, "0123abcd")
    assert runs_left_open(storage) == ["catalog/_open/0123abcd.json"]
    close_runs(storage, runs_left_open(storage))
    assert runs_left_open(storage) == []


@pytest.mark.parametrize("few", [0, 5_000])
def test_unsealed_cases_of_a_run_are_found_among_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few: int) -> None:
    monkeypatch.setattr(resume_module, "_FEW", few)
    cases = [make_case(i) for i in range(6)]
    dataset = make_dataset(tmp_path, cases[:2])
    manifest = manifest_of(cases)
    for case in cases[2:5]:
        commit(dataset.storage, reject_case(case))
    (tmp_path / "commits" / "00").mkdir(exist_ok=True)
    (tmp_path / "commits" / "00" / "stray.file.json").write_text("{}")
    found = unsealed_among(dataset, manifest, np.array([0, 2, 3, 5]))
    assert [case_id for case_id, _ in found] == ["case-0002", "case-0003"]
    assert [case_id for case_id, _ in unsealed_commits(dataset)] == ["case-0002", "case-0003", "case-0004"]
