"""The catalog: every committed case once, in files that don't depend on who wrote them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from ctmr_core.anatomy.label_census import take_census
from ctmr_core.cases.case import Case
from ctmr_core.errors import IntegrityError, StoreError
from ctmr_core.quality.base import CheckResult, Verdict
from ctmr_core.store import CommitRecord, build_row, commit, compact, new_attempt_id, open_storage, seal, seal_missing
from ctmr_core.store.catalog import SCHEMA, catalog_state, parquet_bytes, read_parts, rows_table, seal_records
from ctmr_core.store.commits import read_commit
from ctmr_core.store.storage import Storage
from tests.store.store_maker import make_case, make_label_map, reject_case


def _commit_rejected(storage: Storage, cases: list[Case]) -> list[tuple[str, str]]:
    for case in cases:
        record = reject_case(case).model_copy(update={"attempt_id": f"a-{case.case_id}"})
        commit(storage, record)
    return [(case.case_id, case.key) for case in cases]


def test_a_row_holds_what_was_asked_and_what_was_found() -> None:
    case = make_case(7, lesions=({"label": "hepatic tumor", "diameter": 12.5},), engine_parameters={"dose": 0.5})
    label_map = make_label_map(case.size, 1)
    census = take_census(label_map)
    verdict = Verdict((CheckResult("anatomy", {"volume": 1.5}), CheckResult("noise", {"level": 2.0}, ("too noisy",))))
    row = build_row(
        case, label_map=label_map, census=census, verdict=verdict, image_parameters={"ct": {"kV": 120}}, engine_version="1",
        versions={"zarr": "3", "numpy": "2"}, licences=["CC-BY-4.0"], timings={"render": 1.25}, host="h",
    )  # fmt: skip
    record = CommitRecord.rejected(case.case_id, case.key, attempt=2, attempt_id="x", row=row)
    (back,) = rows_table([CommitRecord.model_validate_json(record.model_dump_json()).catalog_row()]).to_pylist(
        maps_as_pydicts="strict"
    )
    assert set(back) == set(SCHEMA.names)
    assert (back["case_key"], back["status"], back["attempt"], back["volume"]) == (case.key, "rejected", 2, None)
    assert back["lesions"] == [{"label": "hepatic tumor", "diameter": 12.5}]
    assert tuple(back["size"]) == case.size
    assert back["scores"] == {"anatomy/volume": 1.5, "noise/level": 2.0}
    assert back["reasons"] == ["noise: too noisy"]
    assert back["versions"] == {"zarr": "3", "numpy": "2"}
    assert back["label_ids"] == sorted(census.labels)
    for label, voxels, box, places in zip(
        back["label_ids"], back["label_voxels"], back["label_boxes"], back["label_samples"], strict=True
    ):
        assert voxels == (label_map.voxels == label).sum()
        assert tuple(box) == census.entries[label].box
        assert all(label_map.voxels[tuple(place)] == label for place in places)
    assert back["affine"] == list(label_map.affine.reshape(-1))


def test_unknown_columns_and_wrong_values_are_refused() -> None:
    row = reject_case(make_case()).catalog_row()
    with pytest.raises(StoreError, match="no such column"):
        rows_table([{**row, "surprise": 1}])
    with pytest.raises(StoreError, match="wrong kind"):
        rows_table([{**row, "scores": {"a": "high"}}])


def test_equal_commits_give_equal_parts_in_any_order(tmp_path: Path) -> None:
    parts = []
    for folder, reverse in (("a", False), ("b", True)):
        (tmp_path / folder).mkdir()
        storage = open_storage(tmp_path / folder)
        refs = _commit_rejected(storage, [make_case(i) for i in range(9)])
        name = seal(storage, "u7", reversed(refs) if reverse else refs)
        assert name == seal(storage, "u7", refs)
        assert name == seal_records(storage, "u7", [found for ref in refs if (found := read_commit(storage, *ref))])
        assert len(list((tmp_path / folder / "catalog").iterdir())) == 1
        parts.append((name, storage.read(str(name))))
    assert parts[0] == parts[1]
    ids = pq.read_table(tmp_path / "a" / parts[0][0], columns=["case_id"])["case_id"].to_pylist()
    assert ids == sorted(ids)


def test_sealing_takes_the_committed_cases_and_no_others(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    cases = [make_case(i) for i in range(4)]
    _commit_rejected(storage, cases[:2])
    refs = [(case.case_id, case.key) for case in cases]
    assert seal(storage, "none", refs[2:]) is None
    seal(storage, "u", refs)
    assert read_parts(storage, ["case_id"]).num_rows == 2
    _commit_rejected(storage, cases[2:])
    seal_missing(storage, [(case.case_id, case.key[:16]) for case in cases[2:]])
    assert sorted(read_parts(storage, ["case_id"])["case_id"].to_pylist()) == [case.case_id for case in cases]


def test_compaction_keeps_every_row_once_and_readers_keep_their_files(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    refs = _commit_rejected(storage, [make_case(i) for i in range(24)])
    for unit in range(4):
        seal(storage, f"u{unit}", refs[unit * 5 : unit * 5 + 5])
    seal(storage, "again", refs[3:7])  # sealed twice by a run that did not know better
    before = catalog_state(storage)
    after = compact(storage, min_rows=10)
    assert after.version == 1
    assert len(after.parts) == 1
    ids = read_parts(storage, ["case_id"])["case_id"].to_pylist()
    assert ids == [case_id for case_id, _ in refs[:20]]
    assert all(storage.stat(name) for name in before.parts)

    seal(storage, "late", refs[20:])
    assert read_parts(storage, ["case_id"]).num_rows == 24
    assert compact(storage, min_rows=10) == catalog_state(storage)
    seal(storage, "again", refs[3:7])  # a part that was merged long ago appears anew
    assert all(storage.stat(name) for name in before.parts)
    final = compact(storage, min_rows=100, keep_seconds=0)
    assert sorted(read_parts(storage, ["case_id"])["case_id"].to_pylist()) == [case_id for case_id, _ in refs]
    assert not any(storage.stat(name) for name in before.parts if name not in final.parts and "again" not in name)
    listed = {name: hashlib.sha256(storage.read(name)).hexdigest()[:16] for name in final.parts}
    assert all(digest in name for name, digest in listed.items() if "merged" in name)


def test_compacting_twice_changes_nothing(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    refs = _commit_rejected(storage, [make_case(i) for i in range(6)])
    seal(storage, "a", refs[:3])
    seal(storage, "b", refs[3:])
    assert compact(storage) == compact(storage)


def test_a_lost_or_damaged_part_names_its_file(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    refs = _commit_rejected(storage, [make_case(i) for i in range(6)])
    name = str(seal(storage, "a", refs[:3]))
    whole = storage.read(name)
    storage.write(name, whole[: len(whole) // 2])
    with pytest.raises(IntegrityError, match=name):
        read_parts(storage)
    storage.write(name, whole)
    seal(storage, "b", refs[3:])
    (merged,) = compact(storage).parts
    storage.delete(merged)
    with pytest.raises(IntegrityError, match=merged):
        read_parts(storage)


def test_parquet_bytes_are_a_function_of_the_table() -> None:
    rows = [CommitRecord.rejected(c.case_id, c.key, attempt=0, attempt_id=new_attempt_id(), row=build_row(c)).catalog_row()
            for c in (make_case(1), make_case(0))]  # fmt: skip
    assert parquet_bytes(rows_table(rows)) == parquet_bytes(rows_table(rows[::-1]))
