"""Making cases inside one process: body, images, checks, attempts, commit. Knows nothing of Ray."""

from __future__ import annotations

import errno
import logging
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from ctmr_core.anatomy.templates.library import TemplateLibrary
from ctmr_core.cases.case import Case
from ctmr_core.engines import Engine, load_engine
from ctmr_core.engines.bodies import label_map_of
from ctmr_core.errors import IntegrityError, StoreError
from ctmr_core.quality.base import Candidate, Verdict
from ctmr_core.quality.judge import judge
from pipelines.factory.faults import strike
from pipelines.factory.ledger import Attempt, CaseLedger
from pipelines.factory.watcher import Watcher
from pipelines.factory.work import ActorSettings, CaseOutcome, OutcomeStatus, UnitReport, WorkUnit

LOG = logging.getLogger(__name__)
WRITE_TRIES = 4
FIRST_PAUSE_SECONDS = 0.5
#: The storage itself is in trouble, so the next case would meet the same: stop and let the person act.
HALTING_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE})

Enter = Callable[[str, str, int], None]
Finished = Callable[[CaseOutcome], None]


def _nobody(*news: object) -> None:
    """Listens to nothing."""


class StorageHaltError(StoreError):
    """Writing failed for good; no further case can be committed."""


@dataclass
class Trial:
    """A case on its way: the attempt at hand and what the earlier ones came to."""

    case: Case
    attempt: int = 0
    begun: float = field(default_factory=time.monotonic)
    timings: dict[str, float] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    last_traceback: str = ""

    @property
    def is_last(self) -> bool:
        return self.attempt + 1 >= self.case.max_attempts


@dataclass
class _UnitRun:
    """A unit in the making: cases that wait, the one the writer has, and what came of the others."""

    waiting: deque[Trial]
    finished: Finished
    pending: tuple[Trial, Future[CaseOutcome | None]] | None = None
    outcomes: list[CaseOutcome] = field(default_factory=list)
    abandoned: list[Case] = field(default_factory=list)

    def settle(self) -> None:
        """Wait for the writer, and take what it says."""
        if self.pending is not None:
            trial, future = self.pending
            self.pending = None
            self.take(trial, future.result())

    def take(self, trial: Trial, outcome: CaseOutcome | None) -> None:
        """An outcome ends the case; None puts its next attempt in front."""
        if outcome is None:
            self.waiting.appendleft(trial)
        else:
            self.outcomes.append(outcome)
            self.finished(outcome)


