"""Log lines that a machine can follow: one JSON object per line, with the run, the case and the process they belong to.

``CTMR_LOG_FORMAT`` (``text`` or ``json``) and ``CTMR_LOG_LEVEL`` choose what the command line and every actor write to
stderr; an actor's stderr is a file of Ray's session (``session_latest/logs/worker-*.err``). Secrets never pass: what looks
like a credential is blanked in every line.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import os
import re
import socket
import sys
from collections.abc import Mapping
from enum import StrEnum
from typing import IO, Any

from ctmr_core.errors import CtmrError

FORMAT_VARIABLE = "CTMR_LOG_FORMAT"
LEVEL_VARIABLE = "CTMR_LOG_LEVEL"
LOGGERS = ("pipelines", "ctmr_core")
#: What ``extra=`` may add to a line, in the order they are written.
FIELDS = ("run_id", "dataset", "actor", "case_id", "case_key", "engine", "stage", "attempt", "outcome", "seconds", "reason")
BLANK = "***"

#: ``scheme://user:password@host``; ``secret_key=...`` in any spelling; AWS access key ids.
_SECRETS = (
    (re.compile(r"(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"), BLANK),
    (
        re.compile(
            r"(?i)([\w-]*(?:password|passwd|secret|token|api[_-]?key|access[_-]?key|authorization|signature|credential)[\w-]*"
            r"[\"']?\s*[=:]\s*[\"']?)(?:(?:bearer|basic)\s+)?[^\s\"',;&]+"
        ),
        rf"\1{BLANK}",
    ),
    (re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"), BLANK),
)


def without_secrets(text: str) -> str:
    """``text`` with passwords, tokens and keys blanked."""
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    return text


class LogFormat(StrEnum):
    """How a log line is written."""

    TEXT = "text"
    JSON = "json"


class JsonFormatter(logging.Formatter):
    """One JSON object per line. ``context`` (run id, dataset, actor) stands in every line that does not say otherwise."""

    def __init__(self, context: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self._context = {**(context or {}), "node": socket.gethostname(), "pid": os.getpid()}

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self._context,
            **_fields(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps({name: without_secrets(value) if isinstance(value, str) else value for name, value in line.items()})


class TextFormatter(logging.Formatter):
    """``12:00:01 WARNING torso-0001 render: message``."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        fields = _fields(record)
        place = " ".join(str(fields[name]) for name in ("case_id", "stage") if name in fields)
        text = super().format(record)
        return without_secrets(f"{text} [{place}]" if place else text)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    given = vars(record)
    return {name: given[name] for name in FIELDS if given.get(name) not in (None, "")}


def log_format(asked: str | None = None) -> LogFormat:
    """The format asked for, else the one of ``CTMR_LOG_FORMAT``, else text; ``CtmrError`` for any other word."""
    name = (asked or os.environ.get(FORMAT_VARIABLE) or "text").lower()
    try:
        return LogFormat(name)
    except ValueError as error:
        raise CtmrError("unknown log format", where=FORMAT_VARIABLE, found=name, allowed=list(LogFormat)) from error


def log_level(default: str) -> str:
    """The level of ``CTMR_LOG_LEVEL``, else ``default``; ``CtmrError`` for a word that is no level."""
    level = (os.environ.get(LEVEL_VARIABLE) or default).upper()
    if level not in logging.getLevelNamesMapping():
        raise CtmrError("unknown log level", where=LEVEL_VARIABLE, found=level, allowed=("debug", "info", "warning", "error"))
    return level


def configure_logging(
    style: LogFormat, context: Mapping[str, Any] | None = None, *, level: str = "INFO", stream: IO[str] | None = None
) -> None:
    """Send what the factory logs to ``stream`` (stderr) in this style, from ``level`` up. Loggers of libraries are left alone."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter(context) if style is LogFormat.JSON else TextFormatter())
    for name in LOGGERS:
        logger = logging.getLogger(name)
        for old in logger.handlers[:]:
            logger.removeHandler(old)
        logger.addHandler(handler)
        logger.setLevel(level)
        logger.propagate = False
