"""Judging a finished dataset again: from scores where they are there, from voxels where they are not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from ctmr_core.assessment.judging import rejudge
from ctmr_core.assessment.measuring import MEASURED
from ctmr_core.assessment.stored_scores import ScoreJudge
from ctmr_core.assessment.verdicts import VERDICTS, policies_applied, read_verdicts, share_accepted
from ctmr_core.errors import StoreError
from ctmr_core.quality.noise import NoiseCheck
from ctmr_core.quality.policy import Policy, parse_policy
from ctmr_core.store import Dataset, compact, create_snapshot, seal
from tests.assessment.made import commit_candidate, head_case, make_judged
from tests.quality.test_agreement import Thresholds
from tests.store.store_maker import manifest_of

STRICT = Policy(name="strict", checks={"mr_contrast": {"mri_t1_gm_over_wm_high": 0.41}})


@pytest.fixture
def no_voxels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading a voxel fails the test."""

    def refuse(*_: object) -> None:
        pytest.fail("voxels were read")

    monkeypatch.setattr("ctmr_core.assessment.measuring._candidate", refuse)


def test_the_policy_of_generation_gives_the_verdicts_of_generation(heads, tmp_path, no_voxels):
    dataset, verdicts = make_judged(tmp_path / "d", heads)
    found = rejudge(dataset, Policy())
    assert (found.cases, found.kept, found.measured, found.without_voxels) == (3, 3, 0, 0)
    rows = read_verdicts(dataset, Policy()).to_pylist()
    assert [row["case_id"] for row in rows] == sorted(verdicts)
    for row in rows:
        made = verdicts[row["case_id"]]
        assert (row["accepted"], tuple(row["reasons"])) == (made.accepted, made.reasons)
        assert (row["policy"], tuple(row["checks"])) == (made.policy, made.checks)
        assert row["score"] == Policy().score(made.results)


def test_other_thresholds_reject_from_scores_alone(heads, tmp_path, no_voxels):
    dataset, _ = make_judged(tmp_path / "d", heads)
    found = rejudge(dataset, STRICT)
    assert (found.kept, found.reasons) == (0, {"mr_contrast": 3})
    rows = read_verdicts(dataset, STRICT).to_pylist()
    assert all(row["reasons"][0].startswith("mr_contrast: mri_t1: cortex is") for row in rows)
    assert all(0 < row["score"] < 1 for row in rows)
    assert share_accepted(read_verdicts(dataset, STRICT)) == 0
    advice = STRICT.model_copy(update={"weights": {"mr_contrast": 0}})
    assert rejudge(dataset, advice).kept == 3
    assert {document["digest"] for document in policies_applied(dataset.storage)} == {STRICT.digest, advice.digest}


def test_what_was_never_measured_is_measured_once_and_kept(heads, tmp_path, monkeypatch):
    dataset, verdicts = make_judged(tmp_path / "d", heads, unjudged=(1,))
    assert rejudge(dataset, Policy()).measured == 1
    (file,) = (tmp_path / "d" / "quality").glob("measured-*.parquet")
    (row,) = pq.read_table(file, schema=MEASURED).to_pylist(maps_as_pydicts="strict")
    made = verdicts["head-01"]
    assert row["scores"] == pytest.approx(made.scores)
    assert tuple(row["judged"]) == made.checks
    monkeypatch.setattr("ctmr_core.assessment.measuring._candidate", lambda *_a, **_k: pytest.fail("measured again"))
    again = rejudge(dataset, STRICT)
    assert (again.measured, again.cases) == (0, 3)


def test_a_newer_check_reads_voxels_for_itself_only(heads, tmp_path, monkeypatch):
    dataset, verdicts = make_judged(tmp_path / "d", heads)
    monkeypatch.setattr(NoiseCheck, "version", "next")
    called = []
    for name in ("overlap", "noise", "mr_contrast"):
        check = next(check for check in ScoreJudge(Policy()).checks if check.name == name)
        measure = check.measure

        def noted(candidate, measure=measure, name=name):
            called.append(name)
            return measure(candidate)

        monkeypatch.setattr(check, "measure", noted, raising=False)
    found = rejudge(dataset, Policy(name="new"))
    assert (found.measured, called) == (3, ["noise"] * 3)
    for row in read_verdicts(dataset, Policy()).to_pylist():
        made = verdicts[row["case_id"]]
        expected = {"noise@next" if name.startswith("noise@") else name for name in made.checks}
        assert set(row["checks"]) == expected
        assert tuple(row["reasons"]) == made.reasons


def test_rejected_cases_are_reported_and_never_accepted_unseen(heads, tmp_path, monkeypatch):
    dataset, _ = make_judged(tmp_path / "d", heads, rejected=(0, 2))
    found = rejudge(dataset, Policy())
    assert (found.cases, found.without_voxels, found.would_pass) == (1, 2, 2)
    monkeypatch.setattr(NoiseCheck, "version", "next")
    found = rejudge(dataset, Policy())
    assert (found.measured, found.would_pass) == (1, 0)
    rows = {row["case_id"]: row for row in read_verdicts(dataset, Policy()).to_pylist()}
    assert rows["head-00"]["status"] == "rejected"
    assert rows["head-00"]["reasons"] == ["noise: was not measured, and there are no voxels"]


