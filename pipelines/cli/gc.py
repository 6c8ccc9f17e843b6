"""``ctmr gc``: removing what killed runs and changed plans left behind."""

from __future__ import annotations

import re
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from pipelines.cli.console import console, print_json, report_errors
from pipelines.cli.options import JsonOption

if TYPE_CHECKING:
    from ctmr_core.store import GcReport

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def parse_age(text: str) -> timedelta:
    """``90s``, ``30m``, ``12h``, ``1d``, ``2w`` as a duration."""
    found = re.fullmatch(r"(\d{1,6}(?:\.\d+)?)([smhdw])", text)
    if not found:
        raise typer.BadParameter(f"{text!r} is not an age; allowed: a number and s, m, h, d or w, e.g. 1d")
    return timedelta(**{_UNITS[found[2]]: float(found[1])})


@report_errors
def gc(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="The dataset: a folder or s3://bucket/prefix.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count what would go, remove nothing.")] = False,
    older_than: Annotated[
        str | None,
        typer.Option(metavar="AGE", help="Only what is older, e.g. 12h or 1d; beside a run 1d unless given, at least 1h."),
    ] = None,
    superseded: Annotated[
        bool, typer.Option("--superseded", help="Also volumes of cases a changed plan has replaced; never those of a snapshot.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove volumes no commit names, scratch files, merged catalog files and unfinished uploads. Committed volumes stay.

    Safe beside a running generation: then only what is older than a day goes.

    Example: `ctmr gc runs/demo --dry-run`
    """
    from ctmr_core.store import Dataset, collect

    age = parse_age(older_than) if older_than else None
    report = collect(Dataset.open(dataset), dry_run=dry_run, older_than=age, superseded=superseded)
    if as_json:
        print_json(asdict(report) | {"bytes": report.bytes})
    else:
        _print(report)


def _print(report: GcReport) -> None:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    rows = {
        "orphaned volumes": report.orphans,
        "superseded volumes": report.superseded,
        "scratch": report.scratch,
        "catalog files": report.catalog,
        "unfinished uploads": report.uploads,
    }
    for name, tally in rows.items():
        table.add_row(Text(name, "dim"), f"{tally.count:,}", f"{tally.objects:,} objects", f"{tally.bytes:,} bytes")
    console.print(table)
    for name in report.examples:
        console.print(Text(f"  {name}", "dim"), soft_wrap=True)
    if report.beside_run:
        hours = report.older_than_seconds / 3600
        console.print(
            Text(f"a run holds the dataset: only what is older than {hours:g} h was looked at", "yellow"), soft_wrap=True
        )
    if report.young:
        console.print(f"{report.young:,} volumes are younger and were left")
    console.print(Text(f"{report.bytes:,} bytes {'would be ' if report.dry_run else ''}removed", "bold"))
