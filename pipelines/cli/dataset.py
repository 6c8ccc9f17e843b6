"""``ctmr verify | report``: looking at a dataset; none of them needs Prefect or Ray."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.text import Text

from pipelines.cli.console import EXIT_FAILED, console, error_console, print_json, report_errors
from pipelines.cli.options import DatasetArgument, JsonOption

REPORT = "report.html"


@report_errors
def verify(
    dataset: DatasetArgument,
    as_json: JsonOption = False,
    quick: Annotated[bool, typer.Option("--quick", help="Check presence and sizes only, read no voxels.")] = False,
) -> None:
    """Read back every committed case and compare sizes, digests and voxels; exit code 1 names what differs.

    The digest printed is the same for every run of the same manifest, whatever the workers, order or crashes.

    Example: `ctmr verify runs/demo --json`
    """
    from ctmr_core.store import Dataset
    from ctmr_core.store.verify import verify as check

    report = check(Dataset.open(dataset), deep=not quick, threads=os.cpu_count() or 1)
    if as_json:
        print_json(asdict(report))
    else:
        for problem in report.problems:
            place = f"case {problem.case_id}, {problem.object}: " if problem.object else f"case {problem.case_id}: "
            error_console.print(Text.assemble(("damaged: ", "bold red"), place, problem.what), soft_wrap=True)
        console.print(Text(f"{report.cases} cases checked, {len(report.problems)} problems", "bold"))
        console.print(f"digest {report.digest}", soft_wrap=True, highlight=False)
    if report.problems:
        raise typer.Exit(EXIT_FAILED)


@report_errors
def report(
    dataset: DatasetArgument,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The HTML file; default DATASET/report.html.")] = None,
    sample: Annotated[int, typer.Option(min=0, max=200, help="How many cases to show in pictures.")] = 12,
    montage: Annotated[Path | None, typer.Option(help="Write a PNG montage of the sample here as well.")] = None,
) -> None:
    """Write one self-contained HTML page: counts, verdicts, distributions, throughput and slices.

    Example: `ctmr report runs/demo --sample 8`
    """
    from ctmr_core.report import sample_of, write_montage, write_report
    from ctmr_core.store import Dataset

    opened = Dataset.open(dataset)
    place = out or opened.storage.local_path(REPORT)
    if place is not None:
        console.print(str(write_report(opened, place, sample=sample)), soft_wrap=True, highlight=False)
    else:
        with TemporaryDirectory() as folder:
            opened.storage.write(REPORT, write_report(opened, Path(folder) / REPORT, sample=sample).read_bytes())
        console.print(f"{opened.uri}/{REPORT}", soft_wrap=True, highlight=False)
    if montage:
        console.print(str(write_montage(opened, sample_of(opened, sample), montage)), soft_wrap=True, highlight=False)
