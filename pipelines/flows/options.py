"""What a run is told and what it answers: plain data, so that Prefect can keep both."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from pipelines.factory.logs import LogFormat


class GenerateOptions(BaseModel):
    """The settings of one run of ``generate_dataset``.

    manifest: Parquet, CSV or JSON Lines. dataset: folder to create or resume. library: folder of templates.
    address: of a running Ray cluster; None starts a local one. workers: actors at most; None = as many as there is room for.
    threads: CPU threads per actor. gpus_per_worker: share of a GPU per actor; above 0 the engines run on CUDA.
    memory_per_worker: GB (10^9 bytes) reserved for an actor, above which it is replaced; None = an even share of its machine.
    unit_size: cases per work unit; None goes by what cases cost. waves: Prefect tasks at most.
    limit: make at most this many cases in this run. case_timeout: seconds after which an attempt counts as hanging.
    log_format: of what actors and this process log; None takes CTMR_LOG_FORMAT.
    force: begin even if the cases can't fit by what is known.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    manifest: str
    dataset: str
    library: str | None = None
    address: str | None = None
    workers: Annotated[int, Field(ge=1, le=100_000)] | None = None
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    gpus_per_worker: Annotated[float, Field(ge=0, le=64)] = 0.0
    memory_per_worker: Annotated[float, Field(gt=0, le=100_000)] | None = None
    unit_size: Annotated[int, Field(ge=1, le=10_000)] | None = None
    waves: Annotated[int, Field(ge=1, le=10_000)] = 64
    limit: Annotated[int, Field(ge=1)] | None = None
    case_timeout: Annotated[float, Field(gt=0)] = 3600.0
    skip_invalid: bool = False
    log_format: LogFormat | None = None
    force: bool = False


class RunSummary(BaseModel):
    """How a run ended. Numbers that ``RunRecord`` has too mean the same there.

    reasons: why cases had to be made, by class. problems: up to 20 cases that are not accepted. record: name of the run's record
    in the dataset. tracking_lost: why Prefect's server was not told of all of it, "" when it was.
    """

    dataset: str
    planned: int
    done_before: int
    reasons: dict[str, int]
    accepted: int
    rejected: int
    failed: int
    quarantined: int
    attempts: int
    seconds: float
    volumes_per_minute: float
    making_seconds: float = 0.0
    efficiency: float
    workers: int
    worker_seconds: float = 0.0
    nodes: int = 0
    bytes: int = 0
    deaths: int = 0
    replaced: int = 0
    second_copies: int = 0
    stages: dict[str, float] = Field(default_factory=dict)
    interrupted: bool
    halt: str | None
    skipped_rows: list[str]
    problems: list[dict[str, str]]
    record: str = ""
    tracking_lost: str = ""

    @property
    def complete(self) -> bool:
        """Whether every planned case has its outcome."""
        return not self.interrupted and self.halt is None
