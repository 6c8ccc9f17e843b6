"""What one night adds: new cases with its date, or the next part of one plan."""

from __future__ import annotations

import datetime as dt
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctmr_core.cases.nights import plan_night
from ctmr_core.cases.planner import plan
from ctmr_core.cases.recipe import Recipe, parse_recipe
from ctmr_core.errors import RecipeError

DAY = dt.timedelta(days=1)
FIRST = dt.date(2026, 11, 22)


def recipe(cases: tuple[int, ...] = (2, 2), **changes: object) -> Recipe:
    body = {"bodies": {"parametric": "head"}, "sequences": ["mri_t1"], "size": [48, 56, 48], "spacing": [4, 4, 4]}
    groups = [{"name": f"group{index}", "cases": count, **body} for index, count in enumerate(cases)]
    return parse_recipe({"name": "nightly", "seed": 3, "groups": groups} | changes)


def test_a_night_planned_twice_is_the_same_night() -> None:
    assert plan_night(recipe(), FIRST, 4).table.equals(plan_night(recipe(), FIRST, 4).table)


def test_no_two_nights_share_a_case_or_a_body() -> None:
    nights = [plan_night(recipe(), FIRST + n * DAY, n).table.to_pylist() for n in range(5)]
    rows = [row for night in nights for row in night]
    assert len({row["case_id"] for row in rows}) == len({row["body_seed"] for row in rows}) == 20
    assert nights[1][0]["case_id"] == "group0-20261123-0000000"


@settings(max_examples=12, deadline=None)
@given(nights=st.integers(1, 30), test=st.sampled_from([0.05, 0.1, 0.25, 0.5]))
def test_splits_hold_over_the_nights_even_when_one_night_is_too_small_for_them(nights: int, test: float) -> None:
    shares = recipe(splits={"train": 1 - test, "test": test})
    counts = Counter(split for n in range(nights) for split in plan_night(shares, FIRST + n * DAY, n).table["split"].to_pylist())
    assert abs(counts["test"] - test * 4 * nights) <= 1


@settings(max_examples=15, deadline=None)
@given(st.tuples(st.integers(1, 40), st.integers(1, 40)), st.integers(1, 30))
def test_the_parts_of_a_plan_are_the_plan(cases: tuple[int, int], size: int) -> None:
    whole = plan(recipe(cases)).table.to_pylist()
    parts = []
    while part := plan_night(recipe(cases), FIRST, len(parts), "slice", size).table.to_pylist():
        parts.append(part)
    assert all(len(part) == size for part in parts[:-1])
    rows = sorted((row for part in parts for row in part), key=lambda row: row["case_id"])
    assert rows == sorted(whole, key=lambda row: row["case_id"])


def test_every_part_holds_the_groups_in_proportion() -> None:
    for number in range(10):
        ids = plan_night(recipe((30, 10)), FIRST, number, "slice", 4).table["case_id"].to_pylist()
        assert Counter(name.partition("-")[0] for name in ids) == {"group0": 3, "group1": 1}


def test_cases_per_night_scale_a_recipe() -> None:
    assert plan_night(recipe((30, 10)), FIRST, 0, "grow", 8).summary()["groups"] == {"group0-20261122": 6, "group1-20261122": 2}


def test_a_part_without_a_size_is_refused() -> None:
    with pytest.raises(RecipeError, match="per-night"):
        plan_night(recipe(), FIRST, 0, "slice")


def test_a_group_whose_name_leaves_no_room_for_a_date_is_refused() -> None:
    long = recipe().model_copy(update={"groups": (recipe().groups[0].model_copy(update={"name": "g" * 64}),)})
    with pytest.raises(RecipeError, match="63 characters"):
        plan_night(long, FIRST, 0)
