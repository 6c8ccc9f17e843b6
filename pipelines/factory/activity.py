"""What a worker process is doing, for whoever asks: cases under way, cases decided, memory. And who may render now."""

from __future__ import annotations

import bisect
import contextlib
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil

from pipelines.factory.work import ActorStatus, CaseOutcome

_SCHEDULER = "/proc/thread-self/schedstat"  # Linux: nanoseconds on a core, nanoseconds ready without one, time slices
_CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))


def seconds_without_a_core() -> float:
    """How long this thread has been ready to run while no core was free, since it began; 0 where the system doesn't tell."""
    try:
        with open(_SCHEDULER, "rb", buffering=0) as file:  # noqa: PTH123 - asked twice per attempt: a third of pathlib's time
            return int(file.read().split()[1]) * 1e-9
    except (OSError, IndexError, ValueError):
        return 0.0


def memory_of_machine() -> int:
    """Bytes of memory this process could use at most: the machine's, or its container's limit."""
    total = int(psutil.virtual_memory().total)
    for path in _CGROUP_LIMITS:
        with contextlib.suppress(OSError, ValueError):
            total = min(total, int(path.read_text(encoding="ascii")))
    return total


class Activity:
    """Told by the making and the finishing threads, asked by others."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way: dict[str, tuple[str, int, float]] = {}  # case id -> stage, attempt, when the attempt began
        self._latest = ""
        self._finished: dict[str, Counter[str]] = {}
        self._process = psutil.Process()
        self._peak = 0

    def enter(self, case_id: str, stage: str, attempt: int) -> None:
        """An attempt has come to ``stage``."""
        with self._lock:
            _, before, began = self._under_way.get(case_id, ("", -1, 0.0))
            self._under_way[case_id] = (stage, attempt, began if before == attempt else time.monotonic())
            self._latest = case_id

    def leave(self, case_id: str) -> None:
        """The case waits for its next attempt, or is decided."""
        with self._lock:
            self._under_way.pop(case_id, None)
            if case_id == self._latest:
                self._latest = next(reversed(self._under_way), "")

    def begin_unit(self, unit_id: str) -> None:
        with self._lock:
            self._finished[unit_id] = Counter()

    def decide(self, unit_id: str, outcome: CaseOutcome) -> None:
        """A case of the unit has its outcome."""
        with self._lock:
            self._finished[unit_id][outcome.status] += 1

    def end_unit(self, unit_id: str) -> None:
        with self._lock:
            self._finished.pop(unit_id, None)

    def status(self) -> ActorStatus:
        """What is going on now."""
        memory = int(self._process.memory_info().rss)
        with self._lock:
            now = time.monotonic()
            self._peak = max(self._peak, memory, _peak_bytes())
            stage, attempt, began = self._under_way.get(self._latest, ("idle", 0, now))
            oldest = min(self._under_way, key=lambda case_id: self._under_way[case_id][2], default="")
            return ActorStatus(
                case_id=self._latest,
                stage=stage,
                attempt=attempt,
                seconds=now - began,
                oldest_case=oldest,
                oldest_seconds=now - self._under_way[oldest][2] if oldest else 0.0,
                finished={unit: dict(counts) for unit, counts in self._finished.items()},
                rss_bytes=memory,
                peak_bytes=self._peak,
                gpu_peak_bytes=_gpu_peak_bytes(),
            )


def _peak_bytes() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _gpu_peak_bytes() -> int:
    torch = sys.modules.get("torch")  # not imported for the sake of asking
    if torch is None or not torch.cuda.is_initialized():
        return 0
    return sum(int(torch.cuda.max_memory_allocated(device)) for device in range(torch.cuda.device_count()))


class Turns:
    """Lets one unit at a time render, in the order of their turns (0, 1, 2 ...).

    The next unit begins as soon as the one before it has nothing left to render, while its last case is checked and written; when
    that case needs another attempt, the later unit lets it pass between two of its own cases.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: list[int] = []
        self._taken = False
        self.begun = 0  # units that have had a turn: the next one's number

    @contextlib.contextmanager
    def taken(self, turn: int) -> Iterator[None]:
        """Render, for as long as the block lasts."""
        self._take(turn)
        try:
            yield
        finally:
            self._release()

    def let_earlier_pass(self, turn: int) -> None:
        """Inside ``taken``: give way to units that came before, if any waits."""
        with self._changed:
            earlier = bool(self._waiting) and self._waiting[0] < turn
        if earlier:
            self._release()
            self._take(turn)

    def _take(self, turn: int) -> None:
        with self._changed:
            bisect.insort(self._waiting, turn)
            self._changed.wait_for(lambda: not self._taken and self._waiting[0] == turn <= self.begun)
            self._waiting.remove(turn)
            self._taken, self.begun = True, max(self.begun, turn + 1)

    def _release(self) -> None:
        with self._changed:
            self._taken = False
            self._changed.notify_all()
