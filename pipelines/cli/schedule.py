"""``ctmr schedule``: nightly deployments on a Prefect server."""

from __future__ import annotations

import datetime as dt
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from ctmr_core.errors import CtmrError
from pipelines.cli.console import console, print_json, report_errors
from pipelines.cli.options import JsonOption
from pipelines.cli.schedule_views import all_as_json, next_night, print_schedule, run_as_json, schedule_as_json, tell
from pipelines.flows.nightly_options import NightlyOptions

schedule_app = typer.Typer(
    help="Every night new cases, on a Prefect server: schedules, the worker that makes them, and the server itself.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

Server = Annotated[
    str,
    typer.Option("--server", envvar="PREFECT_API_URL", help="The API of the Prefect server."),
]
DEFAULT_SERVER = "http://127.0.0.1:4200/api"
Name = Annotated[str, typer.Argument(metavar="NAME", help="The schedule.")]


@schedule_app.command()
@report_errors
def create(
    recipe: Annotated[Path, typer.Argument(help="Recipe in YAML, read anew every night.", show_default=False)],
    dataset: Annotated[str, typer.Option("--dataset", "-d", help="The dataset that grows.", show_default=False)],
    cron: Annotated[str, typer.Option(help="When nights begin: minute hour day month weekday.")] = "0 2 * * *",
    timezone: Annotated[str, typer.Option(help="Time zone of the cron rule, e.g. Europe/Berlin.")] = "UTC",
    name: Annotated[str | None, typer.Option(help="Name of the schedule; default: the recipe's.")] = None,
    mode: Annotated[str, typer.Option(help="`grow`: new cases every night. `slice`: the next part of one plan.")] = "grow",
    per_night: Annotated[int | None, typer.Option(min=1, help="Cases a night; default: all of the recipe.")] = None,
    catch_up: Annotated[str, typer.Option(help="Missed nights to make up for: `none`, `last` or `all`.")] = "all",
    since: Annotated[str | None, typer.Option(help="Nights count from this date on, not from now.")] = None,
    grace: Annotated[float, typer.Option(min=0.01, help="Minutes after which a night that has not begun was missed.")] = 60.0,
    attempts: Annotated[int, typer.Option(min=1, help="Times a night is begun before it is given up.")] = 3,
    retry: Annotated[float, typer.Option(min=0, help="Minutes of rest after an attempt that failed.")] = 10.0,
    tolerance: Annotated[float, typer.Option(min=0, max=1, help="Share of failed cases above which a night failed.")] = 0.1,
    keep: Annotated[int | None, typer.Option(min=1, help="Night snapshots to keep; default all.")] = None,
    webhook: Annotated[
        str | None, typer.Option(help="URL for news, kept as a secret on the server; or CTMR_NIGHT_WEBHOOK of the worker.")
    ] = None,
    notify: Annotated[str, typer.Option(help="News to send: `failure`, `always` or `never`.")] = "failure",
    library: Annotated[
        Path, typer.Option("--library", envvar="CTMR_TEMPLATES", help="The template library, for cases with a template.")
    ] = Path("templates"),
    address: Annotated[str | None, typer.Option(envvar="CTMR_RAY_ADDRESS", help="Address of a Ray cluster, or `auto`.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Actors; default one per core.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads per actor.")] = 1,
    gpus_per_worker: Annotated[float, typer.Option(min=0, help="Share of a GPU per actor.")] = 0.0,
    case_timeout: Annotated[float, typer.Option(min=1, help="Seconds after which a case counts as hanging.")] = 3600.0,
    then_train: Annotated[
        Path | None, typer.Option(help="Train this configuration on every night's snapshot.", exists=True, dir_okay=False)
    ] = None,
    train_out: Annotated[
        Path | None, typer.Option(help="Folder of the run folders; default: beside the dataset, `<dataset>-training`.")
    ] = None,
    train_workers: Annotated[int, typer.Option(min=1, help="Processes that train together.")] = 1,
    train_threads: Annotated[int | None, typer.Option(min=1, help="CPU threads of each.")] = None,
    train_device: Annotated[str, typer.Option(help="`auto`, `cpu` or `cuda`.")] = "auto",
    train_minutes: Annotated[float | None, typer.Option(min=0.01, help="End a training after so many minutes of it.")] = None,
    train_beside: Annotated[
        bool, typer.Option("--train-beside", help="Go on training while a night is made; else it makes way.")
    ] = False,
    train_carry_on: Annotated[
        bool, typer.Option("--train-carry-on", help="Start with the weights of the last training that finished.")
    ] = False,
    simulate: Annotated[bool, typer.Option("--simulate", help="Every firing counts as one more night, for trials.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Change the schedule of this name.")] = False,
    server: Server = DEFAULT_SERVER,
    as_json: JsonOption = False,
) -> None:
    """Make a schedule: every night cases of RECIPE are added to DATASET and a snapshot `night-<date>` is left.

    With --then-train a network is trained on every night's snapshot afterwards.

    Example: `ctmr schedule create manifests/nightly.yaml --dataset runs/nightly --cron "0 2 * * *" --timezone Europe/Berlin`
    """
    _check_rule(cron)
    options = _options(
        {
            "schedule": name or _recipe_name(recipe),
            "recipe": str(recipe.resolve()),
            "dataset": dataset if "://" in dataset else str(Path(dataset).resolve()),
            "cron": cron,
            "timezone": timezone,
            "start": _start(since, timezone),
            "mode": mode,
            "per_night": per_night,
            "catch_up": catch_up,
            "grace_minutes": grace,
            "attempts": attempts,
            "retry_minutes": retry,
            "tolerance": tolerance,
            "keep": keep,
            "simulate": simulate,
            "notify": notify,
            "library": str(library.resolve()) if library.is_dir() else None,
            "address": address,
            "workers": workers,
            "threads": threads,
            "gpus_per_worker": gpus_per_worker,
            "case_timeout": case_timeout,
            "then_train": then_train
            and {
                "config": str(then_train.resolve()),
                "base": str(Path.cwd()),
                "out": _train_out(train_out, dataset),
                "workers": train_workers,
                "threads": train_threads,
                "device": train_device,
                "minutes": train_minutes,
                "beside": train_beside,
                "carry_on": train_carry_on,
            },
        }
    )
    cases = _try_plan(options)
    _try_training(options)
    if webhook is not None:
        from pipelines.flows.nightly_webhook import check_url

        check_url(webhook)
    with _schedules(server) as schedules:
        made = schedules.create(options, webhook, replace=replace)
    if as_json:
        print_json(schedule_as_json(made))
        return
    console.print(Text(f"{made.name}: {cases} cases a night, {cron} {timezone}"), soft_wrap=True)
    console.print(Text("Nights are made while a worker runs: ctmr schedule worker", "dim"), soft_wrap=True)


@schedule_app.command("list")
@report_errors
def list_(server: Server = DEFAULT_SERVER, as_json: JsonOption = False) -> None:
    """List the schedules of the server.

    Example: `ctmr schedule list --json`
    """
    with _schedules(server) as schedules:
        found = schedules.all()
    if as_json:
        print_json([schedule_as_json(schedule) for schedule in found])
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("name", "rule", "next night", "nights", "dataset"):
        table.add_column(heading, header_style="dim", overflow="fold")
    for schedule in found:
        options = schedule.options
        finished = sum(record.state == "finished" for record in schedule.records().values())
        table.add_row(schedule.name, f"{options.cron} {options.timezone}", next_night(schedule), str(finished), options.dataset)
    console.print(table if found else "no schedules")


@schedule_app.command()
@report_errors
def show(name: Name, server: Server = DEFAULT_SERVER, as_json: JsonOption = False) -> None:
    """Show one schedule: its nights and its last runs.

    Example: `ctmr schedule show nightly`
    """
    with _schedules(server) as schedules:
        schedule = schedules.get(name)
        runs, training_runs = schedules.runs(schedule, limit=20), schedules.training_runs(schedule, limit=20)
    if as_json:
        print_json(all_as_json(schedule, runs, training_runs))
    else:
        print_schedule(schedule, runs, training_runs)


@schedule_app.command()
@report_errors
def pause(name: Name, server: Server = DEFAULT_SERVER, as_json: JsonOption = False) -> None:
    """Pause a schedule. A run under way goes on; nights of the pause are not made up for.

    Example: `ctmr schedule pause nightly`
    """
    with _schedules(server) as schedules:
        tell(schedules.pause(name), "paused", as_json)


@schedule_app.command()
@report_errors
def resume(
    name: Name,
    make_up: Annotated[bool, typer.Option("--make-up", help="Make the nights of the pause, too.")] = False,
    server: Server = DEFAULT_SERVER,
    as_json: JsonOption = False,
) -> None:
    """Resume a paused schedule.

    Example: `ctmr schedule resume nightly --make-up`
    """
    with _schedules(server) as schedules:
        tell(schedules.resume(name, make_up=make_up), "resumed", as_json)


@schedule_app.command("run-now")
@report_errors
def run_now(
    name: Name,
    night: Annotated[str | None, typer.Option(help="This night (YYYY-MM-DD), whatever became of it before.")] = None,
    train: Annotated[
        str | None, typer.Option(metavar="SNAPSHOT", help="The training on this snapshot, whatever became of it before.")
    ] = None,
    server: Server = DEFAULT_SERVER,
    as_json: JsonOption = False,
) -> None:
    """Make a run now: of the nights that are due, of one night again, or of a training. A worker must be running.

    Example: `ctmr schedule run-now nightly --night 2026-11-22`
    """
    with _schedules(server) as schedules:
        if train is not None:
            run = schedules.train_now(name, train, again=True)
        else:
            run = schedules.run_now(name, None if night is None else _date(night))
    if as_json:
        print_json(run_as_json(run))
    else:
        console.print(Text(f"run {run.name} ({run.id})"), soft_wrap=True)


@schedule_app.command()
@report_errors
def delete(name: Name, server: Server = DEFAULT_SERVER, as_json: JsonOption = False) -> None:
    """Delete a schedule and its secret. The dataset and its snapshots stay.

    Example: `ctmr schedule delete nightly`
    """
    with _schedules(server) as schedules:
        tell(schedules.delete(name), "deleted", as_json)


@schedule_app.command()
@report_errors
def worker(server: Server = DEFAULT_SERVER) -> None:
    """Make the nights of all schedules on this machine, until stopped. One is enough; more do no harm.

    Example: `ctmr schedule worker`
    """
    os.environ["PREFECT_API_URL"] = server
    from pipelines.flows.nightly_worker import run_worker

    run_worker(server, _say)


@schedule_app.command("server")
@report_errors
def start_server(
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port.")] = 4200,
    host: Annotated[str, typer.Option(help="The address to listen on; the API has no password of its own.")] = "127.0.0.1",
    home: Annotated[Path | None, typer.Option(help="Folder for its database; default: Prefect's own.")] = None,
) -> None:
    """Start a Prefect server here: on this machine only, without telemetry.

    Example: `ctmr schedule server --port 4200 --home ~/prefect`
    """
    from pipelines.flows.nightly_server import server_environment

    environment = server_environment(home)
    arguments = [sys.executable, "-m", "prefect", "server", "start", "--host", host, "--port", str(port)]
    os.execve(sys.executable, arguments, {**os.environ, **environment})  # noqa: S606 - the server takes this process's place


def _schedules(server: str) -> Any:
    from pipelines.flows.schedules import schedules_of  # Prefect takes a second to import

    return schedules_of(server)


def _say(line: str = "", **_: Any) -> None:
    now = dt.datetime.now().astimezone()
    console.print(Text.assemble((f"{now:%Y-%m-%d %H:%M:%S}  ", "dim"), str(line)), soft_wrap=True)


def _error(what: str, **parts: Any) -> CtmrError:
    from pipelines.flows.schedules import ScheduleError

    return ScheduleError(what, **parts)


def _options(given: dict[str, Any]) -> NightlyOptions:
    from pydantic import ValidationError

    from ctmr_core.cases.problems import problems_of

    try:
        return NightlyOptions.model_validate(given)
    except ValidationError as error:
        problem = problems_of(error, given)[0]
        where = "--" + str(problem.path[0]).replace("_", "-") if problem.path else None
        raise _error(problem.what, where=where, found=problem.found, allowed=problem.allowed, fix=problem.fix) from error


def _check_rule(cron: str) -> None:
    from pydantic import ValidationError

    from pipelines.flows.schedules import CronSchedule

    try:
        CronSchedule(cron=cron)
    except ValidationError as error:
        allowed = "minute hour day month weekday, e.g. 0 2 * * *"
        raise _error("this is not a cron rule", where="--cron", found=cron, allowed=allowed) from error


def _recipe_name(recipe: Path) -> str:
    from ctmr_core.cases.recipe import load_recipe

    return load_recipe(recipe).name


def _try_plan(options: NightlyOptions) -> int:
    """Cases of the first night; a recipe that can't be planned is refused now, and not at two in the morning."""
    from ctmr_core.anatomy.templates.library import TemplateLibrary
    from ctmr_core.cases.nights import plan_night
    from ctmr_core.cases.recipe import load_recipe
    from ctmr_core.engines import engine_identity
    from pipelines.flows.admission import Examiner
    from pipelines.flows.policies import with_policy

    library = TemplateLibrary.open(options.library) if options.library else None
    examine = Examiner(None, needs_library=False).examine
    return plan_night(
        with_policy(load_recipe(options.recipe)),
        options.start.date(),
        0,
        options.mode,
        options.per_night,
        library,
        engine_identity,
        (examine,),
    ).rows


def _train_out(out: Path | None, dataset: str) -> str:
    """The folder of the run folders, absolute."""
    if out is None and "://" in dataset:
        raise _error("run folders are on a disk", where="--train-out", found=dataset, fix="name a folder with --train-out")
    return str((out or Path(f"{dataset.rstrip('/')}-training")).resolve())


def _try_training(options: NightlyOptions) -> None:
    """Refuse a training that could not begin after the first night."""
    if options.then_train is None:
        return
    from pipelines.flows.nightly_training import options_for
    from pipelines.flows.train_work import configured

    configured(options_for(options, options.then_train, "the-night"))


def _start(since: str | None, timezone: str) -> dt.datetime:
    from zoneinfo import ZoneInfo

    if since is not None:
        return dt.datetime.combine(_date(since), dt.time.min)
    try:
        zone = ZoneInfo(timezone)
    except (KeyError, ValueError, OSError):
        zone = ZoneInfo("UTC")  # refused with the other options
    return dt.datetime.now(zone).replace(tzinfo=None, microsecond=0)


def _date(text: str) -> dt.date:
    try:
        return dt.date.fromisoformat(text)
    except ValueError:
        raise _error("this is not a date", found=text, allowed="YYYY-MM-DD") from None
