"""What a run is told and what it answers: plain data, so that Prefect can keep both."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from pipelines.factory.logs import LogFormat


class GenerateOptions(BaseModel):
    """The settings of one run of ``generate_dataset``.

    manifest: Parquet, CSV or JSON Lines. dataset: folder to create or resume. library: folder of templates.
    address: of a running Ray cluster; None starts a local one. workers: actors; None = one per core.
    threads: CPU threads per actor. gpus_per_worker: share of a GPU per actor; above 0 the engines run on CUDA.
    unit_size: cases per work unit, wave_units: units per Prefect task; None chooses by the size of the run.
    limit: make at most this many cases in this run. case_timeout: seconds after which a case counts as hanging.
    log_format: of what actors and this process log; None takes CTMR_LOG_FORMAT.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    manifest: str
    dataset: str
    library: str | None = None
    address: str | None = None
    workers: Annotated[int, Field(ge=1, le=100_000)] | None = None
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    gpus_per_worker: Annotated[float, Field(ge=0, le=64)] = 0.0
    unit_size: Annotated[int, Field(ge=1, le=10_000)] | None = None
    wave_units: Annotated[int, Field(ge=1, le=100_000)] = 256
    limit: Annotated[int, Field(ge=1)] | None = None
    case_timeout: Annotated[float, Field(gt=0)] = 3600.0
    skip_invalid: bool = False
    log_format: LogFormat | None = None


class RunSummary(BaseModel):
    """How a run ended. ``reasons``: why cases had to be made, by class; ``problems``: up to 20 cases that are not accepted;
    ``tracking_lost``: why Prefect's server was not told of all of it, "" when it was."""

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
    efficiency: float
    workers: int
    interrupted: bool
    halt: str | None
    skipped_rows: list[str]
    problems: list[dict[str, str]]
    tracking_lost: str = ""

    @property
    def complete(self) -> bool:
        """Whether every planned case has its outcome."""
        return not self.interrupted and self.halt is None
