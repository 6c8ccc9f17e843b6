"""What every run did and what it took: one small record per run, kept with the dataset.

``runs/<started>-<id>.json`` is written once, when the run ends (a driver that is killed writes none). Plans for further runs,
the dashboards and ``ctmr status`` read these numbers; nothing about a volume depends on them.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ctmr_core.errors import IntegrityError
from ctmr_core.store import layout
from ctmr_core.store.storage import Storage, json_bytes, read_json

RUN_SCHEMA = 1
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")  # an older reader passes over what a newer writer added


class CaseCost(_Part):
    """What the cases of one engine and size took, summed over ``cases`` that got an outcome in this run.

    size_bucket: voxels of one image, rounded to a power of two (see :func:`size_bucket`). images: sequences rendered.
    attempts: tries, at least one per case. busy_seconds: of the worker's making thread (body and render) as the clock ran;
    cpu_wait_seconds: the part of it in which the thread was ready and no core was free (0 where the system doesn't tell).
    finish_seconds: by which checking, writing and committing bound its pace. bytes, objects: of the accepted volumes.
    """

    engine: str
    device: str = "cpu"
    size_bucket: Count
    cases: Count
    accepted: Count = 0
    images: Count = 0
    attempts: Count = 0
    busy_seconds: Seconds = 0.0
    cpu_wait_seconds: Seconds = 0.0
    finish_seconds: Seconds = 0.0
    bytes: Count = 0
    objects: Count = 0

    @property
    def seconds_per_case(self) -> float:
        """Seconds one undisturbed worker needs per case: the busier of making and finishing sets the pace."""
        return max(self.busy_seconds - self.cpu_wait_seconds, self.finish_seconds) / self.cases if self.cases else 0.0


class WorkerRecord(_Part):
    """One worker process: where it ran, how many cases it made, and the most memory it held (bytes; gpu 0 without CUDA)."""

    host: str
    cases: Count = 0
    peak_bytes: Count = 0
    gpu_peak_bytes: Count = 0
    seconds: Seconds = 0.0


class RunRecord(_Part):
    """One run of ``ctmr generate``.

    id: 8 hex digits. started: ISO 8601, UTC, whole seconds. seconds: of the whole run; making_seconds: from the first order for
    workers to the last report.
    planned: cases of the manifest; done_before: with an outcome before this run; reasons: why the others were to do -> cases.
    workers: most workers at work at one time; worker_seconds: sum over workers of the seconds from order to end; nodes: machines
    they ran on. deaths, replaced, second_copies: workers that died, that were ended because of their memory, and units started
    again elsewhere because they took too long.
    stages: seconds summed over workers by stage: body, render, wait (the making thread: they add up to worker_seconds) and
    check, write (encode and write), commit, seal (beside it).
    efficiency: cases per second, divided by the single-worker rate times the mean number of workers (worker_seconds /
    making_seconds). The single-worker rate is cases / sum of (body + render seconds without waiting for a core).
    costs: by engine and size. fleet: up to 200 workers, largest memory first.
    """

    record_schema: int = RUN_SCHEMA
    id: Annotated[str, Field(pattern=r"^[0-9a-f]{8}$")] = Field(default_factory=lambda: uuid.uuid4().hex[:8])
    started: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    version: str = ""
    manifest: str = ""
    planned: Count = 0
    done_before: Count = 0
    reasons: dict[str, int] = Field(default_factory=dict)
    accepted: Count = 0
    rejected: Count = 0
    failed: Count = 0
    quarantined: Count = 0
    attempts: Count = 0
    bytes: Count = 0
    objects: Count = 0
    seconds: Seconds = 0.0
    making_seconds: Seconds = 0.0
    workers: Count = 0
    worker_seconds: Seconds = 0.0
    nodes: Count = 0
    threads: Count = 1
    gpus_per_worker: Annotated[float, Field(ge=0)] = 0.0
    deaths: Count = 0
    replaced: Count = 0
    second_copies: Count = 0
    waves: Count = 0
    stages: dict[str, Seconds] = Field(default_factory=dict)
    efficiency: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    costs: tuple[CaseCost, ...] = ()
    fleet: tuple[WorkerRecord, ...] = ()
    interrupted: bool = False
    halt: str | None = None

    @property
    def made(self) -> int:
        """Cases that got their outcome in this run."""
        return self.accepted + self.rejected + self.failed + self.quarantined

    @property
    def name(self) -> str:
        """Where it is kept: ``runs/20260131T235959Z-0f1e2d3c.json``; names sort by time."""
        moment = datetime.fromisoformat(self.started).astimezone(UTC)
        return f"{layout.RUNS}/{moment:%Y%m%dT%H%M%SZ}-{self.id}.json"


def size_bucket(voxels: int) -> int:
    """``voxels`` rounded to the nearest power of two: sizes of one bucket differ in cost by less than a factor of two."""
    lower = 1 << max(voxels.bit_length() - 1, 0)
    return lower if voxels * voxels <= 2 * lower * lower else 2 * lower


def write_run(storage: Storage, record: RunRecord) -> str:
    """Keep the record with the dataset; its name."""
    storage.write(record.name, json_bytes(record.model_dump(mode="json")))
    return record.name


def read_runs(storage: Storage, last: int | None = None) -> list[RunRecord]:
    """The runs of the dataset, oldest first; the ``last`` N of them when given. ``IntegrityError`` names a damaged record."""
    names = sorted(entry.name for entry in storage.list(layout.RUNS) if entry.name.endswith(".json"))
    chosen = names if last is None else names[max(len(names) - last, 0) :]
    return [_parsed(storage, name) for name in chosen]


def _parsed(storage: Storage, name: str) -> RunRecord:
    document: Any = read_json(storage, name)
    try:
        return RunRecord.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        raise IntegrityError(
            "not a complete record of a run",
            where=f"{storage.uri}/{name}, field {'.'.join(str(part) for part in first['loc']) or '(top)'}",
            found=first["msg"],
            fix="delete the file; no volume depends on it",
        ) from error
