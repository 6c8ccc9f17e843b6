"""``ctmr demo``: from nothing to a checked, labelled dataset."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from ctmr_core.errors import RecipeError
from pipelines.cli.console import EXIT_FAILED, console, print_json, report_errors
from pipelines.cli.generate import print_summary, run
from pipelines.cli.options import JsonOption
from pipelines.flows.options import GenerateOptions

RECIPE = "demo.yaml"
SHOWN = 6  # rows of the montage
INSTALLED = "share/ctmr-factory/manifests"


def shipped_recipe(name: str) -> Path:
    """A recipe of the folder ``manifests``: of the checkout, or of the installed package."""
    import sys

    checkout = Path(str(resources.files("pipelines"))).parent / "manifests" / name
    installed = Path(sys.prefix) / INSTALLED / name
    for path in (checkout, installed):
        if path.is_file():
            return path
    raise RecipeError("the shipped recipe is missing", where=str(checkout), fix="install ctmr-factory anew")


@report_errors
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the dataset.")] = Path("runs/demo"),
    cases: Annotated[int | None, typer.Option(min=1, max=10_000, help="How many cases; default as in the recipe.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Actors; default one per core.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Plan, generate, check and report a small dataset; needs no data and no weights.

    Parametric torsos in CT, parametric heads in T1, T2, FLAIR and SWI of the same head, some with a lesion.

    Example: `ctmr demo --cases 4 --out runs/demo`
    """
    from ctmr_core.cases.planner import plan
    from ctmr_core.cases.recipe import load_recipe
    from ctmr_core.report import sample_of, write_montage, write_report
    from ctmr_core.store import Dataset

    recipe = load_recipe(shipped_recipe(RECIPE))
    if cases is not None:
        recipe = recipe.scaled_to(cases)
    out.mkdir(parents=True, exist_ok=True)
    manifest_path = out / "demo.parquet"
    manifest = plan(recipe)
    manifest.write(manifest_path)
    if not as_json:
        console.print(Text(f"Planned {manifest.rows} cases with {RECIPE} -> {manifest_path}", "dim"), soft_wrap=True)
    summary = run(GenerateOptions(manifest=str(manifest_path), dataset=str(out), workers=workers), quiet=as_json)
    dataset = Dataset.open(out)
    report_path = write_report(dataset, out / "report.html")
    shown = sample_of(dataset, SHOWN)
    montage_path = write_montage(dataset, shown, out / "montage.png") if shown else None
    if as_json:
        print_json(summary.model_dump() | {"report": str(report_path), "montage": str(montage_path)})
    else:
        print_summary(summary, console)
        _what_next(out, report_path, montage_path)
    if not summary.complete or summary.failed or summary.quarantined:
        raise typer.Exit(EXIT_FAILED)


def _what_next(out: Path, report_path: Path, montage_path: Path | None) -> None:
    lines = [
        ("volumes", f"{out / 'volumes'}  (OME-Zarr, image groups and labels)"),
        ("report", str(report_path)),
        ("pictures", str(montage_path)),
    ]
    for name, value in lines:
        console.print(Text.assemble((f"{name:<9}", "dim"), value), soft_wrap=True)
    console.print(Text("\nNext:", "bold"))
    for command, purpose in (
        (f"ctmr status {out}", "counts, from the dataset alone"),
        (f"ctmr verify {out}", "read everything back and compare digests"),
        ("ctmr plan manifests/quick.yaml --out quick.parquet", "plan your own; copy a recipe and edit it"),
        ("ctmr generate quick.parquet --out runs/quick", "make it; run it again to resume"),
    ):
        console.print(Text.assemble("  ", (f"{command:<52}", "cyan"), (purpose, "dim")), soft_wrap=True)
