"""How many cases go into a work unit: as many as take about half a minute, by what their like has cost so far.

Which cases share a unit decides when they are made and which catalog part they are sealed into first, never their bytes.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator

from ctmr_core.cases.case import Case
from ctmr_core.store.runs import size_bucket
from pipelines.factory.work import WorkUnit

UNIT_SECONDS = 30.0  # long against the milliseconds of handing out and sealing, short against what a death may cost
MAX_UNIT_CASES = 500  # about a megabyte of cases
FIRST_UNIT_CASES = 2  # of an engine and size nobody has measured yet
UNITS_LEFT_PER_WORKER = 3  # units become smaller towards the end, so that all workers finish at about the same time

CostKey = tuple[str, int]


def cost_key(case: Case) -> CostKey:
    """Cases of one engine and about one number of voxels (over all their sequences) are taken to cost the same."""
    return case.engine, size_bucket(math.prod(case.size) * len(case.sequences))


class Costs:
    """Mean seconds per case by engine and size."""

    def __init__(self) -> None:
        self._sums: dict[CostKey, tuple[int, float]] = {}

    def learn(self, case: Case, seconds: float) -> None:
        cases, total = self._sums.get(cost_key(case), (0, 0.0))
        self._sums[cost_key(case)] = (cases + 1, total + seconds)

    def expected(self, case: Case) -> float | None:
        """Seconds the case will keep a worker busy; None when none of its like has been made."""
        cases, total = self._sums.get(cost_key(case), (0, 0.0))
        return total / cases if cases else None

    def expected_sum(self, cases: Iterable[Case]) -> float | None:
        """Seconds for all of them; None when one of them is unknown."""
        found = [self.expected(case) for case in cases]
        known = [seconds for seconds in found if seconds is not None]
        return sum(known) if len(known) == len(found) else None


class UnitSource:
    """Cuts a stream of cases into units, one at a time.

    count: cases of the stream. size: fixed number of cases per unit; None goes by cost.
    """

    def __init__(self, cases: Iterable[Case], count: int, costs: Costs, size: int | None = None) -> None:
        self._cases: Iterator[Case] = iter(cases)
        self._left, self._costs, self._size = count, costs, size
        self._ahead: deque[Case] = deque()

    @property
    def left(self) -> int:
        """Cases not handed out yet."""
        return self._left

    def has_more(self) -> bool:
        """Whether another unit can be cut; looks one case ahead."""
        if not self._ahead:
            case = next(self._cases, None)
            if case is None:
                self._left = 0
                return False
            self._ahead.append(case)
        return True

    def cut(self, workers: int, after: int = 0) -> WorkUnit | None:
        """The next unit; None at the end. workers: how many share what is left. after: cases that come once this stream ends."""
        most = self._size or max(1, min(MAX_UNIT_CASES, -(-(self._left + after) // (UNITS_LEFT_PER_WORKER * max(workers, 1)))))
        cases: list[Case] = []
        seconds = 0.0
        while len(cases) < most and self.has_more():
            if not self._size:
                expected = self._costs.expected(self._ahead[0])
                cost = UNIT_SECONDS / FIRST_UNIT_CASES if expected is None else expected
                if cases and seconds + cost > UNIT_SECONDS:
                    break
                seconds += cost
            cases.append(self._ahead.popleft())
            self._left = max(self._left - 1, 0)
        return WorkUnit(tuple(cases)) if cases else None
