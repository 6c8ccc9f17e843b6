"""``ctmr export`` and ``ctmr import``: datasets for the tools of others, and their scans in a dataset."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from pipelines.cli.console import EXIT_FAILED, EXIT_USAGE, console, error_console, print_json, report_errors
from pipelines.cli.options import DatasetArgument, JsonOption

if TYPE_CHECKING:
    from ctmr_core.exchange import ExportSummary


def _list_formats(wanted: bool) -> None:
    if not wanted:
        return
    from ctmr_core.exchange.registry import exporter_class, exporter_names

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for title in ("format", "read by", "options (--set)"):
        table.add_column(title)
    for name in exporter_names():
        kind = exporter_class(name)
        options = ", ".join(
            f"{field}={'' if info.default in (None, ()) else info.default}" for field, info in kind.Options.model_fields.items()
        )
        table.add_row(name, Text(kind.consumer), Text(options))
    console.print(table)
    raise typer.Exit


@report_errors
def export(
    dataset: DatasetArgument,
    format_name: Annotated[str, typer.Option("--format", "-f", help="The format; `--list` shows them.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder; empty, or one this was begun in.", file_okay=False)],
    snapshot: Annotated[str | None, typer.Option(help="Name or first digits of the digest; default all accepted cases.")] = None,
    sequence: Annotated[list[str] | None, typer.Option(help="Only these images, of cases that have them; repeat.")] = None,
    split: Annotated[list[str] | None, typer.Option(help="Only this split: train, val or test; repeat.")] = None,
    vocabulary: Annotated[str, typer.Option(help="Only cases labelled in it.")] = "",
    cases: Annotated[
        Path | None, typer.Option(help="Text file with one case id per line: just these.", exists=True, dir_okay=False)
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="The first so many cases by id.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="An option of the format.")] = None,
    name: Annotated[str, typer.Option(help="What the export calls the dataset; default the last part of DATASET.")] = "",
    workers: Annotated[int, typer.Option("--workers", "-j", min=1, max=256, help="Processes.")] = 1,
    list_formats: Annotated[
        bool, typer.Option("--list", callback=_list_formats, is_eager=True, help="Show the formats and their options.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a dataset or snapshot in the format of another tool. Run it again to go on, or to add cases that came since.

    Example: `ctmr export runs/demo --snapshot night-1 --format nnunet --set id=7 --out nnUNet_raw --workers 4`
    """
    del list_formats
    from ctmr_core.exchange import Selection, load_exporter
    from ctmr_core.exchange import export as run_export
    from ctmr_core.store import Dataset

    chosen = tuple(line.strip() for line in cases.read_text().splitlines() if line.strip()) if cases else ()
    selection = Selection(tuple(sequence or ()), tuple(split or ()), vocabulary, chosen, limit)
    exporter = load_exporter(format_name, _settings(settings or []))
    opened = Dataset.open(dataset, snapshot)
    columns = (TextColumn(f"exporting {format_name}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=error_console, transient=True, disable=as_json or not error_console.is_terminal) as bar:
        task = bar.add_task("export", total=None)
        summary = run_export(
            opened,
            exporter,
            out,
            selection=selection,
            name=name,
            workers=workers,
            done=lambda there, total: bar.update(task, completed=there, total=total),
        )
    if as_json:
        print_json(asdict(summary))
    else:
        _show(summary)
    if summary.failures:
        raise typer.Exit(EXIT_FAILED)


def _show(summary: ExportSummary) -> None:
    for unit, why in summary.failures.items():
        error_console.print(Text.assemble(("not exported: ", "bold red"), f"{unit}: {why}"), soft_wrap=True)
    text = f"{summary.cases:,} cases in {summary.out}, {summary.written:,} written now, {summary.bytes / 1e6:,.1f} MB"
    console.print(text, soft_wrap=True, highlight=False)


def _settings(texts: list[str]) -> dict[str, str]:
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            error_console.print(f"--set takes NAME=VALUE, not {text!r}", markup=False)
            raise typer.Exit(EXIT_USAGE)
        found[name.strip()] = value
    return found


@report_errors
def import_pairs(
    image: Annotated[Path | None, typer.Argument(help="The image: NIfTI, MGZ, NRRD or MetaImage.")] = None,
    labels: Annotated[Path | None, typer.Argument(help="Its label map, on the same grid.")] = None,
    dataset: Annotated[str, typer.Option("--dataset", "-d", help="The dataset; made if it isn't there yet.")] = "",
    mapping: Annotated[str, typer.Option(help="What the label ids mean: totalsegmentator_v2, maisi, a .csv ...")] = "maisi",
    sequence: Annotated[str, typer.Option(help="What the image is: ct, mri_t1 ...")] = "ct",
    case_id: Annotated[str, typer.Option("--case-id", help="Default: the name of the image file.")] = "",
    split: Annotated[str, typer.Option(help="train, val or test.")] = "train",
    body: Annotated[str, typer.Option(help="Name of the person, the same for all scans of one; default the case id.")] = "",
    licence: Annotated[str, typer.Option(help="Under which the scan may be used; kept in the catalog.")] = "",
    source: Annotated[str, typer.Option(help="Where it comes from; kept in the catalog.")] = "",
    table: Annotated[
        Path | None, typer.Option(help="CSV: case_id, labels, a column per sequence (ct, ...); many pairs.", exists=True)
    ] = None,
    checks: Annotated[str, typer.Option(help="record their findings, enforce them, or skip.")] = "record",
    split_sides: Annotated[bool, typer.Option("--split-sides", help="Divide labels without a side at the midline.")] = False,
    drop_unknown: Annotated[bool, typer.Option("--drop-unknown", help="Ids without a mapping become background.")] = False,
    envelope: Annotated[
        str, typer.Option(help="Label the body around the labels: found in the image, drawn from the labels, auto, or none.")
    ] = "none",
    as_json: JsonOption = False,
) -> None:
    """Put finished scans with label maps into a dataset, beside synthetic cases.

    Example: `ctmr import ct.nii.gz labels.nii.gz --mapping totalsegmentator_v2 --dataset runs/demo --licence Apache-2.0`
    """
    if not dataset or (table is None) == (image is None or labels is None):
        error_console.print("give IMAGE and LABELS, or --table; and --dataset", markup=False)
        raise typer.Exit(EXIT_USAGE)
    from ctmr_core.anatomy.templates.reading import scan_stem
    from ctmr_core.exchange.importing import import_pairs as run_import
    from ctmr_core.exchange.importing import new_pair, read_pairs
    from ctmr_core.store import Dataset

    common = {
        "mapping": mapping,
        "split": split,
        "licence": licence,
        "source": source,
        "checks": checks,
        "split_sides": split_sides,
        "drop_unknown": drop_unknown,
        "envelope": envelope,
    }
    if table is not None:
        pairs = read_pairs(table, common)
    else:
        assert image is not None  # noqa: S101 - seen to above
        fields = {**common, "case_id": case_id or scan_stem(image), "images": {sequence: image}, "labels": labels, "body": body}
        pairs = [new_pair(fields)]
    imported = run_import(Dataset.create(dataset), pairs)
    if as_json:
        print_json([asdict(one) for one in imported])
        return
    for one in imported:
        console.print(f"{one.case_id}: {'imported' if one.new else 'there already'}", highlight=False)
        for note in (*one.notes, *one.reasons):
            console.print(Text(f"  {note}", "yellow"), soft_wrap=True)
