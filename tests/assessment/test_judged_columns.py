"""Catalogs remember which checks ran, in which version, under which policy."""

from __future__ import annotations

from pathlib import Path

from ctmr_core.quality.base import versioned
from ctmr_core.quality.judge import judge
from ctmr_core.quality.policy import Policy
from ctmr_core.quality.registry import load_checks
from ctmr_core.store import CommitRecord, Dataset, build_row, commit, compact, new_attempt_id, seal
from ctmr_core.store.catalog import SCHEMA, parquet_bytes, read_parts, rows_table
from ctmr_core.store.layout import part_name
from tests.quality.test_judge import candidate
from tests.store.store_maker import make_case, manifest_of, reject_case

ADDED = ["judged", "policy_digest"]


def test_a_verdict_names_the_checks_that_ran_and_its_policy():
    plain = candidate(checks={"overlap": False})
    verdict = judge(plain)
    assert verdict.policy == Policy().digest_for(plain.case) != Policy().digest
    ran = [versioned(check) for check in load_checks() if check.name in {result.check for result in verdict.results}]
    assert list(verdict.checks) == ran
    assert not any(name.startswith("overlap@") for name in ran)
    assert "geometry@1" in ran


def test_a_verdict_by_chosen_checks_names_no_policy():
    assert judge(candidate(), []).policy == ""


def test_the_catalog_keeps_both(tmp_path: Path):
    case = make_case()
    verdict = judge(candidate())
    dataset = Dataset.create(tmp_path / "d", manifest_of([case]))
    row = build_row(case, verdict=verdict)
    commit(dataset.storage, CommitRecord.rejected(case.case_id, case.key, attempt=0, attempt_id=new_attempt_id(), row=row))
    seal(dataset.storage, "u", [(case.case_id, case.key)])
    (back,) = read_parts(dataset.storage, ADDED).to_pylist()
    assert back == {"judged": list(verdict.checks), "policy_digest": verdict.policy}


def test_parts_of_earlier_releases_are_read_and_merged_with_nulls(tmp_path: Path):
    cases = [make_case(number) for number in range(4)]
    dataset = Dataset.create(tmp_path / "d", manifest_of(cases))
    old = rows_table(reject_case(case).catalog_row() for case in cases[:2]).drop_columns(ADDED)
    dataset.storage.create(part_name("old"), parquet_bytes(old))
    new = rows_table({**reject_case(case).catalog_row(), "judged": ["labels@1"], "policy_digest": "ab"} for case in cases[2:])
    dataset.storage.create(part_name("new"), parquet_bytes(new))
    expected = [(None, None)] * 2 + [(["labels@1"], "ab")] * 2
    for columns in (["case_id", *ADDED], None):
        rows = sorted(read_parts(dataset.storage, columns).to_pylist(), key=lambda row: row["case_id"])
        assert [(row["judged"], row["policy_digest"]) for row in rows] == expected
    compact(dataset.storage, min_rows=1)
    dataset.refresh()
    table = dataset.ledger.to_table().sort_by("case_id")
    assert table.schema.equals(SCHEMA)
    assert [(row["judged"], row["policy_digest"]) for row in table.to_pylist()] == expected
