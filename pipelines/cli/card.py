"""``ctmr card``: the data set card, for people (Markdown) and machines (Croissant)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.console import console, print_json, report_errors
from pipelines.cli.options import JsonOption


@report_errors
def card(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="The dataset: a folder or s3://bucket/prefix.")],
    snapshot: Annotated[str | None, typer.Option(help="Of this snapshot.", show_default=False)] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write into.", file_okay=False)] = Path("card"),
    json: JsonOption = False,
) -> None:
    """Write the card of a dataset: README.md, croissant.json and cases.parquet.

    Origin, licences, use, limits, what is in it, how it was checked. Reads the catalog, no voxel.

    Example: `ctmr card runs/demo --snapshot night-1 --out card`
    """
    from ctmr_core.assessment.card import write_card
    from ctmr_core.store import Dataset

    written = write_card(Dataset.open(dataset, snapshot=snapshot), out)
    if json:
        print_json({"files": [str(path) for path in written]})
        return
    for path in written:
        console.print(str(path), soft_wrap=True, highlight=False)
