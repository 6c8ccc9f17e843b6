"""A snapshot shows the cases it was made of, for ever, whatever happens to the dataset."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pyarrow.dataset as pads
import pytest

from ctmr_core.errors import IntegrityError, StoreError
from ctmr_core.store import (
    Dataset,
    commit,
    compact,
    create_snapshot,
    delete_snapshot,
    diff_snapshots,
    list_snapshots,
    read_snapshot,
    seal,
    snapshot_volumes,
)
from ctmr_core.store import snapshots as snapshots_module
from tests.store.store_maker import make_case, make_dataset, manifest_of, write_case


def _grow(dataset: Dataset, cases: list[object], unit: str) -> Dataset:
    dataset.adopt(manifest_of(cases))
    for case in cases:
        commit(dataset.storage, write_case(dataset, case))
    seal(dataset.storage, unit, [(case.case_id, case.key) for case in cases])
    return Dataset.open(dataset.uri)


def test_a_snapshot_holds_the_accepted_cases_and_says_what_they_are(tmp_path: Path) -> None:
    cases = [make_case(i, split="val" if i > 2 else "train") for i in range(5)]
    dataset = make_dataset(tmp_path, cases, rejected=(1,))
    made = create_snapshot(dataset, "night-1", recipe={"name": "quick"}, note="the first")
    assert made == read_snapshot(dataset.storage, "night-1") == read_snapshot(dataset.storage, made.digest[:6])
    assert (made.cases, made.bytes) == (4, sum(dataset.to_pandas()["bytes"]))
    assert made.counts["split"] == {"train": 2, "val": 2}
    assert made.counts["sequences"] == {"ct+mri_t1": 4}
    assert made.recipe == {"name": "quick"}
    assert made.digest in made.card
    assert "the first" in made.card
    assert made.table(["case_id"])["case_id"].to_pylist() == list(dataset)
    assert set(snapshot_volumes(dataset.storage)) == set(dataset.to_pandas()["volume"])


def test_the_same_cases_are_the_same_snapshot_whoever_made_them(tmp_path: Path) -> None:
    cases = [make_case(i) for i in range(3)]
    first = create_snapshot(make_dataset(tmp_path / "a", cases), note="one")
    again = create_snapshot(Dataset.open(tmp_path / "a"), note="two")
    other = create_snapshot(make_dataset(tmp_path / "b", cases[::-1]), "other")
    assert again == first
    assert first.name == first.digest[:12]
    assert other.digest == first.digest
    assert other.rows_files == first.rows_files


def test_a_name_never_stands_for_other_cases(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, [make_case(i) for i in range(3)])
    create_snapshot(dataset, "v1")
    with pytest.raises(StoreError, match="never change"):
        create_snapshot(dataset, "v1", cases=["case-0000"])
    for name in ("../v1", "", "a/b", ".hidden"):
        with pytest.raises(StoreError):
            create_snapshot(dataset, name)


def test_cases_can_be_chosen_by_id_and_by_expression(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, [make_case(i, split="val" if i > 2 else "train") for i in range(5)], rejected=(4,))
    assert list(Dataset.open(tmp_path, create_snapshot(dataset, cases=["case-0002", "case-0000"]).name)) == [
        "case-0000",
        "case-0002",
    ]
    assert list(Dataset.open(tmp_path, create_snapshot(dataset, filter=pads.field("split") == "val").name)) == ["case-0003"]
    with pytest.raises(StoreError, match="case-0004"):
        create_snapshot(dataset, cases=["case-0004"])
    part = create_snapshot(Dataset.open(tmp_path, create_snapshot(dataset).name), "part", cases=["case-0001"])
    assert part.table(["case_id"])["case_id"].to_pylist() == ["case-0001"]


def test_growing_replanning_and_superseding_leave_old_snapshots_as_they_were(tmp_path: Path) -> None:
    cases = [make_case(i) for i in range(4)]
    dataset = make_dataset(tmp_path, cases)
    old = create_snapshot(dataset, "before")
    before = Dataset.open(tmp_path, "before")
    rows, volume = before.to_pandas(), before["case-0001"].labels[...]

    changed, new = make_case(1, seed=5), make_case(7, sequences=("ct",), lesions=({"label": "hepatic tumor", "diameter": 9.0},))
    dataset = _grow(dataset, [changed, new], "unit-1")
    compact(dataset.storage, min_rows=100)
    dataset.adopt(manifest_of([make_case(0, seed=1)]))  # planned anew and not made yet: out of sight
    now = create_snapshot(Dataset.open(tmp_path), "after")

    assert list(Dataset.open(tmp_path)) == ["case-0001", "case-0002", "case-0003", "case-0007"]
    for view in (before, Dataset.open(tmp_path, "before"), pickle.loads(pickle.dumps(before))):
        assert list(view) == ["case-0000", "case-0001", "case-0002", "case-0003"]
        assert view.to_pandas().equals(rows)
        assert view.row("case-0001")["case_key"] == cases[1].key
        assert (view["case-0001"].labels[...] == volume).all()
        assert "case-0007" not in view
        assert view.catalog.count_rows() == 4
    assert read_snapshot(dataset.storage, "before") == old
    assert now.parent == "before"

    diff = diff_snapshots(old, now)
    assert (diff.added, diff.removed, diff.changed) == (("case-0007",), ("case-0000",), ("case-0001",))
    assert diff.strata["sequences"] == {"ct": (0, 1), "ct+mri_t1": (4, 3)}
    assert diff.strata["lesions"] == {"hepatic tumor": (0, 1), "none": (4, 3)}
    assert "split" not in diff.strata
    assert diff.distributions["lesion diameter, mm"].after == (9.0, 9.0, 9.0)
    assert "slice thickness, mm" not in diff.distributions
    assert diff_snapshots(now, now).same


def test_a_snapshot_of_a_dataset_that_grew_stores_what_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots_module, "_MEAN_PIECE", 4)
    monkeypatch.setattr(snapshots_module, "_MOST_ROWS", 6)
    dataset = make_dataset(tmp_path, [make_case(i, size=(16, 16, 16)) for i in range(24)], rejected=tuple(range(1, 24, 7)))
    first = create_snapshot(dataset, "first")
    assert len(first.rows_files) > 2
    dataset = _grow(dataset, [make_case(i, size=(16, 16, 16)) for i in (30, 31)], "more")
    second = create_snapshot(dataset, "second")
    assert first.rows_files[:-1] == second.rows_files[: len(first.rows_files) - 1]
    assert list(Dataset.open(tmp_path, "second")) == list(dataset)
    assert list(Dataset.open(tmp_path, "first")) == list(dataset)[:-2]
    assert diff_snapshots(first, second).added == ("case-0030", "case-0031")

    shared = set(first.rows_files) & set(second.rows_files)
    assert delete_snapshot(dataset.storage, "first") == first
    assert [snapshot.name for snapshot in list_snapshots(dataset.storage)] == ["second"]
    assert all(dataset.storage.stat(name) for name in second.rows_files)
    assert not any(dataset.storage.stat(name) for name in set(first.rows_files) - shared)
    assert len(Dataset.open(tmp_path, "second").to_pandas()) == second.cases


def test_no_cases_make_an_empty_snapshot(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, [])
    create_snapshot(dataset, "empty")
    assert list(Dataset.open(tmp_path, "empty")) == []
    assert Dataset.open(tmp_path, "empty").catalog.count_rows() == 0
    assert diff_snapshots(read_snapshot(dataset.storage, "empty"), read_snapshot(dataset.storage, "empty")).same


def test_what_is_missing_damaged_or_ambiguous_is_named(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, [make_case(i) for i in range(2)])
    with pytest.raises(StoreError, match="none was made yet"):
        Dataset.open(tmp_path, "v1")
    made = create_snapshot(dataset, "v1")
    with pytest.raises(StoreError, match="v1"):
        Dataset.open(tmp_path, "v2")
    rows = tmp_path / made.rows_files[0]
    whole = rows.read_bytes()
    rows.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(IntegrityError, match=rows.name):
        len(Dataset.open(tmp_path, "v1"))
    rows.unlink()
    with pytest.raises(IntegrityError, match=rows.name):
        len(Dataset.open(tmp_path, "v1"))
    document = tmp_path / "snapshots" / "v1.json"
    document.write_text(json.dumps({**json.loads(document.read_text()), "schema": 9}))
    with pytest.raises(StoreError, match=r"v1\.json, field schema"):
        list_snapshots(dataset.storage)
