"""Putting one case into the dataset: write the volume, then the commit record; or record why there is none."""

from __future__ import annotations

import datetime as dt
import os
import platform
import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import Any, Literal

from ctmr_core.cases.case import Case
from ctmr_core.engines import Engine
from ctmr_core.quality.base import Candidate, Verdict
from ctmr_core.store import catalog, commits, layout
from ctmr_core.store.storage import Storage, open_storage
from ctmr_core.store.volumes import write_volume

#: Libraries whose version can change what a case looks like or how it is stored.
RECORDED_LIBRARIES = ("ctmr-factory", "torch", "numpy", "scipy", "monai", "zarr", "tensorstore")


@cache
def library_versions() -> dict[str, str]:
    """Library -> installed version."""
    return {name: version(name) for name in RECORDED_LIBRARIES}


def environment() -> dict[str, Any]:
    """What a person needs to reproduce a failure: versions, machine, process. No variables, they may hold secrets."""
    return {
        "versions": library_versions(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "cpus": os.cpu_count(),
    }


@dataclass(frozen=True)
class Attempt:
    """A judged attempt at a case, ready to be committed. ``parameters``: JSON-able record of images and lesions.

    licences: names of those of weights and template.
    """

    case: Case
    number: int
    candidate: Candidate
    verdict: Verdict
    parameters: Mapping[str, Any]
    timings: Mapping[str, float]
    engine: Engine
    licences: tuple[str, ...] = ()


@dataclass(frozen=True)
class Written:
    """An attempt whose volume is written, if it has one; its record makes it committed. ``seconds``: what writing took."""

    record: commits.CommitRecord
    seconds: float


@dataclass(frozen=True)
class Committed:
    """What stands in the dataset now, and the seconds that writing the volume and committing it took."""

    record: commits.CommitRecord
    write_seconds: float
    commit_seconds: float

    @property
    def bytes(self) -> int:
        """Of the stored volume; 0 for a rejected case."""
        return sum(entry.bytes for entry in self.record.objects)


class CaseLedger:
    """The dataset as one worker process sees it."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    @classmethod
    def open(cls, dataset: str) -> CaseLedger:
        return cls(open_storage(dataset))

    def write(self, attempt: Attempt) -> Written:
        """Write the volume of an accepted attempt; nobody sees it before it is committed."""
        start = time.perf_counter()
        record = self._record(attempt, commits.new_attempt_id())
        return Written(record, time.perf_counter() - start)

    def commit(self, written: Written) -> Committed:
        """Publish an accepted attempt, or keep the scores of a rejected one; losing a race leaves nothing behind.

        May be called again with the same attempt when the storage stumbled.
        """
        start = time.perf_counter()
        standing = commits.commit(self._storage, written.record).record
        return Committed(standing, written.seconds, time.perf_counter() - start)

    def _record(self, attempt: Attempt, attempt_id: str) -> commits.CommitRecord:
        """The record to commit, its volume written if the verdict accepts it."""
        case = attempt.case
        row = self._row(attempt)
        if not attempt.verdict.accepted:
            return commits.CommitRecord.rejected(case.case_id, case.key, attempt=attempt.number, attempt_id=attempt_id, row=row)
        stored = write_volume(
            self._storage,
            layout.volume_path(case.case_id, attempt_id),
            images=attempt.candidate.images,
            label_map=attempt.candidate.label_map,
            attributes={"case_id": case.case_id, "case_key": case.key, "attempt": attempt.number, "synthetic": True},
        )
        return commits.CommitRecord.accepted(
            case.case_id, case.key, attempt=attempt.number, attempt_id=attempt_id, stored=stored, row=row
        )

    def seal(self, unit_id: str, records: Iterable[commits.CommitRecord]) -> None:
        """Put the unit's commits into the catalog. records: those that stand in the dataset."""
        catalog.seal_records(self._storage, unit_id, records)

    def decided(self, case: Case) -> Literal["accepted", "rejected"] | None:
        """``accepted`` or ``rejected`` if the case is committed, else None."""
        record = commits.read_commit(self._storage, case.case_id, case.key)
        return record.status if record else None

    def has_failed(self, case: Case) -> bool:
        """Whether a failure of the case is on record, of this run or an earlier one."""
        return self._storage.stat(layout.failure_name(case.case_id, case.key)) is not None

    def record_failure(self, case: Case, attempts: int, reason: str, trace: str, status: str = "failed") -> None:
        """Keep why there is no volume: one line, the traceback and the environment."""
        commits.record_failure(
            self._storage,
            commits.FailureRecord(
                case_id=case.case_id,
                case_key=case.key,
                status="quarantined" if status == "quarantined" else "failed",
                attempts=attempts,
                reason=reason.splitlines()[0],
                traceback=trace,
                environment=environment(),
                row=case.model_dump(mode="json"),
            ),
        )

    @staticmethod
    def _row(attempt: Attempt) -> dict[str, Any]:
        engine = attempt.engine
        return catalog.build_row(
            attempt.case,
            label_map=attempt.candidate.label_map,
            census=attempt.candidate.census,
            verdict=attempt.verdict,
            image_parameters=attempt.parameters,
            engine_version=engine.version,
            weights_digest=engine.weights_digest,
            versions=library_versions(),
            licences=attempt.licences,
            timings={step: round(seconds, 4) for step, seconds in attempt.timings.items()},
            host=socket.gethostname(),
            finished_at=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        )
