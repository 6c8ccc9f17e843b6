"""The contract of a check: one attempt at a case in, scores and reasons out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np

from ctmr_core.anatomy.label_census import LabelCensus, take_census
from ctmr_core.anatomy.label_map import LabelMap
from ctmr_core.cases.case import Case
from ctmr_core.quality.contacts import Contacts, count_contacts
from ctmr_core.quality.settings import Thresholds, thresholds
from ctmr_core.quality.statistics import LabelHistogram, count_values
from ctmr_core.quality.structures import Structure, structures_of


@dataclass(frozen=True, eq=False)
class Candidate:
    """One attempt at a case, before the verdict: the case, its label map and its images (int16 [x, y, z])."""

    case: Case
    label_map: LabelMap
    images: Mapping[str, np.ndarray]

    @cached_property
    def census(self) -> LabelCensus:
        """Voxels, boxes and volumes of every label; taken once, shared by checks and catalog."""
        return take_census(self.label_map)

    @cached_property
    def structures(self) -> dict[str, Structure]:
        """name -> structure in view; told once, shared by all checks."""
        return structures_of(self)

    @cached_property
    def contacts(self) -> Contacts:
        """Which labels touch which; counted once, shared by all checks."""
        return count_contacts(self.label_map.voxels, self.census.labels)

    def histogram(self, sequence: str) -> LabelHistogram:
        """How often each value occurs in each label; counted once per sequence, shared by all checks."""
        known: dict[str, LabelHistogram] = self.__dict__.setdefault("_histograms", {})
        if sequence not in known:
            known[sequence] = count_values(self.label_map.voxels, self.images[sequence], (0, *self.census.labels))
        return known[sequence]


@dataclass(frozen=True)
class CheckResult:
    """What one check found. ``scores`` are kept for every case; ``reasons`` are one line each and empty when it passed."""

    check: str
    scores: Mapping[str, float] = field(default_factory=dict)
    reasons: Sequence[str] = ()

    @property
    def passed(self) -> bool:
        return not self.reasons


@dataclass(frozen=True)
class Verdict:
    """The outcome of all checks on one attempt.

    checks: ``"<name>@<version>"`` of the checks that ran, in that order. policy: digest of the policy it was given under.
    """

    results: tuple[CheckResult, ...]
    checks: tuple[str, ...] = ()
    policy: str = ""

    @property
    def accepted(self) -> bool:
        return all(result.passed for result in self.results)

    @property
    def reasons(self) -> tuple[str, ...]:
        """``"<check>: <reason>"`` of every failed check."""
        return tuple(f"{result.check}: {reason}" for result in self.results for reason in result.reasons)

    @property
    def scores(self) -> dict[str, float]:
        """``"<check>/<score>"`` -> value over all checks."""
        return {f"{r.check}/{name}": float(value) for r in self.results for name, value in r.scores.items()}


@runtime_checkable
class Check(Protocol):
    """One check. Implementations are found through the entry-point group ``ctmr.checks``."""

    name: str

    def applies(self, case: Case) -> bool:
        """Whether the check has anything to say about this case."""
        ...

    def run(self, candidate: Candidate) -> CheckResult:
        """Scores and, where it fails, reasons."""
        ...


def versioned(check: Check) -> str:
    """``"<name>@<version>"``: what was measured, as verdicts and catalogs name it."""
    return f"{check.name}@{getattr(check, 'version', '1')}"


class ScoredCheck(ABC):
    """Base of checks whose reasons follow from their scores: measuring needs voxels, deciding does not.

    So a stored case can be judged again under other thresholds without reading a voxel. Subclasses give ``name``,
    ``thresholds``, ``measure`` and ``decide``.
    """

    name: str
    version: ClassVar[str] = "1"  #: raised when what is measured changes, so that stored scores are measured anew
    thresholds: ClassVar[Thresholds] = {}
    gate: ClassVar[bool] = False
    uses_tissues: ClassVar[bool] = False  #: whether it looks at tissues, which are not stored but made again from the labels

    def applies(self, case: Case) -> bool:
        """Whether the check has anything to say about this case; by default it always has."""
        del case
        return True

    @abstractmethod
    def measure(self, candidate: Candidate) -> dict[str, float]:
        """Scores of one attempt, whatever the thresholds; a score that can't be told (nothing in view) is left out."""

    @abstractmethod
    def decide(self, case: Case, scores: Mapping[str, float], limits: Mapping[str, float]) -> list[str]:
        """One line for everything in ``scores`` that breaks ``limits``; nothing but the arguments may be asked."""

    def run(self, candidate: Candidate) -> CheckResult:
        """Measure, then decide under the case's thresholds."""
        scores = self.measure(candidate)
        limits = thresholds(candidate.case, self.name, self.thresholds)
        return CheckResult(self.name, scores, tuple(self.decide(candidate.case, scores, limits)))
