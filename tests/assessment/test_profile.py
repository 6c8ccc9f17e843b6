"""What is in a set, and whether it is what was asked for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ctmr_core.assessment.catalog_summary import summarise
from ctmr_core.assessment.profile import compare, profile
from ctmr_core.assessment.targets import Targets, read_targets
from ctmr_core.cases.case import Lesion
from ctmr_core.errors import CheckError
from ctmr_core.store import Dataset, create_snapshot
from tests.assessment.small_sets import small_case, small_set

CASES = 12


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    cases = [
        small_case(
            i,
            body_seed=i // 2,
            split="train" if i < 9 else "test",
            lesions=(Lesion(label="hepatic tumor", diameter=10.0 + i),) if i % 2 else (),
        )
        for i in range(CASES)
    ]
    scores = {case.case_id: {"hu_median/ct/liver": 50.0 + i} for i, case in enumerate(cases)}
    return small_set(tmp_path_factory.mktemp("profile") / "set", cases, scores=scores)


def test_kinds_and_numbers_are_those_of_the_catalog(dataset: Dataset) -> None:
    found = profile(dataset)
    assert (found["cases"], found["bodies"], found["exact"]) == (CASES, CASES // 2, True)
    assert found["categories"]["split"] == {"test": 3, "train": 9}
    assert found["categories"]["lesion"] == {"hepatic tumor": 6, "none": 6}
    assert found["categories"]["region"] == {"abdomen": CASES}
    scores = found["numbers"]["score/hu_median/ct/liver"]
    values = 50.0 + np.arange(CASES)
    assert (scores["count"], scores["min"], scores["max"]) == (CASES, 50.0, 61.0)
    assert scores["mean"] == pytest.approx(values.mean())
    assert scores["sd"] == pytest.approx(values.std())
    assert scores["p50"] == pytest.approx(np.median(values))
    volumes = [dict(zip(r["label_ids"], r["label_volumes_ml"], strict=True))[1] for r in map(dataset.row, dataset)]
    assert found["numbers"]["volume_ml/liver"]["mean"] == pytest.approx(np.mean(volumes))
    json.dumps(found, allow_nan=False)


def test_a_sample_of_the_quantiles_leaves_the_moments_exact(dataset: Dataset) -> None:
    whole, part = summarise(dataset), summarise(dataset, sampled=5)
    assert not part.exact
    assert part.moments == whole.moments
    assert part.categories == whole.categories
    assert 0 < len(part.samples["attempt"]) < CASES
    assert set(part.samples["score/hu_median/ct/liver"]) < set(whole.samples["score/hu_median/ct/liver"])


def test_a_snapshot_is_profiled_as_it_was(dataset: Dataset) -> None:
    create_snapshot(dataset, "three", cases=["case-0000", "case-0003", "case-0010"])
    found = profile(Dataset.open(dataset.uri, snapshot="three"))
    assert found["cases"] == 3
    assert found["categories"]["split"] == {"test": 1, "train": 2}


def test_targets_met_and_missed_say_so(dataset: Dataset) -> None:
    targets = Targets.model_validate(
        {
            "shares": {"split": {"train": 3, "test": 1}, "sequence": {"mri_t1": 1.0}},
            "numbers": {
                "score/hu_median/ct/liver": {"low": 50, "high": 56, "share": 0.9},
                "lesion_mm/hepatic tumor": {"quantiles": {0: 11, 100: 21}},
                "score/nothing": {"low": 0},
                "spacing_z_mm": {"mean": 2.0, "sd": 0.5},
            },
        }
    )
    found = {entry["target"]: entry for entry in compare(summarise(dataset), targets)}
    assert {name for name, entry in found.items() if entry["passed"]} == {"split", "lesion_mm/hepatic tumor"}
    assert found["split"]["distance"] == pytest.approx(0)
    assert found["sequence"]["distance"] == pytest.approx(1)
    assert "58.3%" in found["score/hu_median/ct/liver"]["line"]
    assert found["spacing_z_mm"]["distance"] == pytest.approx(2.0 / 0.5, rel=0.05)  # all 4 mm, asked for 2 -+ 0.5
    assert "no case has it" in found["score/nothing"]["line"]


def test_a_small_set_may_be_off_by_chance() -> None:
    from ctmr_core.assessment.catalog_summary import CatalogSummary

    targets = Targets(shares={"sequence": {"ct": 0.5, "mri_t1": 0.5}})
    for cases, passed in ((10, True), (1000, False)):
        counts = {"ct": int(0.6 * cases), "mri_t1": cases - int(0.6 * cases)}
        summary = CatalogSummary(cases, categories={"sequence": counts})
        assert compare(summary, targets)[0]["passed"] is passed


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("shares: {}", "no targets"),
        ("targets: {shares: {colour: {red: 1}}}", "unknown category"),
        ("targets: {numbers: {attempt: {low: 1, mean: 2, sd: 1}}}", "low and/or high"),
        ("targets: {numbers: {attempt: {quantiles: {5: 3, 95: 1}}}}", "rise"),
        ("targets: [", "can not be read"),
    ],
)
def test_targets_that_make_no_sense_are_refused(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "targets.yaml"
    file.write_text(text)
    with pytest.raises(CheckError, match=problem) as refused:
        read_targets(file)
    assert str(file) in str(refused.value)
