"""Failure drills: named points at which a process can be told to fail, to see that a dataset survives it.

``CTMR_FAULTS`` names a JSON file. Its keys that begin with ``@`` name points, the others case ids (see
``pipelines.factory.faults``)::

    {"@commit.made": {"fault": "kill", "nth": 2, "once": true}, "@file.half": {"fault": "kill", "object": "volumes/*"}}

nth: strike at this passage of a process and at later ones (default 1). once: strike one process only; times: so many
strikes over all processes (marker files beside the JSON file count them). object: only objects whose name fits the pattern.
seconds: for ``slow``. Nothing is read, and nothing happens, when the variable is not set.
"""

from __future__ import annotations

import ctypes
import errno
import fnmatch
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

VARIABLE = "CTMR_FAULTS"
FOREVER_SECONDS = 86_400

#: Every point a drill can name, in the order a run passes them, and what has happened by then.
POINTS = {
    "lock.begin": "the dataset is not locked yet",
    "lock.made": "the lock is taken, older generations are not removed yet",
    "adopt.begin": "the manifest is about to be written",
    "adopt.made": "the manifest is written",
    "sweep.begin": "volumes no commit names are about to be removed",
    "volume.begin": "voxels are encoded, nothing is written",
    "file.begin": "a file is about to be written",
    "file.half": "half of a file is written",
    "file.made": "a file is written and not yet on the disk for certain",
    "volume.made": "the volume is written, its case not committed",
    "commit.begin": "the commit record is about to be made",
    "commit.made": "the case is committed, nobody has been told",
    "seal.begin": "the catalog part of a unit is about to be written",
    "seal.made": "the catalog part is written",
    "wave.begin": "the driver is about to hand out a wave of units",
    "compact.begin": "catalog parts are about to be merged",
    "compact.merged": "merged parts are written, no version document names them",
    "compact.made": "the version document is written, retired parts are still there",
}

_passed: Counter[str] = Counter()


class DrillError(RuntimeError):
    """The exception a drill raises."""


def reach(point: str, name: str = "") -> None:
    """A process is at ``point`` (about the object ``name``): fail here if the drill says so."""
    if VARIABLE in os.environ:
        _strike_at(point, name)


def halves(data: bytes, name: str) -> Iterator[memoryview]:
    """``data`` in one piece; while a drill is set in two, with the points ``file.*`` around them."""
    view = memoryview(data)
    if VARIABLE not in os.environ:
        yield view
        return
    _strike_at("file.begin", name)
    yield view[: len(view) // 2]
    _strike_at("file.half", name)
    yield view[len(view) // 2 :]
    _strike_at("file.made", name)


def plan() -> dict[str, Any]:
    """What the drill says; empty when there is none."""
    path = os.environ.get(VARIABLE)
    return dict(json.loads(Path(path).read_text(encoding="utf-8"))) if path else {}


def is_due(order: Mapping[str, Any], what: str) -> bool:
    """Whether ``order`` still has a strike left for ``what``; takes it if so."""
    times = 1 if order.get("once") else order.get("times")
    return times is None or any(_mark(f"{what}.{strike}") for strike in range(int(times)))


def fail(fault: str, where: str, seconds: float = FOREVER_SECONDS) -> None:
    """Do what ``fault`` says, in this process and thread."""
    if fault == "raise":
        raise DrillError(f"drill: told to fail at {where}")
    if fault.upper() in _ERRNOS:
        number = _ERRNOS[fault.upper()]
        raise OSError(number, f"drill: {os.strerror(number)}", where)
    if fault in _DEATHS:
        _DEATHS[fault]()
    elif fault in _PAUSES:
        _PAUSES[fault](seconds)
    else:
        known = ["raise", *_DEATHS, *_PAUSES, *_ERRNOS]
        raise ValueError(f"{VARIABLE}: no such fault {fault!r}; allowed: {', '.join(known)}")


def _strike_at(point: str, name: str) -> None:
    order = plan().get(f"@{point}")
    if not order or not fnmatch.fnmatch(name, order.get("object", "*")):
        return
    _passed[point] += 1
    if _passed[point] >= int(order.get("nth", 1)) and is_due(order, point):
        fail(order["fault"], f"{point} {name}".strip(), float(order.get("seconds", FOREVER_SECONDS)))


def _mark(what: str) -> bool:
    path = Path(os.environ[VARIABLE])
    try:
        path.with_name(f"{path.stem}.{what}.struck").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _signal_self(number: int) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


def _exhaust_memory() -> None:
    """A MemoryError of the real allocator: the address space is limited to what is in use for the length of the try."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 26), before[1]))
    try:
        bytearray(1 << 30)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def _swell(seconds: float) -> None:
    """Fill memory, up to 4 GiB, and hold it: what the system or Ray ends a process for."""
    held = []
    for _ in range(64):
        held.append(bytearray(1 << 26))  # zeros are written, so the pages are there
        time.sleep(0.05)
    time.sleep(seconds)


def _spin(seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


def _seize(seconds: float) -> None:
    """Sleep with the interpreter's lock held: no other thread of the process answers any more."""
    ctypes.PyDLL(None).sleep(int(seconds))


_DEATHS: dict[str, Callable[[], None]] = {
    "exit": lambda: os._exit(66),
    "kill": _signal_self(signal.SIGKILL),
    "segfault": lambda: signal.raise_signal(signal.SIGSEGV),  # in this thread, as a real one: nothing more is run
    "terminate": _signal_self(signal.SIGTERM),
    "freeze": _signal_self(signal.SIGSTOP),  # the whole process stands still, as on a paused machine
    "memory": _exhaust_memory,
}
_PAUSES: dict[str, Callable[[float], None]] = {
    "hang": time.sleep,
    "slow": time.sleep,
    "spin": _spin,
    "seize": _seize,
    "swell": _swell,
}
_ERRNOS = {
    **{name: getattr(errno, name) for name in ("EIO", "ENOSPC", "EDQUOT", "EROFS", "ESTALE", "ETIMEDOUT", "EACCES")},
    "DISK_FULL": errno.ENOSPC,
}
