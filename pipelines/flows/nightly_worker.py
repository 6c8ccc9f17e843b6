"""The worker that makes the nights, and what it looks after: runs whose process died, due nights that nobody makes."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import datetime as dt
import logging
import os
import signal
import threading
from collections.abc import Callable

import httpx
import psutil

from ctmr_core.errors import CtmrError
from ctmr_core.store import Dataset
from pipelines.flows.environment import prepare_prefect
from pipelines.flows.nightly_due import due_nights
from pipelines.flows.nightly_news import News, announce
from pipelines.flows.nightly_records import NightRecord, NightRecords
from pipelines.flows.run_states import crash, crashed_of_late, is_dead, is_waiting_or_working, was_cancelled_by_hand
from pipelines.flows.schedules import HEARTBEAT_SECONDS, POOL, TAG, TRAINING_TAG, Schedule, Schedules, schedules_of
from pipelines.flows.training_care import TrainingCaretaker

prepare_prefect()

from prefect.client.schemas.objects import FlowRun, StateType  # noqa: E402 - the settings above must be made first
from prefect.events import ResourceSpecification  # noqa: E402
from prefect.events.actions import ChangeFlowRunState  # noqa: E402
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture  # noqa: E402
from prefect.settings import PREFECT_API_URL, temporary_settings  # noqa: E402
from prefect.workers.process import ProcessWorker  # noqa: E402

ZOMBIES = {
    TAG: "ctmr: runs without a heartbeat have crashed",
    TRAINING_TAG: "ctmr: trainings without a heartbeat have crashed",
}
MISSED_HEARTBEATS = 4
LOOK_SECONDS = 10.0  # between looks at the schedules
END_SECONDS = 120.0  # for the cases at hand when a worker is stopped
RETURN_SECONDS = 15.0  # before the server is tried again
_AWAY = (httpx.HTTPError, OSError)

log = logging.getLogger(__name__)
Say = Callable[[str], None]


class Caretaker:
    """Looks at the schedules from time to time.

    A run whose process was on this machine and is gone is marked as crashed, which frees its schedule; runs on other machines
    are left to the heartbeat automation on the server. When nights are due and no run of the schedule is under way or about to
    start, a run is made for them: this is how missed, crashed, failed and cancelled nights come back. Trainings after nights are
    begun and looked after in the same way.
    """

    def __init__(self, schedules: Schedules, say: Say) -> None:
        self._schedules, self._say = schedules, say
        self._trainings = TrainingCaretaker(schedules, say)

    def look(self, now: dt.datetime | None = None) -> None:
        """One look at every schedule. now: aware, for what is due."""
        now = now or dt.datetime.now(dt.UTC)
        for schedule in self._schedules.all():
            with contextlib.suppress(FileNotFoundError):
                self._look_at(schedule, now)

    def _look_at(self, schedule: Schedule, now: dt.datetime) -> None:
        storage = Dataset.create(schedule.options.dataset).storage
        records = NightRecords(storage, schedule.name)
        present = self._schedules.runs(schedule, limit=20)
        busy = [run for run in present if not self._crash_if_dead(schedule, records, run, now)]
        at_night = any(map(is_waiting_or_working, busy))
        if not schedule.paused and not at_night and not was_cancelled_by_hand(present):
            at_night = self._begin_if_due(schedule, records.all(), now)
        self._trainings.look_at(schedule, storage, records.all(), at_night=at_night)

    def _begin_if_due(self, schedule: Schedule, known: dict[dt.date, NightRecord], now: dt.datetime) -> bool:
        """Make a run for the nights that are due; whether there is one now."""
        due = due_nights(schedule.options, known, now).make
        pause = dt.timedelta(minutes=schedule.options.retry_minutes)
        if not due or _failed_since(known.get(due[0].date), now - pause):
            return False
        first = known.get(due[0].date)
        crashed = crashed_of_late(self._schedules.runs(schedule, limit=20))
        # One run per attempt, so that a night whose process dies before it begins is not begun for ever.
        key = f"{schedule.id}/{due[0]}/{first.attempts if first else 0}/{first.ended if first else None}/{crashed}"
        run = self._schedules.run_now(schedule.name, key=key)
        if run.state_type != StateType.SCHEDULED:
            return False
        self._say(f"{schedule.name}: a run for {', '.join(str(night) for night in due)}")
        return True

    def _crash_if_dead(self, schedule: Schedule, records: NightRecords, run: FlowRun, now: dt.datetime) -> bool:
        """Mark the run as crashed if it can't be alive; whether it was."""
        if not is_dead(run, records.running(), now):
            return False
        crash(self._schedules.client, run)
        self._say(f"{schedule.name}: run {run.name} has crashed: its process is gone")
        for record in records.all().values():
            if not record.over and record.flow_run == str(run.id):
                announce(schedule.options, News.CRASHED, record.night, "its process is gone; the night will be finished", record)
        return True


