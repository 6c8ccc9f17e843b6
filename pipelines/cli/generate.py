"""``ctmr generate``: manifest -> dataset."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from pipelines.cli.console import EXIT_FAILED, console, print_json, report_errors
from pipelines.cli.estimates import CalibrateOption, show_outlook
from pipelines.cli.live import LiveRun, duration
from pipelines.cli.options import JsonOption
from pipelines.factory.logs import LogFormat
from pipelines.flows.options import GenerateOptions, RunSummary

MAKING = ("body", "render", "wait")  # an actor's making thread: they add up to its time
FINISHING = ("check", "write", "commit", "seal")  # at the same time, in its finishing thread

if TYPE_CHECKING:
    from rich.console import Console


@report_errors
def generate(
    manifest: Annotated[Path, typer.Argument(help="The manifest: .parquet, .csv or .jsonl.", exists=True, dir_okay=False)],
    out: Annotated[
        str, typer.Option("--out", "-o", help="The dataset: a folder or s3://bucket/prefix; an existing one is resumed.")
    ],
    library: Annotated[
        Path, typer.Option("--library", envvar="CTMR_TEMPLATES", help="The template library, for cases with a template.")
    ] = Path("templates"),
    address: Annotated[
        str | None, typer.Option(envvar="CTMR_RAY_ADDRESS", help="Address of a running Ray cluster, or `auto`.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Actors at most; default one per core, or as many as fit in the cluster.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads per actor.")] = 1,
    gpus_per_worker: Annotated[float, typer.Option(min=0, help="Share of a GPU per actor, e.g. 0.5.")] = 0.0,
    memory_per_worker: Annotated[
        float | None, typer.Option(min=0.001, help="GB reserved for an actor; one that holds more is replaced after its unit.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Make at most this many cases now.")] = None,
    unit_size: Annotated[int | None, typer.Option(min=1, help="Cases an actor takes at a time; default by cost.")] = None,
    case_timeout: Annotated[float, typer.Option(min=1, help="Seconds after which an attempt counts as hanging.")] = 3600.0,
    skip_invalid: Annotated[bool, typer.Option("--skip-invalid", help="Leave bad rows out and report them.")] = False,
    log_format: Annotated[
        LogFormat | None, typer.Option(envvar="CTMR_LOG_FORMAT", help="Of what this process and the actors log.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what the run would take and whether it fits; make nothing.")
    ] = False,
    calibrate: CalibrateOption = None,
    force: Annotated[bool, typer.Option("--force", help="Begin even if disk, memory or GPUs can't suffice.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make every case of MANIFEST that DATASET does not have yet.

    Run the same command again to finish an interrupted set: nothing committed is made twice.
    Exit code 1 when a case failed or was quarantined, or the run was stopped; rejected cases are no failure.

    Example: `ctmr generate demo.parquet --out runs/demo --workers 2`, first with `--dry-run`
    """
    options = GenerateOptions(
        manifest=str(manifest),
        dataset=out,
        library=str(library) if library.is_dir() else None,
        address=address,
        workers=workers,
        threads=threads,
        gpus_per_worker=gpus_per_worker,
        memory_per_worker=memory_per_worker,
        limit=limit,
        unit_size=unit_size,
        case_timeout=case_timeout,
        skip_invalid=skip_invalid,
        log_format=log_format,
        force=force,
    )
    if dry_run:
        show_outlook(options, calibrate, as_json=as_json)
        return
    summary = run(options, quiet=as_json)
    if as_json:
        print_json(summary.model_dump())
    else:
        print_summary(summary, console)
    if not summary.complete or summary.failed or summary.quarantined:
        raise typer.Exit(EXIT_FAILED)


def run(options: GenerateOptions, *, quiet: bool = False) -> RunSummary:
    """Run the flow with the live picture (none when ``quiet``)."""
    from pipelines.flows.generate_dataset import run_generate_dataset  # Prefect and Ray take seconds to import

    if quiet:
        return run_generate_dataset(options)
    console.print(Text("Starting Prefect and Ray ...", "dim"))
    with LiveRun(console) as live:
        return run_generate_dataset(options, live)


def _stages(summary: RunSummary, stages: tuple[str, ...]) -> str:
    """Share of the actors' time by stage."""
    shares = {stage: summary.stages.get(stage, 0.0) / summary.worker_seconds for stage in stages}
    return ", ".join(f"{stage} {share:.0%}" if share >= 0.01 else f"{stage} < 1%" for stage, share in shares.items())


def print_summary(summary: RunSummary, to: Console) -> None:
    """The outcome of a run as a short table, with the cases that need a look."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_row("dataset", Text(summary.dataset, "bold"))
    made = ", ".join(f"{count} {reason}" for reason, count in sorted(summary.reasons.items())) or "nothing to do"
    table.add_row("cases", f"{summary.planned} planned, {summary.done_before} done before; this run: {made}")
    table.add_row(
        "outcome",
        f"{summary.accepted} accepted, {summary.rejected} rejected, {summary.failed} failed, {summary.quarantined} quarantined",
    )
    on = f"{summary.workers} actors" + (f" on {summary.nodes} nodes" if summary.nodes > 1 else "")
    table.add_row(
        "time",
        f"{duration(summary.seconds)}, {summary.volumes_per_minute:.1f} volumes/min, {on}, "
        f"efficiency {summary.efficiency:.0%}, {summary.attempts} attempts",
    )
    if summary.worker_seconds:
        table.add_row("actors", _stages(summary, MAKING))
        table.add_row("beside it", _stages(summary, FINISHING))
    events = {"deaths": summary.deaths, "replaced for memory": summary.replaced, "second copies": summary.second_copies}
    if any(events.values()):
        table.add_row("incidents", ", ".join(f"{count} {event}" for event, count in events.items() if count))
    to.print(table)
    for row in summary.skipped_rows[:10]:
        to.print(Text(f"skipped row: {row}", "yellow"), soft_wrap=True)
    for problem in summary.problems[:10]:
        to.print(Text(f"{problem['status']}: {problem['case_id']}: {problem['reason']}", "yellow"), soft_wrap=True)
    if summary.tracking_lost:
        to.print(Text(summary.tracking_lost, "yellow"), soft_wrap=True)
    if summary.halt:
        to.print(Text(summary.halt, "bold red"), soft_wrap=True)
    elif summary.interrupted:
        to.print(Text("Stopped before the end. Run the same command again to go on.", "bold yellow"))
