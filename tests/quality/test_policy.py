"""Policies: data that decides; the same verdict from stored scores as from voxels."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctmr_core.assessment.stored_scores import ScoreJudge, Stored
from ctmr_core.errors import CheckError
from ctmr_core.quality.base import CheckResult
from ctmr_core.quality.judge import judge
from ctmr_core.quality.policy import (
    Policy,
    built_in_policies,
    gates,
    load_policy,
    parse_policy,
    write_policy,
)
from tests.quality.test_judge import candidate


def measured(verdict):
    return [result.check for result in verdict.results]


def judge_scores(case, scores, policy, checks):
    """The verdict from stored scores, as a finished dataset is judged again."""
    row = case.model_dump(mode="json") | {"checks": json.dumps(case.checks)}
    grouped: dict[str, dict[str, float]] = {}
    for name, value in scores.items():
        check, _, score = name.partition("/")
        grouped.setdefault(check, {})[score] = value
    return ScoreJudge(policy).judge(row, Stored(grouped, frozenset(checks)))[0]


@pytest.mark.parametrize(
    "checks", [{}, {"hu_median": {"liver_low": 60}}, {"hu_median": False}, {"labels": {"structures": 30}}, {"overlap": True}]
)
def test_stored_scores_give_the_verdict_that_voxels_give(checks):
    plain = candidate()
    seen = judge(plain)
    policy = Policy(checks=checks)
    again = judge_scores(plain.case, seen.scores, policy, seen.checks)
    direct = judge(candidate(checks=checks))
    assert again.reasons == direct.reasons
    assert measured(again) == measured(direct)


def test_a_check_that_was_not_measured_is_passed_over():
    plain = candidate()
    seen = judge(plain)
    again = judge_scores(
        plain.case,
        seen.scores,
        Policy(checks={"hu_median": {"liver_low": 100}}),
        [name for name in seen.checks if name.startswith("labels")],
    )
    assert measured(again) == ["labels"]


def test_thresholds_of_the_policy_lie_over_those_of_the_case():
    case = candidate(checks={"hu_median": {"liver_low": 1, "liver_high": 90}, "overlap": False}).case
    merged = Policy(checks={"hu_median": {"liver_low": 20}}).for_case(case).checks
    assert merged == {"hu_median": {"liver_low": 20, "liver_high": 90}, "overlap": False}


def test_the_digest_follows_what_is_in_force_and_not_how_it_is_written():
    assert Policy().digest == Policy(name="other", checks={"hu_median": True}).digest
    assert Policy().digest != Policy(checks={"hu_median": {"liver_low": 1}}).digest
    assert Policy().digest != Policy(weights={"overlap": 0}).digest
    case = candidate(checks={"hu_median": {"liver_low": 1}}).case
    assert Policy().digest_for(case) == Policy(checks={"hu_median": {"liver_low": 1}}).digest


def results(**passed):
    return [CheckResult(name, {}, () if good else ("bad",)) for name, good in passed.items()]


def test_advice_never_rejects_and_tolerance_counts_weights():
    assert Policy(weights={"overlap": 0}).accepts(results(overlap=False, clipped=True))
    assert not Policy().accepts(results(overlap=False))
    assert Policy(tolerance=1).accepts(results(overlap=False))
    assert not Policy(tolerance=1).accepts(results(overlap=False, clipped=False))
    assert not Policy(tolerance=9).accepts(results(geometry=False))
    assert Policy(weights={"overlap": 3}).score(results(overlap=False, clipped=True)) == 0.25


def test_built_in_policies_load_and_name_real_checks():
    assert {"default", "maisi"} <= set(built_in_policies())
    for name in built_in_policies():
        assert load_policy(name).name == name
    assert load_policy("maisi").checks["overlap"] is False


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("checks: {hu_medain: {}}", ["p.yaml", "did you mean 'hu_median'"]),
        ("chekcs: {}", ["p.yaml, field chekcs"]),
        ("weights: {overlap: -1}", ["field weights.overlap"]),
        ("weights: {nothing: 1}", ["unknown check", "nothing"]),
        ("policy: 2", ["field policy"]),
        ("- 1", ["a policy is a mapping"]),
        ("a: [", ["not valid YAML"]),
    ],
)
def test_impossible_policies_are_refused(text, words):
    with pytest.raises(CheckError) as caught:
        parse_policy(text, "p.yaml")
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_missing_policy_names_the_built_in_ones(tmp_path):
    with pytest.raises(CheckError, match="maisi"):
        load_policy(tmp_path / "none.yaml")


@given(st.dictionaries(st.sampled_from(["liver_low", "spleen_low"]), st.floats(-40, 40)), st.floats(0, 5))
def test_a_written_policy_reads_back_equal(limits, weight):
    import tempfile
    from pathlib import Path

    policy = Policy(name="mine", checks={"hu_median": limits}, weights={"overlap": weight})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "p.yaml"
        write_policy(policy, path)
        assert load_policy(path) == policy


def test_gates_are_known():
    assert gates() == {"geometry", "finite", "labels"}
