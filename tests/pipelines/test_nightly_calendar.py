"""Nights are dates in the schedule's time zone, whatever the clocks do; each is due once."""

from __future__ import annotations

import asyncio
import datetime as dt
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from prefect.server.schemas.schedules import CronSchedule

from pipelines.flows.nightly_calendar import Calendar, Night
from pipelines.flows.nightly_due import due_nights
from pipelines.flows.nightly_options import NightlyOptions, Pause
from pipelines.flows.nightly_records import NightRecord

ZONES = ("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Africa/Cairo", "Asia/Kathmandu", "America/Havana", "UTC")
START = dt.datetime(2026, 11, 1)


def at(text: str, zone: str = "UTC") -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone))


def options(**changes: object) -> NightlyOptions:
    given_options = {
        "schedule": "nightly",
        "recipe": "r.yaml",
        "dataset": "d",
        "cron": "0 2 * * *",
        "timezone": "UTC",
        "start": START,
    }
    return NightlyOptions.model_validate(given_options | changes)


def dates(nights: tuple[Night, ...] | list[Night]) -> list[str]:
    return [str(night) for night in nights]


def record(date: str, state: str) -> dict[dt.date, NightRecord]:
    night = dt.date.fromisoformat(date)
    return {night: NightRecord.model_validate({"night": night, "state": state})}


@settings(max_examples=25, deadline=None)
@given(
    zone=st.sampled_from(ZONES),
    first=st.dates(dt.date(2020, 1, 1), dt.date(2035, 1, 1)),
    hour=st.integers(0, 23),
    minute=st.sampled_from([0, 15, 30, 59]),
)
@example(zone="Europe/Berlin", first=dt.date(2027, 3, 26), hour=2, minute=30)
@example(zone="Europe/Berlin", first=dt.date(2027, 10, 29), hour=2, minute=30)
@example(zone="Africa/Cairo", first=dt.date(2026, 4, 21), hour=0, minute=0)
def test_every_firing_of_prefect_is_a_night_of_its_own_date(zone: str, first: dt.date, hour: int, minute: int) -> None:
    start = dt.datetime.combine(first, dt.time.min)
    cron = f"{minute} {hour} * * *"
    aware = start.replace(tzinfo=ZoneInfo(zone))
    fired = asyncio.run(CronSchedule(cron=cron, timezone=zone).get_dates(8, aware))
    calendar = Calendar(cron, zone, start)
    named = [calendar.named(instant) for instant in fired]
    assert [name.date() if name else None for name in named] == [first + dt.timedelta(days=n) for n in range(8)]
    for instant, name in zip(fired, named, strict=True):
        assert name is not None
        assert calendar.nights(instant, instant)[-1].date == name.date()


@settings(max_examples=15, deadline=None)
@given(zone=st.sampled_from(ZONES), first=st.dates(dt.date(2020, 1, 1), dt.date(2035, 1, 1)), hour=st.integers(0, 23))
def test_a_daily_rule_has_one_night_for_every_date(zone: str, first: dt.date, hour: int) -> None:
    start = dt.datetime.combine(first, dt.time.min)
    until = (start + dt.timedelta(days=20)).replace(tzinfo=ZoneInfo(zone)) - dt.timedelta(seconds=1)
    nights = Calendar(f"0 {hour} * * *", zone, start).nights(until)
    assert [night.date for night in nights] == [first + dt.timedelta(days=n) for n in range(20)]


def test_the_date_is_that_of_the_time_zone() -> None:
    instant = at("2026-11-22T23:30")
    assert dates(Calendar("30 0 * * *", "Europe/Berlin", dt.datetime(2026, 11, 23)).nights(instant)) == ["2026-11-23"]
    assert dates(Calendar("30 18 * * *", "America/New_York", dt.datetime(2026, 11, 22)).nights(instant)) == ["2026-11-22"]


def test_weekday_rules_and_several_firings_a_day_have_one_night_per_date() -> None:
    calendar = Calendar("0 2,14 * * 1-5", "UTC", dt.datetime(2026, 11, 20))
    assert dates(calendar.nights(at("2026-11-24T20:00"))) == ["2026-11-20", "2026-11-23", "2026-11-24"]


def test_simulated_firings_are_nights_one_day_apart() -> None:
    calendar = Calendar("* * * * *", "UTC", dt.datetime(2026, 11, 20, 12, 0), simulate=True)
    nights = calendar.nights(at("2026-11-20T23:59"))
    assert len({night.date for night in nights}) == len(nights) == 720
    assert nights[2] == Night(dt.date(2026, 11, 22), dt.datetime(2026, 11, 20, 12, 2))


def test_no_night_is_due_in_a_pause() -> None:
    pause = Pause(since=at("2026-11-02T12:00"), until=at("2026-11-04T12:00"))
    assert dates(Calendar("0 2 * * *", "UTC", START, pauses=(pause,)).nights(at("2026-11-05T03:00"))) == [
        "2026-11-01",
        "2026-11-02",
        "2026-11-05",
    ]
    resting = Pause(since=at("2026-11-02T12:00"))
    assert len(Calendar("0 2 * * *", "UTC", START, pauses=(resting,)).nights(at("2026-12-05T03:00"))) == 2


@pytest.mark.parametrize(
    ("catch_up", "made", "left_out"),
    [
        ("none", ["2026-11-05"], ["2026-11-02", "2026-11-03", "2026-11-04"]),
        ("last", ["2026-11-04", "2026-11-05"], ["2026-11-02", "2026-11-03"]),
        ("all", ["2026-11-02", "2026-11-03", "2026-11-04", "2026-11-05"], []),
    ],
)
def test_missed_nights_are_made_up_for_as_the_schedule_says(catch_up: str, made: list[str], left_out: list[str]) -> None:
    due = due_nights(options(catch_up=catch_up), record("2026-11-01", "finished"), at("2026-11-05T02:00:04"))
    assert dates(due.make) == made
    assert dates(due.leave_out) == left_out


def test_a_night_that_begins_too_late_was_missed() -> None:
    late = at("2026-11-01T03:30")
    assert dates(due_nights(options(catch_up="none"), {}, late).make) == []
    assert dates(due_nights(options(catch_up="none", grace_minutes=120), {}, late).make) == ["2026-11-01"]


def test_a_night_that_was_begun_is_finished_whatever_is_made_up_for() -> None:
    known = record("2026-11-01", "begun") | record("2026-11-02", "left out") | record("2026-11-03", "given up")
    assert dates(due_nights(options(catch_up="none"), known, at("2026-11-04T02:00")).make) == ["2026-11-01", "2026-11-04"]


@settings(max_examples=20, deadline=None)
@given(looks=st.lists(st.integers(0, 20 * 24), min_size=1, max_size=12), catch_up=st.sampled_from(["none", "last", "all"]))
def test_however_often_a_worker_looks_every_night_is_decided_once(looks: list[int], catch_up: str) -> None:
    """Nights are made or left out exactly once each, oldest first within a look, and with ``all`` none is left out."""
    known: dict[dt.date, NightRecord] = {}
    for hours in sorted(looks):
        due = due_nights(options(catch_up=catch_up), known, at("2026-11-01T00:00") + dt.timedelta(hours=hours))
        assert list(due.make) == sorted(due.make)
        decided = [*due.make, *due.leave_out]
        assert not {night.date for night in decided} & known.keys()
        known |= {night.date: NightRecord(night=night.date, state="finished") for night in decided}
        if catch_up == "all":
            assert not due.leave_out
    reached = (dt.timedelta(hours=max(looks) - 2).days + 1) if max(looks) >= 2 else 0
    assert len(known) == reached
