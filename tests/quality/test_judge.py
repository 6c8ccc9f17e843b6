"""The verdict: which checks run, when judging stops, and how settings are validated."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import numpy as np
import pytest

from ctmr_core.anatomy.label_map import LabelMap
from ctmr_core.anatomy.vocabulary import load_vocabulary
from ctmr_core.cases.case import Case
from ctmr_core.errors import CheckError
from ctmr_core.quality import registry
from ctmr_core.quality.base import Candidate, Check, CheckResult
from ctmr_core.quality.judge import judge, validate_checks


class SlicesCheck:
    """A check of another package."""

    name = "slices"
    thresholds = {"slices": 10.0}  # noqa: RUF012

    def applies(self, case: Case) -> bool:
        return case.has_ct

    def run(self, candidate: Candidate) -> CheckResult:
        return CheckResult(self.name, {"slices": candidate.label_map.size[2]}, ("too few",))


def candidate(**fields) -> Candidate:
    voxels = np.zeros((32, 32, 32), np.uint8)
    voxels[8:24, 8:24, 8:24] = 200
    voxels[10:14, 10:14, 10:14] = 1
    voxels[16:20, 16:20, 16:20] = 104
    image = np.where(voxels > 0, 40 + voxels, -1000).astype(np.int16)
    case = Case(case_id="a", body="parametric:torso", sequences=("ct",), size=(32, 32, 32), spacing=(3.0, 3.0, 3.0), **fields)
    return Candidate(case, LabelMap(voxels, np.diag([3.0, 3.0, 3.0, 1.0]), load_vocabulary("maisi")), {"ct": image})


@pytest.fixture
def another_package(monkeypatch):
    registry.load_checks.cache_clear()
    point = EntryPoint("slices", f"{__name__}:SlicesCheck", registry.GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [point] if group == registry.GROUP else [])
    monkeypatch.setattr(EntryPoint, "load", lambda self: SlicesCheck)
    yield
    registry.load_checks.cache_clear()


def test_every_check_honours_the_contract():
    checks = registry.load_checks()
    assert len({check.name for check in checks}) == len(checks)
    assert all(isinstance(check, Check) and check.__doc__ for check in checks)


def test_checks_of_other_packages_are_found_run_and_configured(another_package):
    assert "slices" in registry.check_names()
    assert "slices: too few" in judge(candidate()).reasons
    validate_checks({"slices": {"slices": 3}})


def test_a_check_can_be_switched_off():
    bad = candidate(checks={"hu_median": {"liver_low": 100}})
    assert "hu_median" in {reason.split(":")[0] for reason in judge(bad).reasons}
    off = judge(candidate(checks={"hu_median": False}))
    assert "hu_median" not in {result.check for result in off.results}
    assert "hu_median" in {result.check for result in judge(candidate(checks={"hu_median": True})).results}


def test_judging_stops_where_the_rest_would_be_noise():
    good = candidate()
    wrong_shape = Candidate(good.case, good.label_map, {"ct": good.images["ct"][1:]})
    verdict = judge(wrong_shape)
    assert not verdict.accepted
    assert [result.check for result in verdict.results] == ["geometry"]


def test_only_given_checks_run():
    assert judge(candidate(), [SlicesCheck()]).reasons == ("slices: too few",)
    assert judge(candidate(), []).accepted


def test_scores_are_named_by_check_and_kept_when_accepted():
    scores = judge(candidate()).scores
    assert scores["labels/structures"] == 3
    assert scores["hu_median/ct/liver"] == 41
    assert all(isinstance(score, float) for score in scores.values())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"hu_medain": {}}, ["unknown check", "did you mean 'hu_median'", "overlap"]),
        ({"hu_median": {"liver_lo": 3}}, ["unknown threshold", "did you mean 'liver_low'", "checks.hu_median"]),
        ({"hu_median": {"liver_low": "3"}}, ["a threshold is a number", "checks.hu_median.liver_low"]),
        ({"hu_median": {"liver_low": True}}, ["a threshold is a number"]),
        ({"hu_median": {"liver_low": float("nan")}}, ["a finite number"]),
        ({"hu_median": {"liver_low": 500}}, ["low is above high", "at most 162"]),
        ({"overlap": 0.9}, ["true, false or its thresholds", "ct_dice"]),
        ({"finite": {"x": 1}}, ["unknown threshold"]),
    ],
)
def test_impossible_settings_are_refused(settings, words):
    with pytest.raises(CheckError) as caught:
        validate_checks(settings)
    for word in words:
        assert word in str(caught.value)


def test_possible_settings_are_accepted():
    validate_checks({})
    validate_checks({"overlap": False, "finite": True, "hu_median": {"liver_low": 0, "liver_high": 100}})
