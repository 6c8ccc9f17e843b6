"""What a run will take, on the terminal: for ``ctmr plan --estimate`` and ``ctmr generate --dry-run``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from pipelines.cli.console import EXIT_FAILED, console, print_json
from pipelines.flows.options import GenerateOptions

if TYPE_CHECKING:
    from pipelines.flows.feasible import Outlook

CalibrateOption = Annotated[
    int | None,
    typer.Option(
        min=1, help="Measure with so many cases of each engine and size, whatever earlier runs say.", show_default=False
    ),
]


def show_outlook(options: GenerateOptions, per_kind: int | None, *, as_json: bool, more: dict[str, Any] | None = None) -> None:
    """Print the outlook of a run; exit code 1 when it can't fit and is not forced."""
    from pipelines.flows.feasible import look_ahead

    if not as_json:
        console.print(Text("Estimating; a few cases are made if no earlier run tells ...", "dim"))
    found = look_ahead(options, per_kind=per_kind)
    if as_json:
        print_json({**(more or {}), **found.as_dict()})
    else:
        print_outlook(found)
    if found.refused and not options.force:
        raise typer.Exit(EXIT_FAILED)


def print_outlook(outlook: Outlook) -> None:
    """The estimate as a table, and what does not fit."""
    found = outlook.estimate
    about = f" ± {found.uncertainty:.0%}"
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_row("cases to make", f"{found.cases:,}; about {found.attempts:,.0f} attempts, {found.accepted:,.0f} accepted")
    work = _hours(found.worker_seconds / 3600)
    table.add_row("time", f"{_hours(found.hours)}{about} with {found.workers} workers; {work} of work")
    stages = {stage: seconds for stage, seconds in found.stages.items() if seconds}
    table.add_row("by stage", ", ".join(f"{stage} {_hours(seconds / 3600)}" for stage, seconds in stages.items()))
    table.add_row("storage", f"{found.bytes / 1e9:,.2f} GB{about} in {found.objects:,} objects")
    gpu = f", {found.gpu_bytes / 1e9:.1f} GB of GPU memory" if found.gpu_bytes else ""
    table.add_row("one worker", f"{found.memory_bytes / 1e9:.1f} GB of memory{gpu} at most")
    table.add_row("Prefect", f"{found.prefect_task_runs} task runs")
    table.add_row("measured by", found.source)
    console.print(table)
    for shortage in outlook.shortages:
        text = f"too little {shortage.what}: needed {shortage.needed}, there is {shortage.available}. {shortage.fix}"
        console.print(Text(text, "bold red" if shortage.certain else "yellow"), soft_wrap=True)


def _hours(hours: float) -> str:
    return f"{hours:,.1f} h" if hours >= 2 else f"{hours * 60:,.1f} min"
