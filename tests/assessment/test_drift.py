"""Drift between two states of a set is found, and chance is not called drift."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ctmr_core.assessment.catalog_summary import CatalogSummary
from ctmr_core.assessment.drift import compare, drift, stability_index
from ctmr_core.store import Dataset, create_snapshot
from tests.assessment.small_sets import add_cases, small_case, small_set


def summary_of(values: dict[str, np.ndarray], categories: dict[str, dict[str, int]] | None = None) -> CatalogSummary:
    cases = max(len(rows) for rows in values.values())
    moments = {name: (len(v), float(v.mean()), float(v.std()), float(v.min()), float(v.max())) for name, v in values.items()}
    return CatalogSummary(cases, samples=values, moments=moments, categories=categories or {})


def test_a_shifted_score_is_found_among_many_that_stayed() -> None:
    rng = np.random.default_rng(0)
    before = {f"score {i}": rng.normal(size=2000) for i in range(100)}
    after = {f"score {i}": rng.normal(size=2000) for i in range(100)}
    after["score 7"] += 0.8
    after["score 9"] += 0.4
    found = compare(summary_of(before), summary_of(after))
    assert [(entry["what"], entry["state"]) for entry in found["moved"]] == [
        ("number score 7", "drifted"),
        ("number score 9", "moved"),
    ]
    assert not found["passed"]
    entry = found["numbers"]["score 7"]
    assert entry["ks"] == pytest.approx(stats.ks_2samp(before["score 7"], after["score 7"]).statistic)
    assert entry["wasserstein"] == pytest.approx(0.8, abs=0.1)


def test_thirty_cases_that_differ_by_chance_have_not_moved() -> None:
    rng = np.random.default_rng(1)
    before, after = ({f"score {i}": rng.normal(size=30) for i in range(100)} for _ in range(2))
    found = compare(summary_of(before), summary_of(after))
    assert not found["moved"]
    assert max(entry["psi"] for entry in found["numbers"].values()) > 0.25  # the customary mark alone would cry wolf


def test_values_that_many_cases_share_are_told_apart() -> None:
    before = np.repeat([1.0, 2.0, 3.0], [900, 80, 20])
    after = np.repeat([1.0, 2.0, 3.0], [500, 480, 20])
    found = compare(summary_of({"attempt": before}), summary_of({"attempt": after}))
    assert found["moved"][0]["state"] == "drifted"
    assert not compare(summary_of({"attempt": before}), summary_of({"attempt": before}))["moved"]


def test_kinds_of_case_drift_too() -> None:
    values = {"score": np.arange(1000.0)}
    a = summary_of(values, {"sequence": {"ct": 500, "mri_t1": 500}})
    b = summary_of(values, {"sequence": {"ct": 900, "mri_t1": 80, "mri_t2": 20}})
    found = compare(a, b)
    assert [entry["what"] for entry in found["moved"]] == ["kind sequence"]
    assert found["categories"]["sequence"]["shares"]["mri_t2"] == {"before": 0.0, "after": 0.02}


@settings(max_examples=50)
@given(st.lists(st.integers(0, 1000), min_size=2, max_size=10).filter(lambda counts: sum(counts) > 0), st.data())
def test_the_index_is_0_of_equal_shares_and_else_above(counts: list[int], data: st.DataObject) -> None:
    other = data.draw(st.lists(st.integers(0, 1000), min_size=len(counts), max_size=len(counts)).filter(lambda c: sum(c) > 0))
    assert stability_index(np.array(counts), np.array(counts)) == 0
    assert stability_index(np.array(counts), np.array(other)) >= 0


def test_two_nights_are_compared_by_their_catalogs(tmp_path) -> None:
    first = [small_case(i) for i in range(12)]
    rng = np.random.default_rng(3)
    dataset = small_set(
        tmp_path / "set", first, scores={case.case_id: {"hu_median/ct/liver": rng.normal(50, 5)} for case in first}
    )
    create_snapshot(dataset, "night-1")
    second = [small_case(i) for i in range(12, 40)]
    add_cases(dataset, second, scores={case.case_id: {"hu_median/ct/liver": rng.normal(150, 5)} for case in second})
    create_snapshot(dataset, "night-2", cases=[case.case_id for case in second])
    found = drift(Dataset.open(dataset.uri, snapshot="night-1"), Dataset.open(dataset.uri, snapshot="night-2"))
    assert found["cases"] == {"before": 12, "after": 28}
    assert [entry["what"] for entry in found["moved"]] == ["number score/hu_median/ct/liver"]
