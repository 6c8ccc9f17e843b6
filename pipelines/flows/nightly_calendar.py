"""Which nights a schedule has: dates in its time zone, never the time of the machine that happens to make them.

A cron rule names local times; where clocks are changed one of them may not exist, or exist twice, and Prefect fires once, up to
an hour away. A night is therefore known by the local time the rule names, not by the instant of the firing.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from pipelines.flows.environment import prepare_prefect
from pipelines.flows.nightly_options import NightlyOptions, Pause

prepare_prefect()

from prefect.server.schemas.schedules import CronSchedule  # noqa: E402

_NEAR = dt.timedelta(hours=3)  # clocks are changed by two hours at most
_BATCH = 500  # Prefect looks at a thousand candidates per call


@dataclass(frozen=True, order=True)
class Night:
    """date: what the night is called. begins: the first local time of that date that the cron rule names."""

    date: dt.date
    begins: dt.datetime

    def __str__(self) -> str:
        return self.date.isoformat()


class Calendar:
    """The nights of one cron rule in one time zone from ``start`` (local) on, without those in a pause."""

    def __init__(
        self,
        cron: str,
        timezone: str,
        start: dt.datetime,
        *,
        simulate: bool = False,
        pauses: tuple[Pause, ...] = (),
    ) -> None:
        self._rule = CronSchedule(cron=cron, timezone="UTC")  # local times, read as if there were no clocks to change
        self._zone = ZoneInfo(timezone)
        self._start, self._simulate, self._pauses = start, simulate, pauses

    @classmethod
    def of(cls, options: NightlyOptions) -> Calendar:
        return cls(options.cron, options.timezone, options.start, simulate=options.simulate, pauses=options.pauses)

    def nights(self, now: dt.datetime, fired: dt.datetime | None = None) -> list[Night]:
        """Every night that begins at or before ``now`` (aware), oldest first, and the one meant by a firing at ``fired``."""
        last = self._local(now)
        meant = self.named(fired) if fired is not None else None
        if meant is not None and meant > last:
            last = meant
        found = self._firings(last) if self._simulate else self._first_of_each_date(last)
        return [night for night in found if not self._rests(self.instant(night))]

    def instant(self, night: Night) -> dt.datetime:
        """When the night begins (aware)."""
        return night.begins.replace(tzinfo=self._zone)

    def named(self, fired: dt.datetime) -> dt.datetime | None:
        """The local time of the rule that made Prefect fire at ``fired`` (aware); None if the rule names none within a minute,
        or, where clocks are changed, within three hours.
        """
        local = self._local(fired)
        offsets = {(fired + shift).astimezone(self._zone).utcoffset() for shift in (-_NEAR, _NEAR)}
        reach = _NEAR if len(offsets) > 1 else dt.timedelta(minutes=1)
        near = self._dates(local - reach, local + reach)
        return min(near, key=lambda named: abs(named - local), default=None)

    def _local(self, instant: dt.datetime) -> dt.datetime:
        return instant.astimezone(self._zone).replace(tzinfo=None)

    def _firings(self, last: dt.datetime) -> Iterator[Night]:
        cursor, count = self._start, 0
        while named := self._dates(cursor, last, _BATCH):
            for begins in named:
                yield Night(self._start.date() + dt.timedelta(days=count), begins)
                count += 1
            cursor = named[-1] + dt.timedelta(seconds=1)

    def _first_of_each_date(self, last: dt.datetime) -> Iterator[Night]:
        cursor = self._start
        while named := self._dates(cursor, None, 1):
            if named[0] > last:
                return
            yield Night(named[0].date(), named[0])
            cursor = dt.datetime.combine(named[0].date() + dt.timedelta(days=1), dt.time.min)

    def _dates(self, start: dt.datetime, end: dt.datetime | None, n: int | None = None) -> list[dt.datetime]:
        if end is not None and end < start:
            return []
        utc = dt.UTC
        asked = self._rule.get_dates(n=n, start=start.replace(tzinfo=utc), end=None if end is None else end.replace(tzinfo=utc))
        dates: list[dt.datetime] = []
        try:
            asked.send(None)  # it waits for nothing, so no event loop is needed, and none is in the way
        except StopIteration as done:
            dates = done.value
        return [dt.datetime.fromtimestamp(date.timestamp(), utc).replace(tzinfo=None) for date in dates]

    def _rests(self, instant: dt.datetime) -> bool:
        return any(pause.since <= instant and (pause.until is None or instant < pause.until) for pause in self._pauses)
