"""Telling people: one JSON POST per news of a night. What cannot be delivered is logged and never harms the night."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx

from ctmr_core.errors import CtmrError

WEBHOOK_VARIABLE = "CTMR_NIGHT_WEBHOOK"
_PAUSES = (0.0, 1.0, 3.0, 9.0)  # seconds before each try
_TIMEOUT = 10.0

log = logging.getLogger(__name__)


class WebhookError(CtmrError):
    """A webhook that cannot be called."""


def check_url(url: str) -> str:
    """The URL, or ``WebhookError``, which does not show it: webhook URLs are secrets."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise WebhookError("this is not a URL to call", allowed="http://... or https://...")
    return url


def webhook_url(secret: str | None) -> str | None:
    """The URL in the Prefect secret of that name, else the one in ``CTMR_NIGHT_WEBHOOK``, else None."""
    if secret is None:
        return os.environ.get(WEBHOOK_VARIABLE) or None
    from prefect.blocks.system import Secret

    try:
        value: str = Secret.load(secret).get()  # type: ignore[union-attr]
    except (ValueError, RuntimeError, httpx.HTTPError) as error:
        log.warning("the webhook's secret %s cannot be read: %s", secret, type(error).__name__)
        return None
    return value


def post(url: str, message: Mapping[str, Any], pauses: tuple[float, ...] = _PAUSES) -> bool:
    """POST the message; tried again when the receiver is not there, is overloaded (429) or broken (5xx). Whether it arrived."""
    host = urlsplit(url).hostname
    problem = ""
    for pause in pauses:
        time.sleep(pause)
        try:
            answer = httpx.post(url, json=dict(message), timeout=_TIMEOUT)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            problem = type(error).__name__  # its text may hold the URL
            continue
        if answer.is_success:
            return True
        problem = f"answered {answer.status_code}"
        if answer.status_code != httpx.codes.TOO_MANY_REQUESTS and not answer.is_server_error:
            break
    log.warning("the webhook at %s was not reached: %s", host, problem)
    return False
