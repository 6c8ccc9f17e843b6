"""A finished dataset judged again, under any policy.

Verdicts follow from stored scores; voxels are read again only for checks that were not measured before, or measured by another
version. Whatever is measured then is kept beside the catalog, so it is measured once. Nothing committed is changed.
"""

from __future__ import annotations

import multiprocessing
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ctmr_core.assessment import layout, verdicts
from ctmr_core.assessment.measuring import Task, measure_case, measured_between, measured_table
from ctmr_core.assessment.stored_scores import READ, ScoreJudge
from ctmr_core.assessment.verdicts import JUDGED, judge_table
from ctmr_core.quality.policy import Policy, document_of
from ctmr_core.store.dataset import Dataset
from ctmr_core.store.storage import Storage, json_bytes
from ctmr_core.worker_processes import end_with_parent

_CHUNK = 8192  # rows a process judges at a time: some seconds of work, some 10 MB
_KEPT_EVERY = 256  # measured cases after which they are written down, so that an interrupted run goes on there


@dataclass(frozen=True)
class Judgement:
    """What came of judging a dataset.

    cases: accepted ones, that have voxels, and of them kept under the policy. without_voxels: cases that were rejected when they
    were made, and of them would_pass. measured: cases whose voxels were read. reasons: check -> cases it fails.
    unreadable: one line per case whose voxels could not be read; it is not kept, and measured the next time.
    verdicts: name of the table in the dataset.
    """

    policy: str
    digest: str
    cases: int
    kept: int
    without_voxels: int
    would_pass: int
    measured: int
    reasons: dict[str, int]
    unreadable: tuple[str, ...]
    verdicts: str

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "unreadable": list(self.unreadable)}


def rejudge(dataset: Dataset, policy: Policy, workers: int = 1, progress: Callable[[int, int], None] | None = None) -> Judgement:
    """Judge every committed case of ``dataset`` under ``policy`` and keep the verdicts with the dataset.

    Accepted cases are judged from their scores, and from their voxels where scores are missing; rejected cases have no voxels and
    are judged from what was measured. workers: processes; 1 works in this one. Memory: some thousand rows and one volume per
    process, and the verdicts. progress: called with cases judged and cases in all.
    Raises ``StoreError`` when the dataset can't be read or written.
    """
    with _Workers(dataset.storage, policy, workers) as team:
        run = _Run(dataset, policy, team)
        total = len(dataset.index)
        for table in run.tables():
            run.judged.append(table)
            run.done += table.num_rows
            if progress is not None:
                progress(run.done, total)
    table = pa.concat_tables(run.judged) if run.judged else JUDGED.empty_table()
    dataset.storage.create(layout.policy_name(policy.digest), json_bytes(document_of(policy)))
    name = verdicts.write(dataset.storage, policy, table)
    return _summary(policy, table, run, name)


class _Run:
    """One pass over the catalog."""

    def __init__(self, dataset: Dataset, policy: Policy, team: _Workers) -> None:
        self._dataset, self._team, self._storage = dataset, team, dataset.storage
        self._judge = ScoreJudge(policy)
        self.judged: list[pa.Table] = []
        self.done = 0
        self.measured = 0
        self.unreadable: list[str] = []

    def tables(self) -> Iterator[pa.Table]:
        """Verdicts, chunk by chunk, in the order of the catalog."""
        known = layout.tables(self._storage, "measured")
        chunks = ((chunk, measured_between(self._storage, known, chunk)) for chunk in _chunks(self._dataset))
        for judged, pending in self._team.in_order(_judge_chunk, chunks):
            yield judged
            if pending.num_rows:
                yield from self._measured(pending)

    def _measured(self, pending: pa.Table) -> Iterator[pa.Table]:
        for start in range(0, pending.num_rows, _KEPT_EVERY):
            part = pending.slice(start, _KEPT_EVERY)
            tasks = ((Task.of(row),) for row in part.drop_columns(["scores", "reasons"]).to_pylist())
            found = list(self._team.in_order(_measure_one, tasks))
            problems = {each.case_key: each.problem for each in found if each.problem}
            self.unreadable += [f"{each.case_id}: {each.problem}" for each in found if each.problem]
            fresh = measured_table(each for each in found if not each.problem)
            self.measured += fresh.num_rows
            if fresh.num_rows:
                layout.write_table(self._storage, "measured", fresh)
            earlier = measured_between(self._storage, layout.tables(self._storage, "measured"), part)
            rows = part.drop_columns(["missing"])
            yield judge_table(self._judge, rows, earlier, problems)[0]


class _Workers:
    """Processes that judge and measure, or this one; results come in the order of the work, few of them ahead."""

    def __init__(self, storage: Storage, policy: Policy, workers: int) -> None:
        self._workers, self._start = workers, (storage, policy)
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> _Workers:
        if self._workers > 1:
            spawned = multiprocessing.get_context("spawn")  # tensorstore and torch do not survive a fork
            self._pool = ProcessPoolExecutor(self._workers, spawned, _begin_process, self._start)
        else:
            _begin(*self._start)
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def in_order(self, work: Callable[..., Any], arguments: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        if self._pool is None:
            yield from (work(*given) for given in arguments)
            return
        waiting: deque[Future[Any]] = deque()
        for given in arguments:
            waiting.append(self._pool.submit(work, *given))
            if len(waiting) > 2 * self._workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


_WORKER: dict[str, Any] = {}  # what a process needs for its tasks; set once by _begin


def _begin_process(storage: Storage, policy: Policy) -> None:
    end_with_parent()
    _begin(storage, policy)


def _begin(storage: Storage, policy: Policy) -> None:
    _WORKER.update(storage=storage, judge=ScoreJudge(policy))


def _judge_chunk(rows: pa.Table, measured: pa.Table | None) -> tuple[pa.Table, pa.Table]:
    return judge_table(_WORKER["judge"], rows, measured, {})


def _measure_one(task: Task) -> Any:
    return measure_case(_WORKER["storage"], _WORKER["judge"].checks, task)


def _chunks(dataset: Dataset) -> Iterator[pa.Table]:
    """The current rows, committed and rejected, some thousand at a time."""
    waiting: list[pa.RecordBatch] = []
    rows = 0
    scanner = dataset.ledger.scanner(columns=list(READ), batch_readahead=8, fragment_readahead=1)
    for batch in scanner.to_batches():
        if not batch.num_rows:
            continue
        waiting.append(batch)
        rows += batch.num_rows
        if rows >= _CHUNK:
            yield pa.Table.from_batches(waiting)
            waiting, rows = [], 0
    if waiting:
        yield pa.Table.from_batches(waiting)


def _summary(policy: Policy, table: pa.Table, run: _Run, name: str) -> Judgement:
    published = pc.equal(table["status"], "accepted")
    accepted = table["accepted"]
    return Judgement(
        policy=policy.name,
        digest=policy.digest,
        cases=_count(published),
        kept=_count(pc.and_(published, accepted)),
        without_voxels=_count(pc.invert(published)),
        would_pass=_count(pc.and_(pc.invert(published), accepted)),
        measured=run.measured,
        reasons=_cases_per_check(table["reasons"]),
        unreadable=tuple(run.unreadable),
        verdicts=name,
    )


def _count(column: pa.ChunkedArray) -> int:
    return int(pc.sum(column).as_py() or 0)


def _cases_per_check(column: pa.ChunkedArray) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for reasons in column.filter(pc.greater(pc.list_value_length(column), 0)).to_pylist():
        counts.update({_check_of(reason) for reason in reasons})
    return dict(sorted(counts.items()))


def _check_of(reason: str) -> str:
    return reason.partition(":")[0]
