"""What `ctmr schedule` prints: schedules, their nights, their trainings and the runs of both."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from pipelines.cli.console import console, print_json

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

    from pipelines.flows.schedules import Schedule


def print_schedule(schedule: Schedule, runs: Sequence[FlowRun], training_runs: Sequence[FlowRun]) -> None:
    """One schedule: its nights, its trainings, and the last runs of both."""
    options = schedule.options
    console.print(Text(f"{schedule.name}: {options.recipe} -> {options.dataset}"), soft_wrap=True)
    console.print(Text(f"{options.cron} {options.timezone}, next: {next_night(schedule)}", "dim"), soft_wrap=True)
    nights = Table("night", "state", "cases", "accepted", "attempts", "snapshot", box=None, pad_edge=False)
    for record in schedule.records().values():
        accepted = str(record.counts.get("accepted", ""))
        state = _state(record.state)
        nights.add_row(str(record.night), state, str(record.cases), accepted, str(record.attempts), record.snapshot or "")
        if record.problem:
            nights.add_row("", Text(record.problem, "yellow"))
    console.print(nights)
    _print_runs(runs)
    if options.then_train is None:
        return
    console.print(Text(f"then trained: {options.then_train.config} -> {options.then_train.out}"), soft_wrap=True)
    table = Table("snapshot", "state", "step", "mean Dice", "attempts", "folder", box=None, pad_edge=False)
    for training in schedule.trainings().values():
        score = f"{training.score:.3f}" if training.score is not None else ""
        state = _state(training.state)
        table.add_row(training.snapshot, state, str(training.step), score, str(training.attempts), Text(training.folder))
        if training.problem:
            table.add_row("", Text(training.problem, "yellow"))
    console.print(table)
    _print_runs(training_runs)


def _state(state: str) -> Text:
    return Text(state, "green" if state == "finished" else "yellow")


def _print_runs(runs: Sequence[FlowRun]) -> None:
    table = Table("run", "due", "state", "message", box=None, pad_edge=False)
    for run in runs:
        message = (run.state.message or "").splitlines()[:1] if run.state else []
        table.add_row(run.name, local_time(run.expected_start_time), run.state_name or "", "".join(message))
    console.print(table)


def all_as_json(schedule: Schedule, runs: Sequence[FlowRun], training_runs: Sequence[FlowRun]) -> dict[str, Any]:
    """All that :func:`print_schedule` prints, and more."""
    return {
        **schedule_as_json(schedule),
        "nights": [record.model_dump(mode="json") for record in schedule.records().values()],
        "runs": [run_as_json(run) for run in runs],
        "trainings": [record.model_dump(mode="json") for record in schedule.trainings().values()],
        "training_runs": [run_as_json(run) for run in training_runs],
    }


def next_night(schedule: Schedule) -> str:
    """When its next night begins, in its time zone."""
    if schedule.paused:
        return "paused"
    return local_time(schedule.next_run, schedule.options.timezone) if schedule.next_run else "not planned yet"


def local_time(instant: dt.datetime | None, timezone: str | None = None) -> str:
    """The instant in the time zone, or in that of this machine."""
    from zoneinfo import ZoneInfo

    if instant is None:
        return ""
    return f"{instant.astimezone(ZoneInfo(timezone) if timezone else None):%Y-%m-%d %H:%M:%S %Z}"


def schedule_as_json(schedule: Schedule) -> dict[str, Any]:
    """A schedule for scripts."""
    next_run = schedule.next_run.isoformat() if schedule.next_run else None
    return {
        "name": schedule.name,
        "id": str(schedule.id),
        "paused": schedule.paused,
        "next_run": next_run,
        "options": schedule.options.model_dump(mode="json"),
    }


def run_as_json(run: FlowRun) -> dict[str, Any]:
    """A flow run for scripts."""
    return {
        "id": str(run.id),
        "name": run.name,
        "due": run.expected_start_time,
        "begun": run.start_time,
        "ended": run.end_time,
        "state": run.state_name,
        "message": run.state.message if run.state else None,
        "night": run.parameters.get("night"),
        "snapshot": run.parameters.get("snapshot"),
    }


def tell(schedule: Schedule, what: str, as_json: bool) -> None:
    """Say what was done to the schedule."""
    if as_json:
        print_json({**schedule_as_json(schedule), "done": what})
    else:
        console.print(Text(f"{schedule.name}: {what}"), soft_wrap=True)
