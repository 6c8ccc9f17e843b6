"""Which training is due after which nights."""

from __future__ import annotations

import datetime as dt

import pytest

from pipelines.flows.nightly_records import NightRecord, NightState
from pipelines.flows.training_care import due_training
from pipelines.flows.training_records import TrainingRecord, TrainingState


def nights(*states: NightState) -> dict[dt.date, NightRecord]:
    """Nights from the first of a month on, each with its snapshot ``n1``, ``n2`` ..."""
    dates = [dt.date(2026, 11, number + 1) for number in range(len(states))]
    names = [f"n{number + 1}" if state == "finished" else None for number, state in enumerate(states)]
    found = zip(dates, states, names, strict=True)
    return {date: NightRecord(night=date, state=state, snapshot=name) for date, state, name in found}


def trainings(**states: TrainingState) -> dict[str, TrainingRecord]:
    return {name: TrainingRecord(snapshot=name, state=state) for name, state in states.items()}


@pytest.mark.parametrize(
    ("made", "trained", "due"),
    [
        (nights(), {}, None),
        (nights("finished"), {}, "n1"),
        (nights("finished", "begun"), {}, "n1"),
        (nights("finished", "finished", "finished"), trainings(n1="finished"), "n3"),
        (nights("finished", "finished", "finished"), trainings(n1="begun"), "n1"),
        (nights("finished", "finished"), trainings(n2="finished"), None),
        (nights("finished", "finished"), trainings(n2="given up"), None),
        (nights("finished", "finished", "given up"), trainings(n1="finished"), "n2"),
    ],
)
def test_what_was_begun_is_due_first_then_the_newest_night_once(
    made: dict[dt.date, NightRecord], trained: dict[str, TrainingRecord], due: str | None
) -> None:
    assert due_training(made, trained, {"n1", "n2", "n3"}) == due


def test_a_snapshot_that_was_deleted_is_not_due() -> None:
    assert due_training(nights("finished", "finished"), trainings(n1="begun"), {"n2"}) == "n2"
