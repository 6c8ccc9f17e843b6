"""What travels between the driver and its actors: work units out, reports back. Kilobytes, never voxels."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ctmr_core.cases.case import Case

OutcomeStatus = Literal["accepted", "rejected", "failed"]
#: Stages of an attempt in their order; the first two in an actor's making thread, the others in its finishing threads.
MAKING_STAGES = ("body", "render")
FINISHING_STAGES = ("check", "write", "commit")
LANES = 2  # volumes an actor finishes at a time: one is checked and encoded while another waits for the disk
MOST_LANES = 6  # ... while they are small: a file system writes what waits together as one
LANE_BYTES = 64 << 20  # what small ones may hold together


@dataclass(frozen=True)
class ActorSettings:
    """What an actor needs to know once. ``threads`` counts CPU threads of one actor; ``device`` is a torch device.

    run_id, log_format: for the lines the actor logs. lock_token: of the run's lock, by which an actor knows that it sees the
    driver's dataset and not another one of that name; "" asks for no proof. engines: those to load before the first case.
    segmenters: what cases are judged by beside the checks, as ``quality.agreement.written_segmenters`` gives it; "" = nothing.
    """

    dataset: str
    library: str | None = None
    device: str = "cpu"
    threads: int = 1
    engine_options: dict[str, Any] = field(default_factory=dict)
    run_id: str = ""
    log_format: str = "text"
    lock_token: str = ""
    engines: tuple[str, ...] = ()
    segmenters: str = ""


def lanes(case: Case) -> int:
    """How many volumes of this size (int16 images, labels of at most two bytes) an actor finishes at a time."""
    volume = 2 * (len(case.sequences) + 1) * math.prod(case.size)
    return min(MOST_LANES, max(LANES, LANE_BYTES // volume))


@dataclass(frozen=True)
class WorkUnit:
    """The cases one actor takes at a time. ``alone``: a suspect that must share its process with no other case."""

    cases: tuple[Case, ...]
    alone: bool = False

    @property
    def id(self) -> str:
        """Sixteen hex digits that name exactly these cases, whatever run they belong to."""
        return hashlib.sha256("\n".join(case.key for case in self.cases).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class CaseOutcome:
    """How one case ended. ``reason`` is one line: why it was rejected or failed.

    seconds: from the beginning of the first attempt. stages: seconds by stage, summed over the attempts. cpu_wait: seconds of
    body and render in which the making thread was ready and no core was free. bytes, objects: of the committed volume.
    """

    case_id: str
    status: OutcomeStatus
    attempts: int
    seconds: float
    reason: str = ""
    stages: Mapping[str, float] = field(default_factory=dict)
    cpu_wait: float = 0.0
    bytes: int = 0
    objects: int = 0

    @property
    def pace(self) -> float:
        """Seconds the case kept the busiest of the actor's threads busy: what it adds to the length of a unit."""
        return max(sum(self.stages.get(stage, 0.0) for stage in MAKING_STAGES), self.finishing)

    @property
    def finishing(self) -> float:
        """Seconds by which finishing bounds the pace: two threads share it, and one of them checks at a time."""
        return max(self.stages.get("check", 0.0), sum(self.stages.get(stage, 0.0) for stage in FINISHING_STAGES) / 2)


@dataclass(frozen=True)
class UnitReport:
    """What came of a unit. ``abandoned``: cases not begun because of a stop. ``halt``: why no more work makes sense.

    seal_seconds: for putting the unit into the catalog.
    """

    unit_id: str
    outcomes: tuple[CaseOutcome, ...]
    abandoned: tuple[Case, ...] = ()
    halt: str | None = None
    seal_seconds: float = 0.0


@dataclass(frozen=True)
class ActorPlace:
    """Where an actor runs. node_id: Ray's. memory_bytes: of the machine, or of its container. starting_seconds: since its
    process began to load. refusal: why it can't work there, "" when it can.
    """

    pid: int
    host: str
    node_id: str
    memory_bytes: int
    starting_seconds: float = 0.0
    refusal: str = ""


@dataclass(frozen=True)
class ActorStatus:
    """What an actor is doing now: case, stage (body, render, check, write, idle), attempt, its seconds.

    oldest_case, oldest_seconds: the attempt that is under way longest. finished: unit id -> status -> cases decided so far,
    for units not reported yet. rss_bytes, peak_bytes: resident memory now and at most; gpu_peak_bytes: of tensors on GPUs.
    """

    case_id: str = ""
    stage: str = "starting"
    attempt: int = 0
    seconds: float = 0.0
    oldest_case: str = ""
    oldest_seconds: float = 0.0
    finished: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    rss_bytes: int = 0
    peak_bytes: int = 0
    gpu_peak_bytes: int = 0


def in_units(cases: Iterable[Case], unit_size: int) -> Iterator[WorkUnit]:
    """Cut the stream of cases into units of ``unit_size`` (the last may be shorter)."""
    batch: list[Case] = []
    for case in cases:
        batch.append(case)
        if len(batch) == unit_size:
            yield WorkUnit(tuple(batch))
            batch = []
    if batch:
        yield WorkUnit(tuple(batch))
