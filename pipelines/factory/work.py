"""What travels between the driver and its actors: work units out, reports back. Kilobytes, never voxels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from ctmr_core.cases.case import Case

OutcomeStatus = Literal["accepted", "rejected", "failed"]


@dataclass(frozen=True)
class ActorSettings:
    """What an actor needs to know once. ``threads`` counts CPU threads of one actor; ``device`` is a torch device."""

    dataset: str
    library: str | None = None
    device: str = "cpu"
    threads: int = 1
    engine_options: dict[str, Any] = field(default_factory=dict)


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
    """How one case ended. ``reason`` is one line: why it was rejected or failed."""

    case_id: str
    status: OutcomeStatus
    attempts: int
    seconds: float
    reason: str = ""


@dataclass(frozen=True)
class UnitReport:
    """What came of a unit. ``abandoned``: cases not begun because of a stop. ``halt``: why no more work makes sense."""

    unit_id: str
    outcomes: tuple[CaseOutcome, ...]
    abandoned: tuple[Case, ...] = ()
    halt: str | None = None


@dataclass(frozen=True)
class ActorStatus:
    """What an actor is doing now: case, stage (body, render, finish, idle), attempt, seconds in this case.

    outcomes: the cases of unit ``unit_id`` that are finished already.
    """

    case_id: str = ""
    stage: str = "starting"
    attempt: int = 0
    seconds: float = 0.0
    unit_id: str = ""
    outcomes: tuple[CaseOutcome, ...] = ()


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
