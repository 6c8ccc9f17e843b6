"""Margins follow from scores and the checks' own decisions."""

from __future__ import annotations

import pytest

from ctmr_core.cases.case import Case
from ctmr_core.quality.policy import Policy
from ctmr_core.report.margins import borderline, spreads


def case(name: str) -> Case:
    return Case(case_id=name, body="parametric:torso", sequences=("ct",), size=(24, 20, 16), spacing=(4.0, 4.0, 5.0))


def scores(liver: float, stray: float = 0.0) -> dict[str, dict[str, float]]:
    return {
        "hu_median": {"ct/liver": liver, "ct/liver_voxels": 500.0},
        "surroundings": {"ct/stray_share": stray, "ct/air": -1000.0},
    }


def test_the_case_nearest_to_a_threshold_comes_first_and_far_ones_not_at_all():
    found = borderline([(case("far"), scores(60.0)), (case("near"), scores(150.0)), (case("nearer"), scores(161.0))])
    assert [(entry.case_id, entry.check, entry.threshold, entry.share) for entry in found] == [
        ("nearer", "hu_median", "liver_high", 0.01),
        ("near", "hu_median", "liver_high", 0.1),  # of the range from -22 to 162 HU
    ]
    assert "the median of liver is 161 HU" in found[0].reason


def test_a_stricter_policy_moves_the_borderline():
    strict = Policy(checks={"hu_median": {"liver_high": 61.0}})
    assert borderline([(case("a"), scores(60.0))], strict)[0].share == 0.02
    assert not borderline([(case("a"), scores(161.0))], Policy(checks={"hu_median": False}))


def test_the_lines_of_a_score_are_found_on_both_sides():
    found = {s.name: s for s in spreads([(case(str(i)), scores(40.0 + i, i / 5000)) for i in range(20)], 10)}
    liver = found["hu_median/ct/liver"]
    assert liver.low == pytest.approx(-21.6, abs=0.01)
    assert liver.high == pytest.approx(162.0, abs=0.01)
    assert liver.room == pytest.approx((40 + 21.6) / 19, abs=0.01)
    assert "surroundings/ct/air" not in found, "it is always the same"
    stray = found["surroundings/ct/stray_share"]
    assert stray.low is None
    assert stray.high == pytest.approx(0.02, rel=0.01)


def test_limits_of_different_orders_of_magnitude_move_by_shares_of_themselves():
    noise = {name: {"noise": {"ct/sd": sd}} for name, sd in (("quiet", 5.6), ("too-quiet", 1.1))}  # 1 to 150 HU are allowed
    found = borderline([(case(name), own) for name, own in noise.items()])
    assert [(entry.case_id, entry.threshold, entry.share) for entry in found] == [("too-quiet", "ct_low", 0.2)]