class Workshop:
    """Makes units of cases: checks and writes of one case overlap the rendering of the next."""

    def __init__(self, settings: ActorSettings, enter: Enter = _nobody, watcher: Watcher | None = None) -> None:
        self._settings = settings
        self._enter = enter
        self._watcher = watcher or Watcher()
        self._engines: dict[str, Engine] = {}
        self._library = TemplateLibrary.open(settings.library) if settings.library else None
        self._ledger = CaseLedger.open(settings.dataset)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="finish")

    def make_unit(self, unit: WorkUnit, stopping: threading.Event, finished: Finished = _nobody) -> UnitReport:
        """Make the cases of ``unit`` in order; after ``stopping`` no further case is begun."""
        run = _UnitRun(deque(Trial(case) for case in unit.cases), finished)
        halt = None
        try:
            while run.waiting or run.pending:
                self._step(run, stopping)
            if run.outcomes:
                self._with_patience(lambda: self._ledger.seal(unit.id, unit.cases))
        except StorageHaltError as error:
            halt = str(error)
        return UnitReport(unit.id, tuple(run.outcomes), tuple(run.abandoned), halt)

    def _step(self, run: _UnitRun, stopping: threading.Event) -> None:
        """Render one attempt while the one before it is finished by the writer thread."""
        if not run.waiting:
            run.settle()
            return
        trial = run.waiting.popleft()
        if stopping.is_set() and trial.attempt == 0:
            run.abandoned.append(trial.case)
            return
        made = self._render(trial)
        run.settle()
        if made is None:
            run.take(trial, self._after_error(trial))
        else:
            run.pending = (trial, self._writer.submit(self._finish, trial, made))

    def close(self) -> None:
        """Release engines and end the writer thread."""
        self._writer.shutdown()
        for engine in self._engines.values():
            engine.close()
        self._engines.clear()

    def _engine(self, name: str) -> Engine:
        if name not in self._engines:
            options: dict[str, Any] = {"device": self._settings.device, "threads": self._settings.threads}
            self._engines[name] = load_engine(name, **options, **self._settings.engine_options)
        return self._engines[name]

    def _render(self, trial: Trial) -> tuple[Candidate, dict[str, Any]] | None:
        """Body and images of one attempt, or None when it raised (the error is kept in ``trial``)."""
        case, attempt = trial.case, trial.attempt
        try:
            self._enter(case.case_id, "body", attempt)
            strike(case.case_id, attempt, "render")
            start = time.perf_counter()
            engine = self._engine(case.engine)
            label_map, body = label_map_of(case, self._library, engine, attempt)
            trial.timings["body"] = time.perf_counter() - start
            self._watcher.stage(case, attempt, "body", trial.timings["body"])
            self._enter(case.case_id, "render", attempt)
            start = time.perf_counter()
            images = engine.render(case, label_map, attempt)
            trial.timings["render"] = time.perf_counter() - start
            self._watcher.stage(case, attempt, "render", trial.timings["render"])
        except Exception as error:  # noqa: BLE001 - whatever one case raises must not touch its neighbours
            self._keep_error(trial, error)
            return None
        return Candidate(case, label_map, images), {"images": images.parameters, **body}

    def _finish(self, trial: Trial, made: tuple[Candidate, dict[str, Any]]) -> CaseOutcome | None:
        """Judge, then commit or reject; None asks for another attempt."""
        candidate, parameters = made
        case, attempt = trial.case, trial.attempt
        try:
            self._enter(case.case_id, "finish", attempt)
            start = time.perf_counter()
            verdict = judge(candidate)
            trial.timings["check"] = time.perf_counter() - start
            self._watcher.stage(case, attempt, "check", trial.timings["check"])
            if not verdict.accepted and not trial.is_last:
                trial.errors.append("; ".join(verdict.reasons))
                self._watcher.attempt(case, attempt, "rejected", trial.errors[-1])
                trial.attempt += 1
                return None
            start = time.perf_counter()
            written = self._commit(trial, candidate, verdict, parameters)
            self._watcher.stage(case, attempt, "write", time.perf_counter() - start)
        except StorageHaltError:
            raise
        except Exception as error:  # noqa: BLE001 - see _render
            self._keep_error(trial, error)
            return self._after_error(trial)
        status: OutcomeStatus = "accepted" if verdict.accepted else "rejected"
        self._watcher.attempt(case, attempt, status, "; ".join(verdict.reasons), written)
        return CaseOutcome(case.case_id, status, attempt + 1, time.monotonic() - trial.begun, "; ".join(verdict.reasons))

    def _commit(self, trial: Trial, candidate: Candidate, verdict: Verdict, parameters: dict[str, Any]) -> int:
        """Bytes of the committed volume; 0 for a rejected case."""
        engine = self._engine(trial.case.engine)
        attempt = Attempt(trial.case, trial.attempt, candidate, verdict, parameters, dict(trial.timings), engine)

        written = 0

        def write() -> None:
            nonlocal written
            strike(trial.case.case_id, trial.attempt, "commit")
            written = sum(stored.bytes for stored in self._ledger.commit(attempt).record.objects)
            strike(trial.case.case_id, trial.attempt, "committed")

        self._with_patience(write)
        return written

    def _with_patience(self, write: Callable[[], object]) -> None:
        """Write, with pauses and a few more tries when the storage stumbles; ``StorageHaltError`` when it stays down."""
        pause = FIRST_PAUSE_SECONDS
        for remaining in range(WRITE_TRIES - 1, -1, -1):
            try:
                write()
                return
            except IntegrityError:
                raise  # what stands in the dataset is damaged; trying again reads the same bytes
            except (OSError, StoreError) as error:
                if not remaining or _errno(error) in HALTING_ERRNOS:
                    raise StorageHaltError(
                        "the dataset cannot be written any more",
                        where=self._settings.dataset,
                        found=str(error),
                        fix="free space or repair the storage, then run the same command again: it resumes",
                    ) from error
                LOG.warning("writing to %s failed (%s), trying again in %.1f s", self._settings.dataset, error, pause)
                self._watcher.storage_retry()
                time.sleep(pause)
                pause *= 2

    @staticmethod
    def _keep_error(trial: Trial, error: Exception) -> None:
        trial.errors.append(f"{type(error).__name__}: {error}".splitlines()[0])
        trial.last_traceback = "".join(traceback.format_exception(error))

    def _after_error(self, trial: Trial) -> CaseOutcome | None:
        """None asks for another attempt; after the last one the case is recorded as failed."""
        self._watcher.attempt(trial.case, trial.attempt, "failed", trial.errors[-1])
        if not trial.is_last:
            trial.attempt += 1
            return None
        reason = trial.errors[-1]
        self._ledger.record_failure(trial.case, trial.attempt + 1, reason, trial.last_traceback)
        seconds = time.monotonic() - trial.begun
        return CaseOutcome(trial.case.case_id, "failed", trial.attempt + 1, seconds, reason)


def _errno(error: Exception) -> int | None:
    cause = error if isinstance(error, OSError) else error.__cause__
    return cause.errno if isinstance(cause, OSError) else None
