"""Log lines: one JSON object each, with their case, and never a secret."""

from __future__ import annotations

import io
import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctmr_core.errors import CtmrError
from pipelines.factory.logs import LOGGERS, LogFormat, configure_logging, log_format, log_level, without_secrets
from pipelines.factory.metrics import ActorMeter
from pipelines.factory.watcher import ActorWatcher
from pipelines.factory.work import CaseOutcome
from pipelines.flows.events import dataset_resource
from tests.pipelines.conftest import small_case


@pytest.fixture(autouse=True)
def loggers_as_before():
    before = {name: (list(logging.getLogger(name).handlers), logging.getLogger(name).propagate) for name in LOGGERS}
    yield
    for name, (handlers, propagate) in before.items():
        logger = logging.getLogger(name)
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(logging.NOTSET)


def logged(style: LogFormat) -> io.StringIO:
    stream = io.StringIO()
    configure_logging(style, {"run_id": "r1", "actor": "a1"}, level="DEBUG", stream=stream)
    return stream


def test_an_actor_tells_of_stages_attempts_and_outcomes() -> None:
    stream, case = logged(LogFormat.JSON), small_case("case-1")
    watcher = ActorWatcher(ActorMeter("d", "a1"))
    watcher.stage(case, 0, "render", 1.25)
    watcher.attempt(case, 0, "rejected", "hu_median: 40")
    watcher.outcome(case, CaseOutcome("case-1", "accepted", 2, 3.0))
    stage, attempt, outcome = [json.loads(line) for line in stream.getvalue().splitlines()]
    for line in (stage, attempt, outcome):
        assert (line["run_id"], line["actor"], line["case_id"], line["case_key"]) == ("r1", "a1", "case-1", case.key)
        assert {"time", "level", "logger", "message", "node", "pid", "attempt"} <= set(line)
    assert (stage["stage"], stage["seconds"]) == ("render", 1.25)
    assert (attempt["level"], attempt["outcome"], attempt["reason"]) == ("warning", "rejected", "hu_median: 40")
    assert (outcome["attempt"], outcome["outcome"]) == (1, "accepted")


def test_text_names_the_case() -> None:
    stream = logged(LogFormat.TEXT)
    logging.getLogger("pipelines.x").warning("no volume", extra={"case_id": "case-7", "stage": "check"})
    assert stream.getvalue().rstrip().endswith("WARNING no volume [case-7 check]")


def test_a_traceback_stays_on_one_line() -> None:
    stream = logged(LogFormat.JSON)
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        logging.getLogger("ctmr_core.x").exception("failed")
    (line,) = stream.getvalue().splitlines()
    assert "ValueError: first" in json.loads(line)["traceback"]


@pytest.mark.parametrize("style", list(LogFormat))
@pytest.mark.parametrize(
    "text",
    [
        "s3://someone:hunter2@host/bucket",
        "AWS_SECRET_ACCESS_KEY=hunter2",
        'header {"Authorization": "Bearer hunter2"}',
        "password: hunter2",
        "RAY_AUTH_TOKEN=hunter2",
        "https://h/x?X-Amz-Signature=hunter2&y=1",
    ],
)
def test_secrets_are_blanked(style: LogFormat, text: str) -> None:
    stream = logged(style)
    logging.getLogger("pipelines.x").error("storage: %s", text, extra={"reason": text})
    assert "hunter2" not in stream.getvalue()
    assert "***" in stream.getvalue()
    assert "hunter2" not in str(dataset_resource(text))


@given(st.text(alphabet="abcdefghijklmnopqrstuvwxyz 0123456789/.-_", max_size=80))
def test_plain_text_is_left_as_it_is(text: str) -> None:
    assert without_secrets(text) == text


def test_words_that_are_no_format_or_level_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CTMR_LOG_FORMAT", "xml")
    monkeypatch.setenv("CTMR_LOG_LEVEL", "loud")
    with pytest.raises(CtmrError, match="text, json"):
        log_format()
    assert log_format("json") is LogFormat.JSON
    with pytest.raises(CtmrError, match="CTMR_LOG_LEVEL"):
        log_level("INFO")
