"""What a training is told and what it answers: plain data, so that Prefect can keep both."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from pipelines.factory.logs import LogFormat
from pipelines.flows.nightly_options import Device

NEWEST = "newest"


class TrainOptions(BaseModel):
    """The settings of one run of ``train_segmentation``.

    config: YAML file of the training. base: folder that relative paths in it start from; None: the current one.
    folder: the run folder to make or resume; every node must see it.
    dataset, snapshot: the parts of the configuration that read this dataset (None: any), and name no snapshot of their own, read
    this snapshot, ``newest`` for the last one made; None leaves the configuration as it is.
    workers: ranks. address: of a running Ray cluster. local: train in this process, whatever else is said.
    threads: CPU threads of a rank; None takes an even share of this machine's cores. device: instead of the configuration's.
    weights: file to start from, instead of the configuration's ``network.weights``; a training that is resumed has its own.
    resume: go on with the training in the folder; else such a folder is refused. steps, minutes: instead of the configuration's.
    max_failures: losses of workers after which the run fails. log_format: of what ranks and this process log.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    config: str
    base: str | None = None
    folder: str
    dataset: str | None = None
    snapshot: str | None = None
    workers: Annotated[int, Field(ge=1, le=1024)] = 1
    address: str | None = None
    local: bool = False
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    device: Device | None = None
    weights: str | None = None
    resume: bool = True
    steps: Annotated[int, Field(ge=1)] | None = None
    minutes: Annotated[float, Field(gt=0)] | None = None
    max_failures: Annotated[int, Field(ge=0, le=1000)] = 3
    log_format: LogFormat | None = None

    @property
    def on_ray(self) -> bool:
        """Whether the ranks are Ray's workers; one rank and no cluster is a training in this process."""
        return not self.local and (self.workers > 1 or self.address is not None)


class TrainOutcome(BaseModel):
    """How a training ended.

    reason: ``finished``, ``out of time`` or ``stopped``. step: updates done in all; steps: asked for. score: of the best
    checkpoint, by ``best_by``, at ``best_step``; None without validation. scores: of the last validation; table: its rows by set
    and class (see ``segmentation.scores.class_table``), as text. last, best: checkpoints. seconds: of this run. snapshots: that
    the options put into the configuration, by dataset. tracking_lost: why Prefect's server was not told of all of it, "" when
    it was.
    """

    config: str
    folder: str
    reason: str
    step: int
    steps: int
    best_by: str | None = None
    score: float | None = None
    best_step: int | None = None
    scores: dict[str, float] = Field(default_factory=dict)
    table: list[dict[str, str]] = Field(default_factory=list)
    last: str | None = None
    best: str | None = None
    tensorboard: str | None = None
    workers: int = 1
    seconds: float = 0.0
    snapshots: dict[str, str] = Field(default_factory=dict)
    tracking_lost: str = ""

    @property
    def complete(self) -> bool:
        """Whether it did what it was asked for."""
        return self.reason != "stopped"
