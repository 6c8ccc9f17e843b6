"""Answers of an object store that break off in the middle of their body.

obstore repeats a request that gets no answer, or a bad one. An answer that began well and whose body then breaks off is an
error at once: a listing, a document and a range of a file are asked for again here. tensorstore does so by itself.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import obstore
from obstore.exceptions import GenericError

T = TypeVar("T")
PAUSES = (0.1, 0.4, 1.6)  # seconds before an answer is asked for again
_BROKEN_OFF = re.compile(r"response body|body error|error decoding")  # as reqwest and object_store word it


def whole(ask: Callable[[], T]) -> T:
    """What ``ask`` returns, asked up to four times while its answer breaks off."""
    for pause in PAUSES:
        try:
            return ask()
        except GenericError as error:
            if not _BROKEN_OFF.search(str(error)):
                raise
        time.sleep(pause)
    return ask()


def listed(objects: Any, prefix: str) -> Iterator[Sequence[Any]]:
    """Pages of the objects below ``prefix``; a page that breaks off is asked for again, from the last name before it on."""
    last: str | None = None
    pages = iter(obstore.list(objects, prefix=prefix))

    def following() -> Sequence[Any] | None:
        nonlocal pages
        try:
            return next(pages, None)
        except GenericError:
            pages = iter(obstore.list(objects, prefix=prefix, offset=last))
            raise

    while (page := whole(following)) is not None:
        if page:
            last = page[-1]["path"]
            yield page
