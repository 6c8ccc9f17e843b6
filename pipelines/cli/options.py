"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DatasetArgument = Annotated[str, typer.Argument(metavar="DATASET", help="The dataset: a folder or s3://bucket/prefix.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
LibraryOption = Annotated[
    Path | None,
    typer.Option("--library", help="Template library to use instead of the one the recipe names.", show_default=False),
]
