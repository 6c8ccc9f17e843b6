"""``ctmr replay``: one case again."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from pipelines.cli.console import EXIT_FAILED, console, print_json, report_errors
from pipelines.cli.options import JsonOption


@report_errors
def replay(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="The dataset: a folder or s3://bucket/prefix.")],
    case: Annotated[str, typer.Argument(metavar="CASE", help="A case id of its manifest; failed and quarantined ones too.")],
    attempt: Annotated[int | None, typer.Option(min=0, help="Attempt, from 0; default the committed one.")] = None,
    library: Annotated[
        Path, typer.Option("--library", envvar="CTMR_TEMPLATES", help="The template library, for cases with a template.")
    ] = Path("templates"),
    as_json: JsonOption = False,
) -> None:
    """Make one case again in this process, without Prefect or Ray, and compare it with what is committed; writes nothing.

    A case that raises shows its error here; one that kills its process kills this one. Exit code 1 when voxels differ.

    Example: `ctmr replay runs/demo head-mr-0000001`
    """
    from ctmr_core.anatomy.templates.library import TemplateLibrary
    from ctmr_core.store import Dataset
    from pipelines.factory.replay import replay as make_again

    opened = TemplateLibrary.open(library) if library.is_dir() else None
    result = make_again(Dataset.open(dataset), case, opened, attempt)
    if as_json:
        print_json(asdict(result) | {"identical": result.identical})
    else:
        verdict = "accepted" if result.accepted else "rejected: " + "; ".join(result.reasons)
        console.print(Text(f"{result.case_id}, attempt {result.attempt + 1}: {verdict}", "bold"), soft_wrap=True)
        for name, voxels in (result.differing or {}).items():
            console.print(
                Text(f"  {name}: {'identical' if not voxels else f'{voxels:,} voxels differ'}", "red" if voxels else "")
            )
        if result.differing is None:
            console.print(Text("  nothing is committed to compare with", "dim"))
    if result.differing is not None and not result.identical:
        raise typer.Exit(EXIT_FAILED)
