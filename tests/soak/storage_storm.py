"""Weather for an object store: answers that get lost, errors after the deed, cut bodies and pauses, drawn from a seed."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field

import numpy as np


@dataclass
class StorageStorm:
    """Decides for every request of an ``S3Proxy`` (its ``lose``) what its client gets to know.

    lost, refused: share of requests whose answer is dropped, or is 503 although the deed was done. slow: share that takes
    ``pause`` seconds longer. Every third request of a kind in a row is let through, so that bounded retries get there.
    """

    seed: int
    lost: float = 0.1
    refused: float = 0.1
    slow: float = 0.1
    pause: float = 0.3
    struck: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._random = np.random.default_rng(self.seed)
        self._lock = threading.Lock()
        self._in_a_row: Counter[tuple[str, str]] = Counter()

    def __call__(self, method: str, path: str) -> bool | int:
        with self._lock:
            draw = float(self._random.random())
            calm = self._in_a_row[method, path] >= 2
            fault = "" if calm else self._fault(draw)
            self._in_a_row[method, path] = self._in_a_row[method, path] + 1 if fault in {"lost", "refused"} else 0
            self.struck[fault or "calm"] += 1
        if fault == "slow":
            time.sleep(self.pause)
        return {"lost": True, "refused": 503}.get(fault, False)

    def _fault(self, draw: float) -> str:
        for name, share in (("lost", self.lost), ("refused", self.refused), ("slow", self.slow)):
            if draw < share:
                return name
            draw -= share
        return ""
