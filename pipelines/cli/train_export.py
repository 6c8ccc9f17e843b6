"""``ctmr train export``: a trained segmentation network for other software."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from pipelines.cli.console import console, print_json, report_errors
from pipelines.cli.options import JsonOption
from pipelines.cli.segment import checkpoint_of


class NetworkFormat(StrEnum):
    """What a network is exported as."""

    bundle = "bundle"
    torchscript = "torchscript"


@report_errors
def export(
    run: Annotated[Path, typer.Argument(help="A run folder: its best checkpoint; or a checkpoint.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="New folder of the bundle, or TorchScript file.", show_default=False)],
    kind: Annotated[
        NetworkFormat, typer.Option("--format", "-f", help="`bundle`: folder of a MONAI bundle. `torchscript`: one file.")
    ] = NetworkFormat.bundle,
    licence: Annotated[str, typer.Option(help="Of the weights, an SPDX name or address; for the bundle.")] = "",
    authors: Annotated[str, typer.Option(help="Of the network; for the bundle.")] = "",
    last: Annotated[bool, typer.Option("--last", help="The last checkpoint, not the best.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Export a trained segmentation network as a MONAI bundle or as TorchScript.

    Printed is the entry under `segmenters` of a quality policy that runs it; a policy can't feed networks of several channels.
    `ctmr segment` takes the folder of the bundle, as `python -m monai.bundle run` does.

    Example: `ctmr train export runs/torso --out bundles/torso --licence Apache-2.0`
    """
    from ctmr_core.learning.segmentation.bundle import export_bundle
    from ctmr_core.learning.segmentation.export import export_torchscript

    checkpoint = checkpoint_of(run, "last" if last else "best")
    if kind is NetworkFormat.bundle:
        entry = export_bundle(checkpoint, out, licence=licence, authors=authors)
    else:
        entry = export_torchscript(checkpoint, out)
    if as_json:
        print_json({"written": str(out), "segmenter": entry})
        return
    console.print(Text(str(out), "bold"), soft_wrap=True)
    if entry is None:
        console.print(Text("A quality policy can't feed it: it takes several channels, or scales MR in another way.", "dim"))
    else:
        console.print(Text("segmenters:", "dim"))
        console.print(Text(f"  - {json.dumps(entry)}"), soft_wrap=True)
