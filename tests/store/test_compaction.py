"""The catalog stays small and whole while it grows, whoever is killed or reads meanwhile."""

from __future__ import annotations

from pathlib import Path

import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

from ctmr_core.cases.case import Case
from ctmr_core.store import Dataset, commit, compact, open_storage, seal
from ctmr_core.store import compaction as compaction_module
from ctmr_core.store.catalog import catalog_state, read_parts
from ctmr_core.store.compaction import compact_if_due
from ctmr_core.store.storage import Storage
from tests.store.store_maker import make_case, manifest_of, reject_case


def _seal(storage: Storage, cases: list[Case], unit: str) -> None:
    for case in cases:
        commit(storage, reject_case(case))
    seal(storage, unit, [(case.case_id, case.key) for case in cases])


def _ids(storage: Storage) -> list[str]:
    return sorted(read_parts(storage, ["case_id"])["case_id"].to_pylist())


def test_few_files_at_any_time_and_every_row_once(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    cases = [make_case(i) for i in range(60)]
    most, written = 0, 0
    for start in range(0, 60, 2):
        _seal(storage, cases[start : start + 2], f"u{start}")
        most = max(most, len(catalog_state(storage).parts))
        if len(catalog_state(storage).unlisted) >= 4:
            before = set(catalog_state(storage).listed)
            state = compact(storage, min_rows=6, large_rows=24)
            written += sum(entry["rows"] for name, entry in state.listed.items() if name not in before)
    assert _ids(storage) == [case.case_id for case in cases]
    assert most <= 9
    assert written <= 60 * 3
    rows = sorted(entry["rows"] for entry in catalog_state(storage).listed.values())
    assert rows[-1] >= 24


def test_nothing_is_read_when_compaction_is_not_due(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = open_storage(tmp_path)
    for unit in range(3):
        _seal(storage, [make_case(unit)], f"u{unit}")
    monkeypatch.setattr(compaction_module, "compact", lambda _: pytest.fail("not due"))
    assert compact_if_due(storage, due_files=4) is None


def test_an_open_reader_keeps_its_rows_and_a_lost_file_is_found_elsewhere(tmp_path: Path) -> None:
    cases = [make_case(i) for i in range(6)]
    dataset = Dataset.create(tmp_path, manifest_of(cases))
    storage = dataset.storage
    _seal(storage, cases[:3], "a")
    reader = Dataset.open(tmp_path)
    assert reader.ledger.count_rows() == 3
    _seal(storage, cases[3:], "b")
    compact(storage, min_rows=100)
    assert reader.ledger.to_table(columns=["case_id"]).num_rows == 3
    compact(storage, min_rows=100, keep_seconds=0)
    assert len(catalog_state(storage).parts) == 1
    assert not list(tmp_path.glob("catalog/part-*"))
    reader.refresh()
    assert reader.ledger.to_table(columns=["case_id"]).num_rows == 6


def test_two_compactions_at_a_time_lose_and_double_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = open_storage(tmp_path)
    cases = [make_case(i) for i in range(6)]
    for unit in range(2):
        _seal(storage, cases[unit * 2 : unit * 2 + 2], f"u{unit}")
    real, raced = compaction_module.reach, []

    def other_first(point: str, *rest: object) -> None:
        real(point, *rest)
        if point == "compact.merged" and not raced:
            raced.append(True)
            _seal(storage, cases[4:], "late")
            compact(storage, min_rows=100)

    monkeypatch.setattr(compaction_module, "reach", other_first)
    state = compact(storage, min_rows=100)
    assert state.version == 1
    assert _ids(storage) == [case.case_id for case in cases]


def test_a_filter_on_case_ids_or_sequences_touches_few_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctmr_core.store.catalog.ROW_GROUP", 4)
    monkeypatch.setattr("ctmr_core.store.compaction.ROW_GROUP", 4)
    storage = open_storage(tmp_path)
    cases = [make_case(i, sequences=("ct",) if i < 16 else ("mri_t1", "mri_t2")) for i in range(32)]
    _seal(storage, cases[:16], "a")
    _seal(storage, cases[16:], "b")
    (name,) = compact(storage, min_rows=100).parts
    assert pq.read_metadata(tmp_path / name).num_row_groups == 8
    (fragment,) = Dataset(storage)._whole.get_fragments()
    for expression, groups in (
        (pads.field("case_id") == "case-0009", 1),
        (pads.field("sequence_set") == "mri_t1+mri_t2", 4),
        (pads.field("status") == "accepted", 0),
    ):
        assert len(fragment.subset(expression).row_groups) == groups
