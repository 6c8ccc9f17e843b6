"""News of a training after a night: a Prefect event for every one, the schedule's webhook for those people want to hear of."""

from __future__ import annotations

import enum
import socket
from typing import Any

from pipelines.flows.environment import prepare_prefect
from pipelines.flows.nightly_options import NightlyOptions
from pipelines.flows.nightly_webhook import post, webhook_url
from pipelines.flows.training_records import TrainingRecord

prepare_prefect()

from prefect.events import emit_event  # noqa: E402 - the settings above must be made before Prefect is imported


class TrainingNews(enum.StrEnum):
    """What can be heard of a training; the values are the names of the events."""

    FINISHED = "ctmr.night.training-finished"
    FAILED = "ctmr.night.training-failed"
    CRASHED = "ctmr.night.training-crashed"
    GIVEN_UP = "ctmr.night.training-given-up"

    @property
    def good(self) -> bool:
        return self is TrainingNews.FINISHED


def announce_training(settings: NightlyOptions, news: TrainingNews, record: TrainingRecord, problem: str = "") -> bool | None:
    """Emit the event and call the webhook if it is wanted: whether it was reached, None when it was not called."""
    message = news_of_training(settings, news, record, problem)
    emit_event(str(news), resource={"prefect.resource.id": f"ctmr.schedule.{settings.schedule}"}, payload=message)
    if settings.notify == "never" or (news.good and settings.notify != "always"):
        return None
    url = webhook_url(settings.webhook)
    return post(url, message) if url else None


def news_of_training(settings: NightlyOptions, news: TrainingNews, record: TrainingRecord, problem: str) -> dict[str, Any]:
    """The message. ``text`` says it all in one line, as chat programs want it."""
    verb = str(news).rpartition(".training-")[2].replace("-", " ")
    score = f"mean Dice {record.score:.3f}" if record.score is not None else ""
    told = (f"step {record.step}" if record.step else "", score, *problem.splitlines()[:1])
    text = f"ctmr {settings.schedule}: training on {record.snapshot} {verb}" + "".join(f"; {part}" for part in told if part)
    return {
        "text": text,
        "event": str(news),
        "schedule": settings.schedule,
        "dataset": settings.dataset,
        "snapshot": record.snapshot,
        "folder": record.folder,
        "step": record.step,
        "score": record.score,
        "problem": problem or None,
        "attempt": record.attempts,
        "flow_run": record.flow_run,
        "host": socket.gethostname(),
    }
