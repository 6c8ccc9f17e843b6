"""Weather for an object store: answers that get lost, errors after the deed, cut bodies and pauses, drawn from a seed."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from tests.s3_servers import S3Proxy


@dataclass
class StorageStorm:
    """Decides once for every request of an ``S3Proxy`` (its ``cut``, then its ``lose``) what becomes of it.

    lost, refused: share of requests whose answer is dropped, or is 503 although the deed was done. slow: share that takes
    ``pause`` seconds longer. cut: share of GETs and PUTs whose body breaks off in the middle, on the way up or down. After two
    requests of a kind in a row that were struck the next one is let through, so that bounded retries get there.
    """

    seed: int
    lost: float = 0.1
    refused: float = 0.1
    slow: float = 0.1
    cut: float = 0.1
    pause: float = 0.3
    struck: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._random = np.random.default_rng(self.seed)
        self._lock = threading.Lock()
        self._in_a_row: Counter[tuple[str, str]] = Counter()
        self._request = threading.local()  # a thread of the proxy has one request at a time

    def attach(self, proxy: S3Proxy) -> None:
        """Let the weather begin."""
        proxy.lose, proxy.cut = self._lose, self._cut

    def _cut(self, method: str, path: str) -> bool:
        shares = {"lost": self.lost, "refused": self.refused, "slow": self.slow}
        if method in {"GET", "PUT"}:
            shares["cut"] = self.cut
        self._request.fault = self._drawn(method, path, shares)
        return bool(self._request.fault == "cut")

    def _lose(self, method: str, path: str) -> bool | int:
        if self._request.fault == "slow":
            time.sleep(self.pause)
        return {"lost": True, "refused": 503}.get(self._request.fault, False)

    def _drawn(self, method: str, path: str, shares: dict[str, float]) -> str:
        """The fault that strikes this request; "" for none."""
        with self._lock:
            draw = float(self._random.random())
            fault = next((name for name, until in _sums(shares) if draw < until), "")
            if self._in_a_row[method, path] >= 2:
                fault = ""
            struck = fault in {"lost", "refused", "cut"}
            self._in_a_row[method, path] = self._in_a_row[method, path] + 1 if struck else 0
            self.struck[fault or "calm"] += 1
            return fault


def _sums(shares: dict[str, float]) -> list[tuple[str, float]]:
    return list(zip(shares, itertools.accumulate(shares.values()), strict=True))
