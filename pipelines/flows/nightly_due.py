"""Which nights a run has to make: those unfinished, those in time, and the missed ones the schedule makes up for."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipelines.flows.nightly_calendar import Calendar, Night
from pipelines.flows.nightly_options import NightlyOptions
from pipelines.flows.nightly_records import NightRecord


@dataclass(frozen=True)
class Due:
    """make: oldest first. leave_out: missed nights that the schedule does not make up for."""

    make: tuple[Night, ...]
    leave_out: tuple[Night, ...]


def due_nights(
    options: NightlyOptions,
    records: Mapping[dt.date, NightRecord],
    now: dt.datetime,
    fired: dt.datetime | None = None,
) -> Due:
    """What is due at ``now``, in a run that Prefect fired at ``fired`` (both aware).

    A night that was begun is always due. One that begins within ``grace_minutes`` before now is in time. Of the others, which
    were missed, ``catch_up`` takes none, the last or all.
    """
    calendar = Calendar.of(options)
    nights = calendar.nights(now, fired)
    begun = {date for date, record in records.items() if not record.over}
    new = [night for night in nights if night.date not in records]
    grace = dt.timedelta(minutes=options.grace_minutes)
    missed = [night for night in new if now - calendar.instant(night) > grace]
    made_up = _made_up(options, missed)
    wanted = {night.date for night in new if night not in missed} | {night.date for night in made_up} | begun
    known = {night.date: night for night in nights}
    for date in begun:  # a night asked for by its date, or of a rule that was changed since
        known.setdefault(date, Night(date, dt.datetime.combine(date, dt.time.min)))
    make = tuple(known[date] for date in sorted(wanted))
    return Due(make, tuple(night for night in missed if night.date not in wanted))


def _made_up(options: NightlyOptions, missed: Sequence[Night]) -> Sequence[Night]:
    if options.catch_up == "all":
        return missed
    return missed[-1:] if options.catch_up == "last" else ()
