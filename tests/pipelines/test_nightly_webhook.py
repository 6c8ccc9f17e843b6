"""The webhook, against a receiver on this machine."""

from __future__ import annotations

import datetime as dt
import json
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from ctmr_core.errors import CtmrError
from pipelines.flows.nightly_news import News, announce
from pipelines.flows.nightly_records import NightRecord
from pipelines.flows.nightly_webhook import check_url, post
from tests.pipelines.test_nightly_calendar import options

PAUSES = (0.0, 0.01, 0.01)


class Receiver:
    """Keeps what it is sent; answers with ``answers`` in turn, then with 200."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.answers: list[int] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.messages.append(json.loads(body))
                self.send_response(receiver.answers.pop(0) if receiver.answers else 200)
                self.end_headers()

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook/s3cr3t-token"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


def test_a_message_arrives_as_json(receiver: Receiver) -> None:
    assert post(receiver.url, {"text": "night over", "cases": 4}, PAUSES)
    assert receiver.messages == [{"text": "night over", "cases": 4}]


@pytest.mark.parametrize("answer", [429, 500, 503])
def test_an_overloaded_or_broken_receiver_is_tried_again(receiver: Receiver, answer: int) -> None:
    receiver.answers = [answer, answer]
    assert post(receiver.url, {}, PAUSES)
    assert len(receiver.messages) == 3


def test_a_refusal_is_final_and_harmless(receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    receiver.answers = [404, 404, 404]
    with caplog.at_level(logging.DEBUG):
        assert not post(receiver.url, {}, PAUSES)
    assert len(receiver.messages) == 1
    assert "answered 404" in caplog.text
    ours = [line.getMessage() for line in caplog.records if line.name.startswith("pipelines")]
    assert "s3cr3t" not in "".join(ours)


def test_nobody_there_is_no_error_and_the_url_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    receiver = Receiver()
    receiver.close()
    assert not post(receiver.url, {}, PAUSES)
    assert "s3cr3t" not in caplog.text
    assert "ConnectError" in caplog.text


@pytest.mark.parametrize(
    ("notify", "news", "called"),
    [
        ("failure", News.FAILED, True),
        ("failure", News.GIVEN_UP, True),
        ("failure", News.FINISHED, False),
        ("always", News.FINISHED, True),
        ("never", News.FAILED, False),
    ],
)
def test_only_wanted_news_are_sent(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, notify: str, news: News, called: bool
) -> None:
    events: list[str] = []
    monkeypatch.setattr("pipelines.flows.nightly_news.emit_event", lambda name, **_: events.append(name))
    monkeypatch.setenv("CTMR_NIGHT_WEBHOOK", receiver.url)
    night = dt.date(2026, 11, 22)
    record = NightRecord(night=night, state="begun", cases=4, attempts=2, counts={"accepted": 3, "failed": 1, "rejected": 0})
    assert announce(options(notify=notify), news, night, "1 of 4 cases failed\n  fix: look", record) is (True if called else None)
    assert len(receiver.messages) == called
    assert events == [str(news)]
    if called:
        message = receiver.messages[0]
        assert message["text"].startswith("ctmr nightly: night 2026-11-22")
        assert "3 accepted, 1 failed; 1 of 4 cases failed" in message["text"]
        assert (message["event"], message["night"], message["cases"], message["attempt"]) == (str(news), "2026-11-22", 4, 2)


@pytest.mark.parametrize("url", ["", "ftp://host/x", "https:///path", "hooks.example.org/T0/B0"])
def test_what_is_no_url_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(CtmrError) as refusal:
        check_url(url)
    assert not url or url not in str(refusal.value)
