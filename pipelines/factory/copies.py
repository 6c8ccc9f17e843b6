"""Second copies of units that take too long near the end of a run: the first commit of a case wins, and it is counted once."""

from __future__ import annotations

import time
from collections.abc import Sequence

from ctmr_core.cases.case import Case
from pipelines.factory.sizing import Costs
from pipelines.factory.slots import Flight, Slot
from pipelines.factory.work import OutcomeStatus

SLOW = 3.0  # times the expected length: a unit on a machine that is merely busy is left alone
LEAST_SECONDS = 5.0  # a unit younger than this is never a straggler


class Copies:
    """Which cases two actors are making, and which of them are counted already."""

    def __init__(self, costs: Costs) -> None:
        self._costs = costs
        self._copied: set[str] = set()  # unit ids
        self._racing: dict[str, OutcomeStatus | None] = {}  # case key -> status it was counted with

    def stragglers(self, slots: Sequence[Slot]) -> list[Flight]:
        """Units that run far longer than their like, and those that wait behind one; the oldest first."""
        now = time.monotonic()
        found: list[Flight] = []
        for slot in slots:
            if slot.flights and self._is_slow(slot.flights[0], now):
                found += [flight for flight in slot.flights if self._may_be_copied(flight)]
        return sorted(found, key=lambda flight: flight.began)

    def begin(self, flight: Flight, cases: Sequence[Case]) -> None:
        """``cases``, those of the unit that are still open, are given to a second actor."""
        self._copied.add(flight.unit.id)
        self._racing.update(dict.fromkeys(case.key for case in cases))

    def counted(self, case: Case, status: OutcomeStatus) -> OutcomeStatus | None:
        """What the case was counted as before, None if this is the first time; remembers ``status``."""
        if not self._racing or case.key not in self._racing:
            return None
        before = self._racing[case.key]
        if before in (None, "failed"):
            self._racing[case.key] = status
        return before

    def settled_by(self, flight: Flight, slots: Sequence[Slot]) -> list[tuple[Slot, Flight]]:
        """The flights elsewhere that have nothing left to decide, now that ``flight`` is reported."""
        if not any(case.key in self._racing for case in flight.unit.cases):
            return []
        return [(slot, other) for slot in slots for other in slot.flights if self._is_settled(other)]

    def flies_elsewhere(self, case: Case, slots: Sequence[Slot]) -> bool:
        """Whether another actor has the case in its hands."""
        if case.key not in self._racing:
            return False
        return any(case.key == other.key for slot in slots for flight in slot.flights for other in flight.unit.cases)

    def _is_slow(self, flight: Flight, now: float) -> bool:
        expected = self._costs.expected_sum(flight.unit.cases)
        return expected is not None and now - flight.began > max(SLOW * expected, LEAST_SECONDS)

    def _may_be_copied(self, flight: Flight) -> bool:
        return not (flight.second_copy or flight.unit.alone or flight.unit.id in self._copied)

    def _is_settled(self, flight: Flight) -> bool:
        """Every case that was given to a second actor has its outcome; of the others of the unit that is known before."""
        racing = [self._racing[case.key] for case in flight.unit.cases if case.key in self._racing]
        return bool(racing) and None not in racing
