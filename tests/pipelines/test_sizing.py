"""Cutting cases into units: all of them, in order, as many as their cost allows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.factory.sizing import FIRST_UNIT_CASES, MAX_UNIT_CASES, UNIT_SECONDS, Costs, UnitSource
from pipelines.factory.tally import LISTED_PROBLEMS, Tally
from pipelines.factory.work import CaseOutcome
from pipelines.flows.waves import waves_of
from tests.pipelines.blocks import blocks_case


def cut_all(source: UnitSource, workers: int, after: int = 0) -> list[int]:
    sizes = []
    while (unit := source.cut(workers, after)) is not None:
        sizes.append(len(unit.cases))
    assert not source.has_more()
    assert source.left == 0
    return sizes


@given(
    cases=st.integers(0, 60),
    workers=st.integers(1, 9),
    after=st.integers(0, 500),
    seconds=st.one_of(st.none(), st.floats(0.001, 200)),
    size=st.one_of(st.none(), st.integers(1, 7)),
)
def test_units_hold_every_case_once_and_in_order(
    cases: int, workers: int, after: int, seconds: float | None, size: int | None
) -> None:
    planned = [blocks_case(i) for i in range(cases)]
    costs = Costs()
    if seconds is not None:
        costs.learn(blocks_case(0), seconds)
    source = UnitSource(iter(planned), cases, costs, size)
    made = []
    while (unit := source.cut(workers, after)) is not None:
        made.extend(unit.cases)
        assert len(unit.cases) <= (size or MAX_UNIT_CASES)
        if size is None and seconds is not None and len(unit.cases) > 1:
            assert seconds * len(unit.cases) <= UNIT_SECONDS + 1e-6
    assert made == planned


def test_first_units_are_small_and_the_next_go_by_cost() -> None:
    costs = Costs()
    cases = [blocks_case(i) for i in range(200)]
    source = UnitSource(cases, len(cases), costs)
    first = source.cut(workers=1, after=10_000)
    assert first is not None
    assert len(first.cases) == FIRST_UNIT_CASES
    for case in first.cases:
        costs.learn(case, 1.0)
    second = source.cut(workers=1, after=10_000)
    assert second is not None
    assert len(second.cases) == UNIT_SECONDS


def test_units_become_smaller_towards_the_end() -> None:
    costs = Costs()
    costs.learn(blocks_case(0), 0.001)
    sizes = cut_all(UnitSource([blocks_case(i) for i in range(300)], 300, costs), workers=4)
    assert sizes == sorted(sizes, reverse=True)
    assert (sizes[0], sizes[-1]) == (25, 1)


@pytest.mark.parametrize("cases", [1, 255, 256, 257, 20_000, 1_000_000])
def test_the_number_of_waves_does_not_grow_with_the_cases(cases: int) -> None:
    waves = list(waves_of(cases, 64))
    assert len(waves) <= 64
    assert sum(size for size, _ in waves) == cases
    assert waves[-1][1] == 0
    assert all(after == cases - sum(size for size, _ in waves[: n + 1]) for n, (_, after) in enumerate(waves))


def test_a_tally_keeps_the_first_problems_and_counts_all() -> None:
    tally = Tally(10_000, 0)
    for number in range(5_000):
        tally.add(blocks_case(1), CaseOutcome(f"case-{number}", "rejected", 1, 0.1, "no good", {"body": 0.1}))
    assert tally.counts["rejected"] == 5_000
    assert len(tally.problems) == LISTED_PROBLEMS
    (cost,) = tally.costs("cpu")
    assert (cost.cases, cost.accepted, cost.size_bucket) == (5_000, 0, 16**3)
