"""``ctmr plan`` and ``ctmr validate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from pipelines.cli.console import EXIT_FAILED, console, error_console, print_json, report_errors
from pipelines.cli.estimates import CalibrateOption, show_outlook
from pipelines.cli.options import JsonOption, LibraryOption
from pipelines.flows.options import GenerateOptions

if TYPE_CHECKING:
    from ctmr_core.anatomy.templates.library import TemplateLibrary
    from ctmr_core.cases.manifest import Manifest

RECIPE_SUFFIXES = (".yaml", ".yml")


@report_errors
def plan(
    recipe: Annotated[Path, typer.Argument(help="Recipe in YAML.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="Manifest to write, ends in .parquet.", show_default=False)],
    library: LibraryOption = None,
    estimate: Annotated[bool, typer.Option("--estimate", help="Say what making the cases takes, and whether it fits.")] = False,
    dataset: Annotated[
        str, typer.Option("--dataset", help="For --estimate: the dataset to be made; its earlier runs are what is measured.")
    ] = "dataset",
    workers: Annotated[int | None, typer.Option(min=1, help="For --estimate: actors; default one per core.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="For --estimate: CPU threads per actor.")] = 1,
    gpus_per_worker: Annotated[float, typer.Option(min=0, help="For --estimate: share of a GPU per actor.")] = 0.0,
    calibrate: CalibrateOption = None,
    force: Annotated[bool, typer.Option("--force", help="For --estimate: exit code 0 even if the cases can't fit.")] = False,
    json: JsonOption = False,
) -> None:
    """Decide every case of a RECIPE and write them to a manifest.

    Example:  ctmr plan manifests/demo.yaml --out demo.parquet --estimate --workers 8
    """
    manifest = _plan(recipe, library)
    manifest.write(out)
    if not (estimate and json):
        _print_summary(manifest, f"{manifest.rows:,} cases planned: {out}", json, manifest=str(out))
    if estimate:
        options = GenerateOptions(
            manifest=str(out),
            dataset=dataset,
            library=str(library) if library else None,
            workers=workers,
            threads=threads,
            gpus_per_worker=gpus_per_worker,
            force=force,
        )
        show_outlook(options, calibrate, as_json=json, more={"manifest": str(out), **manifest.summary()})


@report_errors
def validate(
    path: Annotated[Path, typer.Argument(help="Recipe (.yaml) or manifest (.parquet, .csv, .jsonl).", show_default=False)],
    library: LibraryOption = None,
    skip_invalid: Annotated[
        bool, typer.Option("--skip-invalid", help="Count bad rows of a manifest instead of failing.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Check a recipe or a manifest without making anything.

    Example:  ctmr validate manifests/examples.csv
    """
    is_recipe = path.suffix in RECIPE_SUFFIXES
    manifest = _plan(path, library) if is_recipe else _checked_manifest(path, library, skip_invalid)
    for error in manifest.skipped if not json else ():
        error_console.print(f"skipped: {error}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    skipped = [error.as_dict() for error in manifest.skipped]
    _print_summary(manifest, f"{path}: {manifest.rows:,} cases, valid", json, path=str(path), skipped=skipped)
    if skipped and not manifest.rows:
        raise typer.Exit(EXIT_FAILED)


def _plan(path: Path, library: Path | None) -> Manifest:
    from ctmr_core.cases.planner import plan as plan_recipe
    from ctmr_core.cases.recipe import load_recipe
    from ctmr_core.engines.registry import engine_identity
    from pipelines.flows.admission import Examiner
    from pipelines.flows.policies import with_policy

    recipe = with_policy(load_recipe(path))
    return plan_recipe(recipe, _open(library), engine_identity, (Examiner(None, needs_library=False).examine,))


def _checked_manifest(path: Path, library: Path | None, skip_invalid: bool) -> Manifest:
    from ctmr_core.cases.manifest import read_manifest
    from pipelines.flows.admission import Examiner, admit

    manifest = read_manifest(path, skip_invalid)
    admit(manifest, Examiner(_open(library), needs_library=False), skip_invalid=False)
    return manifest


def _open(library: Path | None) -> TemplateLibrary | None:
    if library is None:
        return None
    from ctmr_core.anatomy.templates.library import TemplateLibrary

    return TemplateLibrary.open(library)


def _print_summary(manifest: Manifest, headline: str, as_json: bool, /, **more: Any) -> None:
    summary = manifest.summary()
    if as_json:
        print_json({**more, **summary})
        return
    console.print(headline, markup=False, highlight=False, soft_wrap=True)
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in summary.items():
        if not value:
            continue
        text = ", ".join(f"{key}: {count:,}" for key, count in value.items()) if isinstance(value, dict) else f"{value:,}"
        table.add_row(name.replace("_", " "), text)
    console.print(table)
