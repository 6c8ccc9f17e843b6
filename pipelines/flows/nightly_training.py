"""The flow ``nightly-training``: after a night, what the schedule trains is trained on the night's snapshot.

A snapshot is trained on once. While a night of the schedule is made the training rests, unless it may go on beside it; the
worker begins another run after the night, and that resumes. So nights are never late, and no training is lost.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx

from ctmr_core.errors import CtmrError
from ctmr_core.store import Dataset
from pipelines.flows.environment import prepare_prefect
from pipelines.flows.nightly_options import NightlyOptions, ThenTrain
from pipelines.flows.schedules import WORKING, schedules_of
from pipelines.flows.train_options import TrainOptions, TrainOutcome
from pipelines.flows.train_segmentation import stopped_by, train_segmentation
from pipelines.flows.training_news import TrainingNews, announce_training
from pipelines.flows.training_records import TrainingRecord, TrainingRecords

prepare_prefect()

from prefect import flow  # noqa: E402 - the settings above must be made before Prefect is imported
from prefect.runtime import flow_run  # noqa: E402
from prefect.settings import PREFECT_API_URL  # noqa: E402

LOG = logging.getLogger(__name__)
LOOK_SECONDS = 10.0  # between looks for a night


class TrainingInterruptedError(CtmrError):
    """A training that was asked to stop."""


@flow(name="nightly-training", flow_run_name="{options[schedule]} {snapshot}", validate_parameters=False, persist_result=False)
def nightly_training(options: dict[str, Any], snapshot: str, again: bool = False) -> dict[str, Any]:
    """Train on ``snapshot``, or go on with it; its record. again: whatever became of it before, in the same folder."""
    settings = NightlyOptions.model_validate(options)
    train = settings.then_train
    if train is None:
        raise CtmrError("the schedule has no training", found=settings.schedule)
    run_id = str(flow_run.get_id() or "")
    records = TrainingRecords(Dataset.open(settings.dataset).storage, settings.schedule)
    records.claim(run_id)
    record = _begin(settings, train, records, snapshot, run_id, again)
    if record.over:
        return record.model_dump(mode="json")
    try:
        with _night_watch(settings, train) as at_night, stopped_by(at_night):
            outcome: TrainOutcome = train_segmentation(options_for(settings, train, snapshot, record.weights))
            rests = at_night()
    except Exception as error:  # whatever it was, people must be told before it goes on its way
        problem = error.what if isinstance(error, CtmrError) else f"{type(error).__name__}: {error}"
        failed = record.model_copy(update={"problem": problem, "ended": _now()})
        with contextlib.suppress(CtmrError, OSError):  # the dataset may be what failed
            failed = records.write(failed)
        announce_training(settings, TrainingNews.FAILED, failed, str(error))
        raise
    return _ended(settings, records, record, outcome, rests=rests).model_dump(mode="json")


def _begin(
    settings: NightlyOptions, train: ThenTrain, records: TrainingRecords, snapshot: str, run_id: str, again: bool
) -> TrainingRecord:
    folder = options_for(settings, train, snapshot).folder
    record = records.get(snapshot)
    if record is None:
        weights = records.last_weights(besides=snapshot) if train.carry_on else None
        record = TrainingRecord(snapshot=snapshot, state="begun", folder=folder, weights=weights, begun=_now())
    if record.over and not again:
        return record
    if record.attempts >= settings.attempts and not again:
        problem = f"{record.attempts} attempts, the last: {record.problem}"
        given_up = records.write(record.model_copy(update={"state": "given up", "ended": _now()}))
        announce_training(settings, TrainingNews.GIVEN_UP, given_up, problem)
        return given_up
    attempts = 1 if again and record.over else record.attempts + 1
    changes = {"state": "begun", "attempts": attempts, "flow_run": run_id, "problem": None, "ended": None}
    return records.write(record.model_copy(update=changes))


def _ended(
    settings: NightlyOptions, records: TrainingRecords, record: TrainingRecord, outcome: TrainOutcome, *, rests: bool
) -> TrainingRecord:
    known = {"step": outcome.step, "score": outcome.score, "trained": outcome.best or outcome.last, "ended": _now()}
    if outcome.complete:
        finished = records.write(record.model_copy(update={**known, "state": "finished"}))
        announce_training(settings, TrainingNews.FINISHED, finished)
        return finished
    # A rest does not count as an attempt.
    resting = records.write(record.model_copy(update={**known, "attempts": record.attempts - 1}))
    if not rests:
        raise TrainingInterruptedError("the training was asked to stop", fix="nothing is lost: the next run goes on with it")
    return resting


def options_for(settings: NightlyOptions, train: ThenTrain, snapshot: str, weights: str | None = None) -> TrainOptions:
    """The training on a snapshot of the schedule. weights: file to start from."""
    return TrainOptions(
        config=train.config,
        base=train.base,
        folder=str(Path(train.out) / snapshot),
        dataset=settings.dataset,
        snapshot=snapshot,
        weights=weights,
        workers=train.workers,
        address=settings.address,
        threads=train.threads,
        device=train.device,
        minutes=train.minutes,
    )


@contextlib.contextmanager
def _night_watch(settings: NightlyOptions, train: ThenTrain) -> Iterator[Callable[[], bool]]:
    """A question that costs nothing, whether a night of the schedule is made now: a thread looks from time to time."""
    night, over = threading.Event(), threading.Event()
    server = PREFECT_API_URL.value()

    def look() -> None:
        while not over.is_set():
            try:
                with schedules_of(str(server)) as schedules:
                    runs = schedules.runs(schedules.get(settings.schedule), limit=20)
                if any(run.state_type in WORKING for run in runs):
                    night.set()
                    return
            except (CtmrError, httpx.HTTPError) as error:
                LOG.warning("nights could not be looked for: %s", error)
            over.wait(LOOK_SECONDS)

    if server and not train.beside:
        threading.Thread(target=look, name="night-watch", daemon=True).start()
    try:
        yield night.is_set
    finally:
        over.set()


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
