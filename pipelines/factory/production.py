"""Making cases inside one process: body, images, checks, attempts, commit. Knows nothing of Ray."""

from __future__ import annotations

import contextlib
import errno
import logging
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from ctmr_core.cases.case import Case
from ctmr_core.engines import Engine, load_engine
from ctmr_core.engines.bodies import label_map_of
from ctmr_core.engines.licences import licences_of
from ctmr_core.engines.out_of_memory import is_out_of_memory
from ctmr_core.errors import IntegrityError, StoreError
from ctmr_core.quality.agreement import read_segmenters
from ctmr_core.quality.base import Candidate, Verdict
from ctmr_core.quality.judge import judge
from ctmr_core.store.commits import CommitRecord
from ctmr_core.store.volumes import load_writers
from pipelines.factory.activity import Activity, Turns, seconds_without_a_core
from pipelines.factory.faults import strike
from pipelines.factory.ledger import Attempt, CaseLedger, Committed, Written
from pipelines.factory.reach import open_dataset, open_library
from pipelines.factory.watcher import Watcher
from pipelines.factory.work import (
    MAKING_STAGES,
    MOST_LANES,
    ActorSettings,
    CaseOutcome,
    OutcomeStatus,
    UnitReport,
    WorkUnit,
    lanes,
)

T = TypeVar("T")
LOG = logging.getLogger(__name__)
WRITE_TRIES = 4
FIRST_PAUSE_SECONDS = 0.5
#: The storage itself is in trouble, so the next case would meet the same: stop and let the person act.
HALTING_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE})


class StorageHaltError(StoreError):
    """Writing failed for good; no further case can be committed."""


@dataclass
class Trial:
    """A case on its way: the attempt at hand and what the earlier ones came to. record: what was committed in the end.

    out_of_memory: the last error was that. starved: the attempt at hand had it before, and is made again as it was.
    """

    case: Case
    attempt: int = 0
    begun: float | None = None
    timings: dict[str, float] = field(default_factory=dict)
    stages: dict[str, float] = field(default_factory=dict)
    cpu_wait: float = 0.0
    errors: list[str] = field(default_factory=list)
    out_of_memory: bool = False
    starved: bool = False
    last_traceback: str = ""
    record: CommitRecord | None = None

    @property
    def is_last(self) -> bool:
        return self.attempt + 1 >= self.case.max_attempts

    def took(self, stage: str, seconds: float) -> None:
        """``stage`` of this attempt is done. ``timings`` are of the attempt at hand, ``stages`` the sums over all."""
        self.timings[stage] = seconds
        self.stages[stage] = self.stages.get(stage, 0.0) + seconds

    def outcome(self, status: OutcomeStatus, reason: str, size: int = 0, objects: int = 0) -> CaseOutcome:
        """How the case ended: now, with this attempt."""
        seconds = time.monotonic() - self.begun if self.begun is not None else 0.0
        return CaseOutcome(
            self.case.case_id,
            status,
            self.attempt + 1,
            seconds,
            reason,
            stages=dict(self.stages),
            cpu_wait=min(self.cpu_wait, sum(self.stages.get(stage, 0.0) for stage in MAKING_STAGES)),
            bytes=size,
            objects=objects,
        )


@dataclass
class _UnitRun:
    """A unit in the making: cases that wait, those being finished (oldest first), and what came of the others."""

    waiting: deque[Trial]
    decide: Callable[[Case, CaseOutcome], None]
    finishing: deque[tuple[Trial, Future[CaseOutcome | None]]] = field(default_factory=deque)
    outcomes: list[CaseOutcome] = field(default_factory=list)
    records: list[CommitRecord] = field(default_factory=list)
    abandoned: list[Case] = field(default_factory=list)

    def settle(self, at_most: int = 0) -> None:
        """Take what came of the cases being finished; wait until ``at_most`` of them are left."""
        while self.finishing and (len(self.finishing) > at_most or self.finishing[0][1].done()):
            trial, future = self.finishing.popleft()
            self.take(trial, future.result())

    def settle_after_halt(self) -> None:
        """Take what still got committed when the storage gave up."""
        while self.finishing:
            with contextlib.suppress(StorageHaltError):
                self.settle()

    def take(self, trial: Trial, outcome: CaseOutcome | None) -> None:
        """An outcome ends the case; None puts its next attempt in front."""
        if outcome is None:
            self.waiting.appendleft(trial)
        else:
            self.outcomes.append(outcome)
            if trial.record is not None:
                self.records.append(trial.record)
            self.decide(trial.case, outcome)


