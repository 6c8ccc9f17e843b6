"""Which training is due after the nights of a schedule, and its runs: begun, resumed after a night, made up for after a crash."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping

from ctmr_core.store.snapshots import list_snapshots
from ctmr_core.store.storage import Storage
from pipelines.flows.environment import prepare_prefect
from pipelines.flows.nightly_options import NightlyOptions
from pipelines.flows.nightly_records import NightRecord
from pipelines.flows.run_states import crash, crashed_of_late, is_dead, is_waiting_or_working, was_cancelled_by_hand
from pipelines.flows.schedules import Schedule, Schedules
from pipelines.flows.training_news import TrainingNews, announce_training
from pipelines.flows.training_records import TrainingRecord, TrainingRecords

prepare_prefect()

from prefect.client.schemas.objects import FlowRun, StateType  # noqa: E402 - the settings above must be made first

Say = Callable[[str], None]


def due_training(
    nights: Mapping[dt.date, NightRecord], trainings: Mapping[str, TrainingRecord], snapshots: set[str]
) -> str | None:
    """The snapshot to train on: of a training that was begun, else the newest night's if nothing was trained on it yet.

    snapshots: those the dataset has. What is begun is seen through first; nights that finished meanwhile, but for the newest of
    them, are not trained on.
    """
    begun = sorted(name for name, record in trainings.items() if not record.over and name in snapshots)
    if begun:
        return begun[0]
    made = [
        record.snapshot for _, record in sorted(nights.items()) if record.state == "finished" and record.snapshot in snapshots
    ]
    return made[-1] if made and made[-1] not in trainings else None


class TrainingCaretaker:
    """Looks after the trainings of schedules that have any, on the machine of the worker."""

    def __init__(self, schedules: Schedules, say: Say) -> None:
        self._schedules, self._say = schedules, say

    def look_at(self, schedule: Schedule, storage: Storage, nights: Mapping[dt.date, NightRecord], *, at_night: bool) -> None:
        """Begin the run that is due, if any. at_night: whether a night of the schedule is made or about to be made."""
        settings = schedule.options.then_train
        if settings is None:
            return
        now = dt.datetime.now(dt.UTC)
        records = TrainingRecords(storage, schedule.name)
        runs = self._schedules.training_runs(schedule, limit=20)
        busy = [run for run in runs if not self._crash_if_dead(schedule.options, records, run, now)]
        if (at_night and not settings.beside) or schedule.paused or any(map(is_waiting_or_working, busy)):
            return
        known = records.all()
        snapshot = due_training(nights, known, {one.name for one in list_snapshots(storage)})
        if snapshot is None or was_cancelled_by_hand(runs):
            return
        record = known.get(snapshot)
        pause = dt.timedelta(minutes=schedule.options.retry_minutes)
        if record is not None and record.problem is not None and record.ended is not None and record.ended > now - pause:
            return
        # One run per attempt, so that a training whose process dies before it begins is not begun for ever.
        attempt = f"{record.attempts}/{record.ended}" if record else "0"
        key = f"{schedule.id}/{snapshot}/{attempt}/{crashed_of_late(runs)}"
        run = self._schedules.train_now(schedule.name, snapshot, key=key)
        if run.state_type == StateType.SCHEDULED:
            self._say(f"{schedule.name}: a training on {snapshot}")

    def _crash_if_dead(self, options: NightlyOptions, records: TrainingRecords, run: FlowRun, now: dt.datetime) -> bool:
        if not is_dead(run, records.running(), now):
            return False
        crash(self._schedules.client, run)
        self._say(f"{options.schedule}: training run {run.name} has crashed: its process is gone")
        for record in records.all().values():
            if not record.over and record.flow_run == str(run.id):
                announce_training(options, TrainingNews.CRASHED, record, "its process is gone; the training will be resumed")
        return True
