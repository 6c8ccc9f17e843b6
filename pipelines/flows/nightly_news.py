"""News of a night: a Prefect event for every one, a webhook call for those people want to hear of."""

from __future__ import annotations

import datetime as dt
import enum
import socket
from typing import Any

from pipelines.flows.environment import prepare_prefect
from pipelines.flows.nightly_options import NightlyOptions
from pipelines.flows.nightly_records import NightRecord
from pipelines.flows.nightly_webhook import post, webhook_url

prepare_prefect()

from prefect.events import emit_event  # noqa: E402 - the settings above must be made before Prefect is imported


class News(enum.StrEnum):
    """What can be heard of a night; the values are the names of the events."""

    FINISHED = "ctmr.night.finished"
    USED_UP = "ctmr.night.used-up"
    FAILED = "ctmr.night.failed"
    CRASHED = "ctmr.night.crashed"
    MISSED = "ctmr.night.missed"
    GIVEN_UP = "ctmr.night.given-up"

    @property
    def good(self) -> bool:
        return self is News.FINISHED


def announce(
    settings: NightlyOptions, news: News, night: dt.date, problem: str, record: NightRecord | None = None
) -> bool | None:
    """Emit the event and call the webhook if it is wanted: whether it was reached, None when it was not called."""
    message = news_of(settings, news, night, problem, record)
    emit_event(str(news), resource={"prefect.resource.id": f"ctmr.schedule.{settings.schedule}"}, payload=message)
    if settings.notify == "never" or (news.good and settings.notify != "always"):
        return None
    url = webhook_url(settings.webhook)
    return post(url, message) if url else None


def news_of(settings: NightlyOptions, news: News, night: dt.date, problem: str, record: NightRecord | None) -> dict[str, Any]:
    """The message. ``text`` says it all in one line, as chat programs want it."""
    verb = str(news).rpartition(".")[2].replace("-", " ")
    counts = dict(record.counts) if record else {}
    told = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    lines = problem.splitlines()
    text = f"ctmr {settings.schedule}: night {night} {verb}" + "".join(f"; {part}" for part in (told, *lines[:1]) if part)
    return {
        "text": text,
        "event": str(news),
        "schedule": settings.schedule,
        "dataset": settings.dataset,
        "night": night.isoformat(),
        "problem": problem or None,
        "counts": counts,
        "cases": record.cases if record else 0,
        "attempt": record.attempts if record else 0,
        "snapshot": record.snapshot if record else None,
        "flow_run": record.flow_run if record else None,
        "host": socket.gethostname(),
    }
