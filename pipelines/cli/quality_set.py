"""``ctmr quality set | drift``: measures of a whole set, and two states of it compared."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table
from rich.text import Text

from pipelines.cli.console import EXIT_FAILED, console, error_console, print_json, report_errors
from pipelines.cli.options import DatasetArgument, JsonOption

if TYPE_CHECKING:
    from ctmr_core.assessment.slices import SliceProtocol

OutOption = Annotated[Path | None, typer.Option(help="Write the JSON document here too.", dir_okay=False)]


@report_errors
def set_command(
    dataset: DatasetArgument,
    snapshot: Annotated[str | None, typer.Option(help="Measure this snapshot.", show_default=False)] = None,
    targets: Annotated[
        Path | None,
        typer.Option(help="YAML with `targets:` to compare with; default those of the recipe.", exists=True, dir_okay=False),
    ] = None,
    reference: Annotated[
        str, typer.Option(help="Compare with this dataset, folder of NIfTI scans or template library.", show_default=False)
    ] = "",
    network: Annotated[
        Path | None,
        typer.Option(help="TorchScript file that gives the features; default the built-in filter bank.", exists=True),
    ] = None,
    measures: Annotated[str, typer.Option(help="Which, separated by commas.")] = "profile,duplicates,frechet,diversity",
    sample: Annotated[int, typer.Option(min=0, help="Volumes read, in the order of their keys; 0 = all.")] = 2000,
    pairs: Annotated[int, typer.Option(min=1, help="Pairs compared for the diversity.")] = 100,
    protocol: Annotated[
        Literal["native", "maisi"], typer.Option(help="Grid of the slices: as stored, or 512^3 at 1 mm as MAISI's evaluation.")
    ] = "native",
    workers: Annotated[int, typer.Option(min=1, help="Volumes worked on at a time.")] = 2,
    json: JsonOption = False,
    out: OutOption = None,
) -> None:
    """Measure a whole set: what is in it, what is alike in it, how far it is from a reference, how diverse it is.

    Kept in the dataset as `quality/set-<digest>.json`. Exit code 1 when a target is missed or volumes are alike.

    Example: `ctmr quality set runs/demo --measures profile,duplicates`
    """
    from ctmr_core.assessment.set_measures import SetOptions, keep_document, measure_set
    from ctmr_core.assessment.targets import read_targets, targets_of
    from ctmr_core.store import Dataset

    opened = Dataset.open(dataset, snapshot=snapshot)
    options = SetOptions(
        measures=tuple(name.strip() for name in measures.split(",") if name.strip()),
        sample=sample or None,
        reference=reference,
        network=str(network) if network else "",
        targets=read_targets(targets) if targets else targets_of(opened),
        protocol=_protocol(protocol),
        pairs=pairs,
        workers=workers,
    )
    document = measure_set(opened, options)
    name = keep_document(opened, document)
    _answer(document, json, out)
    if not json:
        _show(document)
        console.print(Text(f"{opened.uri}/{name}", "dim"), soft_wrap=True, highlight=False)
    if not document["verdict"]["passed"]:
        raise typer.Exit(EXIT_FAILED)


@report_errors
def drift_command(
    dataset: DatasetArgument,
    before: Annotated[str, typer.Argument(metavar="BEFORE", help="Snapshot: name or first digits of the digest.")],
    after: Annotated[str, typer.Argument(metavar="AFTER", help="Snapshot: name or first digits of the digest.")],
    json: JsonOption = False,
    out: OutOption = None,
) -> None:
    """Compare every score, label volume and kind of case of two snapshots. Exit code 1 when something drifted.

    Example: `ctmr quality drift runs/demo night-1 night-2`
    """
    from ctmr_core.assessment.drift import drift
    from ctmr_core.store import Dataset

    found = drift(Dataset.open(dataset, snapshot=before), Dataset.open(dataset, snapshot=after))
    _answer(found, json, out)
    if not json:
        _show_drift(found)
    if not found["passed"]:
        raise typer.Exit(EXIT_FAILED)


def _protocol(name: str) -> SliceProtocol:
    from ctmr_core.assessment.slices import SliceProtocol

    return SliceProtocol((1.0, 1.0, 1.0), (512, 512, 512)) if name == "maisi" else SliceProtocol()


def _answer(document: dict[str, Any], as_json: bool, out: Path | None) -> None:
    if out is not None:
        import json

        out.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    if as_json:
        print_json(document)


def _table(*titles: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for place, title in enumerate(titles):
        table.add_column(title, justify="right" if place else "left")
    return table


def _show(document: dict[str, Any]) -> None:
    measures = document["measures"]
    console.print(Text(f"{document['cases']:,} cases", "bold"))
    if profile := measures.get("profile"):
        table = _table("kind", "", "cases")
        for what, values in profile["categories"].items():
            for value, cases in values.items():
                table.add_row(what, Text(value), f"{cases:,}")
        console.print(table)
    if alike := measures.get("duplicates"):
        table = _table("alike", "pairs", "nearest, median", "greatest")
        for kind, count in alike["counts"].items():
            nearest = alike["nearest"].get(kind, {})
            table.add_row(kind, f"{count:,}", _number(nearest.get("p50")), _number(nearest.get("max")))
        console.print(table)
    if distances := measures.get("frechet"):
        features = distances["features"]
        table = _table(f"from the reference ({features['name']})", "distance", "KID", "precision", "recall", "coverage")
        for sequence, entry in distances.items():
            if sequence != "features":
                intervals = {"distance": entry, **entry.get("intervals", {})}
                names = ("distance", "kid", "precision", "recall", "coverage")
                table.add_row(sequence, *(_with_interval(entry.get(name), intervals.get(name, {})) for name in names))
        console.print(table)
        console.print(Text(features["note"], "dim"))
    if found := measures.get("diversity"):
        table = _table("diversity", "pairs", "mean", "low", "high")
        for what, entry in _flat(found):
            for name in ("ms_ssim", "agreement", "dice"):
                if name in entry:
                    row = entry[name]
                    table.add_row(
                        f"{what} {name}", str(entry["pairs"]), *(_number(row[part]) for part in ("mean", "low", "high"))
                    )
        console.print(table)
    for measure, why in document["skipped"].items():
        console.print(Text(f"{measure}: left out, {why}", "dim"), soft_wrap=True)
    for line in document["verdict"]["lines"]:
        error_console.print(Text(line, "red"), soft_wrap=True)


def _flat(found: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    own = [(what, entry) for what, entry in found.items() if what != "reference"]
    return own + [(f"reference {what}", entry) for what, entry in found.get("reference", {}).items()]


def _show_drift(found: dict[str, Any]) -> None:
    cases = found["cases"]
    console.print(Text(f"{cases['before']:,} cases before, {cases['after']:,} after", "bold"))
    if not found["moved"]:
        console.print("nothing moved")
        return
    table = _table("moved", "PSI", "", "median before", "after")
    for entry in found["moved"]:
        number = found["numbers"].get(entry["what"].removeprefix("number "), {})
        medians = number.get("median", {})
        cells = (_number(medians.get("before")), _number(medians.get("after")))
        table.add_row(Text(entry["what"]), f"{entry['psi']:.2f}", entry["state"], *cells)
    console.print(table)


def _with_interval(value: float | None, interval: dict[str, Any]) -> str:
    low, high = interval.get("low"), interval.get("high")
    return _number(value) if low is None or high is None else f"{_number(value)} ({low:.3g}..{high:.3g})"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
