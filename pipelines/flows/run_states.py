"""What the state of a flow run says about it, and the end of one whose process is gone."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from pipelines.flows.environment import prepare_prefect
from pipelines.flows.nightly_records import RunningProcess
from pipelines.flows.schedules import WORKING

prepare_prefect()

from prefect.client.orchestration import SyncPrefectClient  # noqa: E402 - the settings above must be made before Prefect is imported
from prefect.client.schemas.objects import FlowRun, StateType  # noqa: E402
from prefect.states import Crashed  # noqa: E402

MOST_CRASHES = 5  # of late, after which what never begins waits for the next firing
PENDING_SECONDS = 300.0  # Prefect's own patience with a process that does not start


def is_dead(run: FlowRun, process: RunningProcess | None, now: dt.datetime) -> bool:
    """Whether a run at work can't be alive. process: the last one that said it works on this."""
    if run.state_type not in WORKING or run.state is None:
        return False
    if process is not None and process.flow_run == str(run.id):
        return process.gone
    return run.state_type == StateType.PENDING and (now - run.state.timestamp).total_seconds() > PENDING_SECONDS


def crash(client: SyncPrefectClient, run: FlowRun) -> None:
    """Mark the run as crashed, which frees its schedule."""
    client.set_flow_run_state(run.id, Crashed(message="Its process is gone."), force=True)


def is_waiting_or_working(run: FlowRun) -> bool:
    """Whether it is late, about to start, or at work; of runs that are due by now."""
    return run.state_type in (*WORKING, StateType.SCHEDULED)


def was_cancelled_by_hand(runs: Sequence[FlowRun]) -> bool:
    """Whether the last run that had begun was cancelled: whoever did that does not want it back before the next firing."""
    begun = [run for run in runs if run.start_time is not None and run.end_time is not None]
    last = max(begun, key=lambda run: run.end_time or run.start_time, default=None)  # type: ignore[arg-type, return-value]
    return last is not None and last.state_type == StateType.CANCELLED


def crashed_of_late(runs: Sequence[FlowRun]) -> int:
    """How many of them crashed, ``MOST_CRASHES`` at most."""
    return min(sum(run.state_type == StateType.CRASHED for run in runs), MOST_CRASHES)
