"""What a nightly schedule is told: plain data, kept by the Prefect server as the parameters of a deployment."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, field_validator

from ctmr_core.cases.nights import NightMode

CatchUp = Literal["none", "last", "all"]
Notify = Literal["failure", "always", "never"]
Device = Literal["auto", "cpu", "cuda"]


class Pause(BaseModel):
    """The schedule rested between these instants (UTC); ``until`` is None while it rests."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    since: dt.datetime
    until: dt.datetime | None = None


class ThenTrain(BaseModel):
    """What is trained after a night, on its snapshot.

    config: of `ctmr train segmentation`, read when a training begins; the parts of it that read the schedule's dataset read the
    night's snapshot of it. base: folder that relative paths in it start from.
    out: folder whose sub-folders, named after the snapshots, are the run folders. minutes: of training, then it ends.
    beside: go on while a night is made; else a training makes way for the night and goes on after it.
    carry_on: start with the weights of the last training that finished, if there is one.
    workers, threads, device: see ``TrainOptions``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    config: str
    base: str
    out: str
    workers: Annotated[int, Field(ge=1, le=1024)] = 1
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    device: Device = "auto"
    minutes: Annotated[float, Field(gt=0)] | None = None
    beside: bool = False
    carry_on: bool = False


class NightlyOptions(BaseModel):
    """The settings of one schedule.

    schedule: its name. recipe, library: files the worker can read. dataset: the dataset every night adds to.
    cron, timezone: when nights begin, as Prefect reads them. start: local time from which on nights count.
    mode, per_night: see ``ctmr_core.cases.nights``. catch_up: which missed nights are made up for.
    grace_minutes: a night that begins later than this after its time was missed.
    attempts: times a night is begun before it is given up. retry_minutes: pause after an attempt that failed.
    tolerance: share of failed and quarantined cases above which a night has failed.
    keep: newest night snapshots to keep; None keeps all.
    simulate: every firing is a night of its own, one day after the one before.
    webhook: name of the Prefect secret that holds the URL; None takes CTMR_NIGHT_WEBHOOK of the worker. notify: when to call it.
    pauses: times in which no night was due.
    then_train: what is trained on the snapshot of a finished night; None trains nothing.
    The rest: see ``GenerateOptions``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schedule: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
    recipe: str
    dataset: str
    cron: str
    timezone: str
    start: dt.datetime
    mode: NightMode = "grow"
    per_night: Annotated[int, Field(ge=1)] | None = None
    catch_up: CatchUp = "all"
    grace_minutes: Annotated[float, Field(gt=0)] = 60.0
    attempts: Annotated[int, Field(ge=1, le=100)] = 3
    retry_minutes: Annotated[float, Field(ge=0)] = 10.0
    tolerance: Annotated[float, Field(ge=0, le=1)] = 0.1
    keep: Annotated[int, Field(ge=1)] | None = None
    simulate: bool = False
    webhook: str | None = None
    notify: Notify = "failure"
    pauses: tuple[Pause, ...] = ()
    then_train: ThenTrain | None = None
    library: str | None = None
    address: str | None = None
    workers: Annotated[int, Field(ge=1)] | None = None
    threads: Annotated[int, Field(ge=1)] = 1
    gpus_per_worker: Annotated[float, Field(ge=0)] = 0.0
    case_timeout: Annotated[float, Field(gt=0)] = 3600.0

    @field_validator("timezone")
    @classmethod
    def _timezone_exists(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (KeyError, ValueError, OSError):
            raise ValueError(f"unknown time zone {name!r}; allowed: a name such as Europe/Berlin or UTC") from None
        return name

    @field_validator("start")
    @classmethod
    def _start_is_local(cls, start: dt.datetime) -> dt.datetime:
        if start.tzinfo is not None:
            raise ValueError("the start is a local time; allowed: no offset")
        return start
