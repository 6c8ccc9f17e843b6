"""``ctmr status`` and ``ctmr release``: how far a dataset is, and letting failed cases be tried again. No Prefect, no Ray."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pipelines.cli.console import EXIT_USAGE, console, error_console, print_json, report_errors
from pipelines.cli.live import duration
from pipelines.cli.options import DatasetArgument, JsonOption

if TYPE_CHECKING:
    from ctmr_core.store.progress import Sample
    from ctmr_core.store.runs import RunRecord
    from ctmr_core.store.storage import Storage

_SHOWN_RUN = ("started", "seconds", "accepted", "rejected", "failed", "quarantined", "workers", "efficiency", "stages", "halt")


@report_errors
def status(
    dataset: DatasetArgument,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON; with --watch one line per look.")] = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Keep looking until every case has an outcome or Ctrl-C.")] = False,
    every: Annotated[float, typer.Option(min=0.2, help="Seconds between looks.")] = 2.0,
) -> None:
    """Count planned, accepted, rejected, failed and quarantined cases from the dataset alone.

    Example: `ctmr status runs/demo --watch`
    """
    from ctmr_core.store import Dataset
    from ctmr_core.store.progress import Watch, lock_holder
    from ctmr_core.store.progress import status as count

    opened = Dataset.open(dataset)
    if watch:
        _watch(Watch(opened), _last_run(opened.storage), as_json, every)
        return
    counts: dict[str, Any] = count(opened)
    holder, run = lock_holder(opened.storage), _last_run(opened.storage)
    more = {
        "snapshots": _snapshots(opened.storage),
        "holder": str(holder[0]) if holder else None,
        "last_run": _run_facts(run) if run else None,
    }
    if as_json:
        print_json({**counts, **more})
        return
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, value in counts.items():
        table.add_row(Text(name, "dim"), str(value))
    table.add_row(Text("snapshots", "dim"), str(more["snapshots"]))
    if holder:
        table.add_row(Text("held by", "dim"), Text(str(holder[0])))
    if run:
        table.add_row(Text("last run", "dim"), _run_line(run))
    console.print(table)


@report_errors
def release(
    dataset: DatasetArgument,
    cases: Annotated[list[str] | None, typer.Argument(metavar="[CASE]...", help="Case ids.", show_default=False)] = None,
    everything: Annotated[bool, typer.Option("--all", help="All failed and quarantined cases.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Let failed and quarantined cases be tried again by the next run.

    Example: `ctmr release runs/demo torso-ct-0000002`
    """
    from ctmr_core.store import open_storage
    from ctmr_core.store.commits import release_failures

    if bool(cases) == everything:
        error_console.print("name cases, or give --all")
        raise typer.Exit(EXIT_USAGE)
    released = release_failures(open_storage(dataset), None if everything else cases)
    if as_json:
        print_json({"released": released})
    else:
        console.print(f"{len(released)} cases released", highlight=False)


def _watch(watch: Any, run: RunRecord | None, as_json: bool, every: float) -> None:
    """Draw or print a sample every few seconds; a terminal gets a live picture, everything else lines."""
    try:
        with Live(console=console, auto_refresh=False) if console.is_terminal and not as_json else _Lines(as_json) as view:
            while True:
                sample = watch.sample()
                if isinstance(view, Live):
                    view.update(_picture(sample, run), refresh=True)
                else:
                    view.show(sample)
                if sample.finished:
                    return
                time.sleep(every)
    except KeyboardInterrupt:
        return


class _Lines:
    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json

    def __enter__(self) -> _Lines:
        return self

    def __exit__(self, *error: object) -> None:
        return

    def show(self, sample: Sample) -> None:
        if self._as_json:
            sys.stdout.write(json.dumps(asdict(sample), sort_keys=True) + "\n")
            sys.stdout.flush()
        else:
            console.print(Text.assemble(_head(sample), "   ", _counts(sample), "   ", _pace(sample)), soft_wrap=True)


def _picture(sample: Sample, run: RunRecord | None) -> Group:
    bar = Table.grid(padding=(0, 2))
    done = sample.planned - sample.pending
    bar.add_row(Text(_head(sample), "bold"), ProgressBar(total=max(sample.planned, 1), completed=done, width=36), _pace(sample))
    lines: list[Any] = [bar, _counts(sample)]
    lines.append(Text(f"held by {sample.holder}" if sample.holder else "nobody generates", "dim"))
    if run:
        lines.append(Text.assemble(("last run  ", "dim"), _run_line(run)))
    return Group(*lines)


def _head(sample: Sample) -> str:
    return f"{sample.planned - sample.pending:,}/{sample.planned:,} cases"


def _counts(sample: Sample) -> Text:
    names = ("committed", "rejected", "failed", "quarantined")
    return Text("   ".join(f"{name} {getattr(sample, name):,}" for name in names))


def _pace(sample: Sample) -> str:
    if not sample.pending:
        return "nothing is left to make"
    rate = "?" if sample.per_minute is None else f"{sample.per_minute:,.1f}"
    return f"{rate} cases/min   ETA {duration(sample.eta_seconds)}"


def _last_run(storage: Storage) -> RunRecord | None:
    from ctmr_core.store.runs import read_runs

    return next(iter(read_runs(storage, last=1)), None)


def _run_facts(run: RunRecord) -> dict[str, Any]:
    document = run.model_dump(mode="json")
    return {name: document[name] for name in _SHOWN_RUN}


def _run_line(run: RunRecord) -> str:
    total = sum(run.stages.values())
    shares = ", ".join(
        f"{stage} {seconds / total:.0%}" for stage, seconds in run.stages.items() if total and seconds / total >= 0.01
    )
    line = f"{run.started}, {run.made:,} cases in {duration(run.seconds)}, {run.workers} workers, efficiency {run.efficiency:.2f}"
    return f"{line} ({shares})" if shares else line


def _snapshots(storage: Storage) -> int:
    from ctmr_core.store import layout

    return sum(1 for entry in storage.list(layout.SNAPSHOTS) if entry.name.count("/") == 1)
