"""The flow ``train_segmentation``: configuration -> run folder with checkpoints, scores and logs.

The training runs in this process, or on several workers with Ray Train. Prefect watches it where a server is configured; none
is started for it.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from ctmr_core.errors import CtmrError, LearningError
from ctmr_core.learning.segmentation.trainer import TrainingSummary
from ctmr_core.learning.training.loop import LAST, Report
from pipelines.factory.logs import LogFormat, configure_logging, log_format, log_level
from pipelines.factory.training import Team, cluster_for, run_ranks
from pipelines.flows.environment import prepare_prefect
from pipelines.flows.interrupts import stop_on_signals
from pipelines.flows.tracking import Tracking, unreachable
from pipelines.flows.train_events import emit_training_event
from pipelines.flows.train_options import TrainOptions, TrainOutcome
from pipelines.flows.train_outcome import markdown_of, outcome_of
from pipelines.flows.train_work import SegmentationJob, base_of, configured

prepare_prefect()

from prefect import flow  # noqa: E402 - the settings above must be made before Prefect is imported
from prefect.artifacts import create_markdown_artifact  # noqa: E402
from prefect.settings import PREFECT_API_URL  # noqa: E402

from pipelines.flows.progress_artifact import ProgressArtifact  # noqa: E402

LOG = logging.getLogger(__name__)
NO_SERVER = "no Prefect server is configured"

Observer = Callable[[Report], None]
Stopping = Callable[[], bool]
#: Who watches and who may stop the training of this process; a flow's parameters must be plain data, so they can't be any.
_observers: list[Observer] = []
_stoppers: list[Stopping] = []
#: How far this process's training has come: begun, and with its outcome when it is done. Prefect may fail before and after.
_begun: list[Tracking] = []
_ended: list[TrainOutcome] = []


def run_train_segmentation(
    options: TrainOptions, observer: Observer | None = None, stopping: Stopping | None = None
) -> TrainOutcome:
    """Train here and now, as a flow run if Prefect has a server.

    observer: told of every report of the training. stopping: asked several times a second whether to stop.
    """
    _begun.clear()
    _ended.clear()
    with watched_by(observer), stopped_by(stopping):
        if not PREFECT_API_URL.value():
            return _train(options, _untracked())
        try:
            outcome: TrainOutcome = train_segmentation(options)
        except Exception as error:
            if _ended:  # the work is done, Prefect could not be told
                _begun[0].give_up(error)
                return _ended[0].model_copy(update={"tracking_lost": _begun[0].lost})
            if _begun or isinstance(error, CtmrError):
                raise
            raise unreachable(error) from error
        return outcome


@contextlib.contextmanager
def watched_by(observer: Observer | None) -> Iterator[None]:
    """Trainings of this process tell ``observer`` every report, in the thread that trains or waits."""
    with _registered(_observers, observer):
        yield


@contextlib.contextmanager
def stopped_by(stopping: Stopping | None) -> Iterator[None]:
    """Trainings of this process ask ``stopping`` after every step, or some times a second, and stop when it says yes."""
    with _registered(_stoppers, stopping):
        yield


@contextlib.contextmanager
def _registered(registry: list[Any], one: Any) -> Iterator[None]:
    registry.extend([] if one is None else [one])
    try:
        yield
    finally:
        if one is not None:
            registry.remove(one)


@flow(name="train-segmentation", flow_run_name="{options.folder}", validate_parameters=False, persist_result=False)
def train_segmentation(options: TrainOptions) -> TrainOutcome:
    """Train what the configuration says, or go on with it; stopped and resumed at any step."""
    if isinstance(options, dict):
        options = TrainOptions.model_validate(options)
    tracking = Tracking()
    _begun.append(tracking)
    outcome = _train(options, tracking)
    _ended.append(outcome)
    return outcome


def _train(options: TrainOptions, tracking: Tracking) -> TrainOutcome:
    begin = time.monotonic()
    style = log_format(options.log_format)
    # Text is for people, who have the live picture: they are told what went wrong, machines are told everything.
    configure_logging(style, {"folder": options.folder}, level=log_level("INFO" if style is LogFormat.JSON else "WARNING"))
    folder = Path(options.folder).expanduser().absolute()
    _refuse_training_in(folder, options)
    config, snapshots = tracking.step("read-configuration", lambda: configured(options))
    job = SegmentationJob(config, folder, base_of(options))
    tell = None if tracking.lost else emit_training_event
    told = {"config": options.config, "folder": str(folder), "snapshots": snapshots, "workers": options.workers}
    if tell:
        tell("ctmr.training.started", folder, told)
    try:
        summary = tracking.step("train", lambda: _run(job, options, tracking))
    except CtmrError as error:
        if tell:
            tell("ctmr.training.failed", folder, {**told, "problem": error.what})
        raise
    outcome = outcome_of(options, config, snapshots, summary, time.monotonic() - begin)
    page = markdown_of(outcome, summary.table)
    tracking.tell(lambda: create_markdown_artifact(page, key="training", description=str(folder)))
    if tell:
        tell(
            "ctmr.training.finished" if outcome.complete else "ctmr.training.stopped",
            folder,
            outcome.model_dump(exclude={"table"}),
        )
    LOG.info("training ended: %s", outcome.model_dump_json(include={"reason", "step", "score", "seconds"}))
    return outcome.model_copy(update={"tracking_lost": "" if tracking.lost == NO_SERVER else tracking.lost})


def _untracked() -> Tracking:
    tracking = Tracking()
    tracking.lost = NO_SERVER
    return tracking


def _refuse_training_in(folder: Path, options: TrainOptions) -> None:
    if not options.resume and (folder / LAST).is_file():
        raise LearningError(
            "there is a training in this folder", where=str(folder), fix="resume it, or train into another folder"
        )


def _run(job: SegmentationJob, options: TrainOptions, tracking: Tracking) -> TrainingSummary:
    """Train here or on Ray; what rank 0 says at the end."""
    artifact = ProgressArtifact(tracking, "steps of the training")
    watching: list[Observer] = list(_observers)

    def observe(report: Report) -> None:
        artifact.show(report.step, report.steps)
        for observer in watching:
            observer(report)

    if not options.on_ray:
        if options.threads is not None:
            torch.set_num_threads(options.threads)
        with stop_on_signals() as asked:
            return job(observe, lambda: asked() or any(stopping() for stopping in _stoppers))
    team = Team(
        workers=options.workers,
        threads=options.threads,
        device=job.config.training.device,
        address=options.address,
        max_failures=options.max_failures,
        log_format=log_format(options.log_format),
    )
    # Ray puts its own SIGTERM handler in place when it starts, so ours come after it.
    with cluster_for(team) as team, stop_on_signals() as asked:
        placed = job.on("cuda" if team.gpu else "cpu")
        summary: TrainingSummary = run_ranks(
            placed, job.folder, team, observe, lambda: asked() or any(stopping() for stopping in _stoppers)
        )
        return summary