def test_a_damaged_case_is_named_and_not_kept(heads, tmp_path):
    dataset, _ = make_judged(tmp_path / "d", heads[:2], unjudged=(0, 1))
    volume = Path(dataset.row("head-00")["volume"])
    shard = next(path for path in (tmp_path / "d" / volume / "mri_t1/0").glob("c.*"))
    shard.write_bytes(shard.read_bytes()[:40])
    found = rejudge(dataset, Policy())
    assert (found.cases, found.kept, found.measured) == (2, 1, 1)
    (line,) = found.unreadable
    assert line.startswith("head-00: ")
    assert rejudge(dataset, Policy()).unreadable  # not measured is not forgotten


def test_several_processes_find_the_same(heads, tmp_path):
    dataset, _ = make_judged(tmp_path / "d", heads, unjudged=(0, 2))
    alone, _ = make_judged(tmp_path / "e", heads, unjudged=(0, 2))
    assert rejudge(dataset, STRICT, workers=2).verdicts == rejudge(alone, STRICT).verdicts
    assert sorted(path.name for path in (tmp_path / "d/quality").rglob("*")) == sorted(
        path.name for path in (tmp_path / "e/quality").rglob("*")
    )


def test_verdicts_follow_the_dataset_as_it_grows_and_its_snapshots(heads, tmp_path):
    dataset, _ = make_judged(tmp_path / "d", heads[:2])
    rejudge(dataset, Policy())
    create_snapshot(dataset, "two")
    dataset.adopt(manifest_of([heads[2].case]))
    commit_candidate(dataset, heads[2])
    seal(dataset.storage, "unit-1", [(heads[2].case.case_id, heads[2].case.key)])
    compact(dataset.storage, min_rows=1)
    dataset.refresh()
    assert read_verdicts(dataset, Policy()).num_rows == 2
    rejudge(dataset, Policy())
    assert read_verdicts(dataset, Policy()).num_rows == 3
    assert read_verdicts(Dataset.open(tmp_path / "d", "two"), Policy().digest[:16])["case_id"].to_pylist() == [
        "head-00",
        "head-01",
    ]


def test_nothing_applied_gives_an_empty_table_and_short_digests_are_refused(heads, tmp_path):
    dataset, _ = make_judged(tmp_path / "d", heads[:1])
    assert read_verdicts(dataset, STRICT).schema == VERDICTS
    assert read_verdicts(dataset, STRICT).num_rows == 0
    with pytest.raises(StoreError, match="too few digits"):
        read_verdicts(dataset, "abc")


def test_an_empty_dataset_is_judged(tmp_path):
    dataset = Dataset.create(tmp_path / "d", manifest_of([head_case(0)]))
    found = rejudge(dataset, Policy())
    assert (found.cases, found.reasons) == (0, {})
    assert read_verdicts(dataset, Policy()).num_rows == 0


def test_settings_of_a_case_count_under_the_policy(heads, tmp_path):
    own = head_case(0, checks={"mr_contrast": {"mri_t1_gm_over_wm_high": 0.41}})
    dataset, verdicts = make_judged(tmp_path / "d", [replace(heads[0], case=own)])
    assert not verdicts["head-00"].accepted
    assert rejudge(dataset, Policy()).kept == 0
    assert rejudge(dataset, Policy(checks={"mr_contrast": False})).kept == 1
    assert rejudge(dataset, Policy(checks={"mr_contrast": {"mri_t1_gm_over_wm_high": 0.95}})).kept == 1


def test_the_document_of_a_policy_says_what_was_in_force(heads, tmp_path):
    dataset, _ = make_judged(tmp_path / "d", heads[:1])
    rejudge(dataset, STRICT)
    (file,) = (tmp_path / "d" / "quality" / "policies").iterdir()
    document = json.loads(file.read_text())
    assert file.stem == STRICT.digest[:16]
    assert document["policy"]["name"] == "strict"
    assert document["in_force"]["mr_contrast"][1]["mri_t1_gm_over_wm_high"] == 0.41
    assert document["in_force"]["hu_median"][1]["liver_high"] == 162.0


def test_segmenters_run_where_their_sequence_is_and_once(heads, tmp_path, monkeypatch):
    network = tmp_path / "thresholds.ts"
    torch.jit.script(Thresholds()).save(str(network))
    dataset, _ = make_judged(tmp_path / "d", heads)
    text = f"policy: 1\nsegmenters: [{{name: net, source: '{network}', dice: %s, smallest_ml: 0,"
    text += " roi: [40, 44, 40], mapping: {1: left cerebral white matter}}]"
    strict, lenient = (parse_policy(text % dice, "p") for dice in (0.999, 0.0))
    found = rejudge(dataset, strict)
    assert (found.measured, found.kept, found.reasons) == (1, 2, {"agreement": 1})  # one head has a CT
    monkeypatch.setattr("ctmr_core.assessment.measuring._candidate", lambda *_a, **_k: pytest.fail("measured again"))
    assert rejudge(dataset, lenient).kept == 3
    assert strict.digest != lenient.digest