class Workshop:
    """Makes units of cases: checks and writes of cases overlap the rendering of the next, across units too.

    Threads may call :meth:`make_unit` with one unit each; one of them renders at a time. Other threads of the workshop finish
    cases: one checks and encodes while the others wait for the disk. So a workshop holds three volumes at most, or as many
    small ones as :func:`~pipelines.factory.work.lanes` says.
    Engines and segmenters are loaded once. Raises ``CtmrError`` or ``OSError`` where the dataset, the template library or a
    segmenter can't be reached.
    """

    def __init__(self, settings: ActorSettings, activity: Activity | None = None, watcher: Watcher | None = None) -> None:
        self._settings = settings
        self._activity = activity or Activity()
        self._watcher = watcher or Watcher()
        self._engines: dict[str, Engine] = {}
        self._library = open_library(settings)
        self._ledger = CaseLedger(open_dataset(settings))
        self._turns = Turns()
        self._finishers = ThreadPoolExecutor(MOST_LANES, thread_name_prefix="finish")
        self._finishing: set[Future[CaseOutcome | None]] = set()
        self._judging = threading.Lock()  # checks may keep state, and need not bear two threads
        self._agreement = read_segmenters(settings.segmenters) if settings.segmenters else None
        if self._agreement is not None:
            self._agreement.open()
        for name in settings.engines:
            self._engine(name)
        load_writers()

    def make_unit(self, unit: WorkUnit, stopping: threading.Event, turn: int | None = None) -> UnitReport:
        """Make the cases of ``unit`` in order; after ``stopping`` no further case is begun.

        turn: the how manieth unit of this workshop it is, from 0; needed when several threads call.
        """
        turn = self._turns.begun if turn is None else turn
        self._activity.begin_unit(unit.id)
        run = _UnitRun(deque(Trial(case) for case in unit.cases), partial(self._decide, unit.id))
        halt, seal_seconds = None, 0.0
        try:
            while run.waiting:
                with self._turns.taken(turn):
                    while run.waiting:
                        self._turns.let_earlier_pass(turn)
                        self._step(run, stopping)
                run.settle()  # the next unit renders meanwhile; cases that failed their checks wait again
            start = time.perf_counter()
            if run.records:
                self._with_patience(lambda: self._ledger.seal(unit.id, run.records))
            seal_seconds = time.perf_counter() - start
        except StorageHaltError as error:
            halt = str(error)
            run.settle_after_halt()
        finally:
            self._activity.end_unit(unit.id)
        return UnitReport(unit.id, tuple(run.outcomes), tuple(run.abandoned), halt, seal_seconds)

    def _step(self, run: _UnitRun, stopping: threading.Event) -> None:
        """Render one attempt while those before it are finished by other threads."""
        trial = run.waiting.popleft()
        if stopping.is_set() and trial.attempt == 0:
            run.abandoned.append(trial.case)
            return
        made = self._render(trial)
        room = lanes(trial.case)
        run.settle(at_most=room - 1)
        if made is None:
            run.take(trial, self._after_error(trial))
            return
        while len(self._finishing) >= room:  # some may be of another unit
            self._finishing = set(wait(self._finishing, return_when=FIRST_COMPLETED).not_done)
        future = self._finishers.submit(self._finish, trial, made)
        self._finishing.add(future)
        run.finishing.append((trial, future))

    def _decide(self, unit_id: str, case: Case, outcome: CaseOutcome) -> None:
        self._activity.leave(case.case_id)
        self._activity.decide(unit_id, outcome)
        self._watcher.outcome(case, outcome)

    def close(self) -> None:
        """Release engines and end the finishing threads."""
        self._finishers.shutdown()
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
        trial.begun = time.monotonic() if trial.begun is None else trial.begun
        waited = seconds_without_a_core()
        try:
            with self._stage(trial, "body"):
                strike(case.case_id, attempt, "render")
                engine = self._engine(case.engine)
                label_map, body = label_map_of(case, self._library, engine, attempt)
            with self._stage(trial, "render"):
                images = engine.render(case, label_map, attempt)
        except Exception as error:  # noqa: BLE001 - whatever one case raises must not touch its neighbours
            self._keep_error(trial, error)
            return None
        finally:
            trial.cpu_wait += seconds_without_a_core() - waited
        return Candidate(case, label_map, images), {"images": images.parameters, **body}

    def _finish(self, trial: Trial, made: tuple[Candidate, dict[str, Any]]) -> CaseOutcome | None:
        """Judge, then commit or reject; None asks for another attempt."""
        candidate, parameters = made
        case, attempt = trial.case, trial.attempt
        try:
            with self._judging, self._stage(trial, "check"):
                verdict = judge(candidate, agreement=self._agreement)
            if not verdict.accepted and not trial.is_last:
                trial.errors.append("; ".join(verdict.reasons))
                self._watcher.attempt(case, attempt, "rejected", trial.errors[-1])
                self._again(trial)
                return None
            committed = self._commit(trial, candidate, verdict, parameters)
        except StorageHaltError:
            raise
        except Exception as error:  # noqa: BLE001 - see _render
            self._keep_error(trial, error)
            return self._after_error(trial)
        status: OutcomeStatus = "accepted" if verdict.accepted else "rejected"
        reason = "; ".join(verdict.reasons)
        self._watcher.attempt(case, attempt, status, reason, committed.bytes)
        return trial.outcome(status, reason, committed.bytes, len(committed.record.objects))

    def _commit(self, trial: Trial, candidate: Candidate, verdict: Verdict, parameters: dict[str, Any]) -> Committed:
        case, engine = trial.case, self._engine(trial.case.engine)
        licences = licences_of(case, engine, self._library)
        attempt = Attempt(case, trial.attempt, candidate, verdict, parameters, dict(trial.timings), engine, licences)
        self._activity.enter(case.case_id, "write", trial.attempt)

        written: list[Written] = []

        def write() -> Committed:
            strike(case.case_id, trial.attempt, "commit")
            if not written:
                written.append(self._ledger.write(attempt))
            committed = self._ledger.commit(written[0])
            strike(case.case_id, trial.attempt, "committed")
            return committed

        committed = self._with_patience(write)
        trial.record = committed.record
        for stage, seconds in (("write", committed.write_seconds), ("commit", committed.commit_seconds)):
            trial.took(stage, seconds)
            self._watcher.stage(case, trial.attempt, stage, seconds)
        return committed

    @contextlib.contextmanager
    def _stage(self, trial: Trial, stage: str) -> Iterator[None]:
        """Time a stage and tell of it."""
        self._activity.enter(trial.case.case_id, stage, trial.attempt)
        start = time.perf_counter()
        try:
            yield
        finally:
            trial.took(stage, time.perf_counter() - start)
        self._watcher.stage(trial.case, trial.attempt, stage, trial.timings[stage])

    def _with_patience(self, write: Callable[[], T]) -> T:
        """Write, with pauses and a few more tries when the storage stumbles; ``StorageHaltError`` when it stays down."""
        pause = FIRST_PAUSE_SECONDS
        remaining = WRITE_TRIES
        while True:
            remaining -= 1
            try:
                return write()
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
        trial.out_of_memory = is_out_of_memory(error)

    def _again(self, trial: Trial) -> None:
        """The next attempt, with other random draws."""
        self._activity.leave(trial.case.case_id)
        trial.attempt += 1
        trial.starved = False

    def _after_error(self, trial: Trial) -> CaseOutcome | None:
        """None asks for another attempt; after the last one the case is recorded as failed.

        Want of memory tells of the machine, not of the draws: the same attempt is made once more, so the case stays the same.
        """
        self._watcher.attempt(trial.case, trial.attempt, "failed", trial.errors[-1])
        if trial.out_of_memory and not trial.starved:
            self._activity.leave(trial.case.case_id)
            trial.starved = True
            return None
        if not trial.is_last:
            self._again(trial)
            return None
        reason = trial.errors[-1]
        self._with_patience(lambda: self._ledger.record_failure(trial.case, trial.attempt + 1, reason, trial.last_traceback))
        return trial.outcome("failed", reason)


def _errno(error: Exception) -> int | None:
    cause = error if isinstance(error, OSError) else error.__cause__
    return cause.errno if isinstance(cause, OSError) else None