def _failed_since(record: NightRecord | None, instant: dt.datetime) -> bool:
    return record is not None and record.problem is not None and record.ended is not None and record.ended > instant


def ensure_zombie_automations(schedules: Schedules) -> None:
    """On the server: runs of nights and trainings that have stopped sending heartbeats are marked as crashed."""
    for tag, name in ZOMBIES.items():
        if not schedules.client.read_automations_by_name(name):
            schedules.client.create_automation(_zombie_automation(name, tag))


def _zombie_automation(name: str, tag: str) -> AutomationCore:
    ends = ("Completed", "Failed", "Crashed", "Cancelled")
    return AutomationCore(
        name=name,
        trigger=EventTrigger(
            after={"prefect.flow-run.heartbeat"},
            expect={"prefect.flow-run.heartbeat", *(f"prefect.flow-run.{end}" for end in ends)},
            match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
            match_related=ResourceSpecification({"prefect.resource.id": f"prefect.tag.{tag}", "prefect.resource.role": "tag"}),
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=dt.timedelta(seconds=MISSED_HEARTBEATS * HEARTBEAT_SECONDS),
        ),
        actions=[ChangeFlowRunState(name=None, state=StateType.CRASHED, message="No heartbeat any more.", force=False)],
    )


def run_worker(server: str, say: Say, look_seconds: float = LOOK_SECONDS) -> None:
    """Make nights until stopped (Ctrl-C or SIGTERM). A server that goes away is waited for."""
    os.environ["PREFECT_API_URL"] = server  # for the processes of the runs
    stopping = threading.Event()
    with temporary_settings({PREFECT_API_URL: server}):
        arguments = (_take_care, server, say, look_seconds, stopping)
        caretaker = threading.Thread(target=contextvars.copy_context().run, args=arguments, name="caretaker", daemon=True)
        caretaker.start()
        try:
            asyncio.run(_work(server, say, stopping))
        finally:
            stopping.set()
            caretaker.join(timeout=30)
    say("stopped")


async def _work(server: str, say: Say, stopping: threading.Event) -> None:
    """One worker after the other: a worker ends when it loses the server for minutes."""
    stop = asyncio.Event()

    def ask() -> None:
        say("stopping: a night under way is stopped, too, and is finished by the next worker")
        stopping.set()
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ask)
    while not stop.is_set():
        working = asyncio.create_task(_one_worker(server, say))
        asked = asyncio.create_task(stop.wait())
        await asyncio.wait((working, asked), return_when=asyncio.FIRST_COMPLETED)
        await asyncio.to_thread(_end_runs)
        working.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await working
        if not stop.is_set():
            say(f"no connection to {server}; trying again in {RETURN_SECONDS:.0f} s")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), RETURN_SECONDS)
        asked.cancel()


def _end_runs() -> None:
    """Ask the runs of this worker for a clean end and wait for it: what is at hand is committed, and the lock is given back.

    Prefect would kill them with the worker.
    """
    runs = [child for child in psutil.Process().children() if "prefect.engine" in _command_line(child)]
    for run in runs:
        with contextlib.suppress(psutil.NoSuchProcess):
            run.terminate()
    psutil.wait_procs(runs, timeout=END_SECONDS)


def _command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


async def _one_worker(server: str, say: Say) -> None:
    try:
        await asyncio.to_thread(_prepare_server, server)
        await ProcessWorker(work_pool_name=POOL).start(printer=say)
    except (CtmrError, RuntimeError, *_AWAY) as error:  # Prefect's loops give up with a RuntimeError
        log.warning("the worker has stopped: %s", error)


def _prepare_server(server: str) -> None:
    with schedules_of(server) as schedules:
        schedules.ensure_pool()
        ensure_zombie_automations(schedules)


def _take_care(server: str, say: Say, look_seconds: float, stopping: threading.Event) -> None:
    while not stopping.wait(look_seconds):
        try:
            with schedules_of(server) as schedules:
                Caretaker(schedules, say).look()
        except (CtmrError, *_AWAY) as error:
            log.warning("the schedules could not be looked at: %s", error)
