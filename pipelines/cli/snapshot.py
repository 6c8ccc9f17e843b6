"""``ctmr snapshot create | list | show | diff | delete``: immutable, named states of a dataset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from pipelines.cli.console import console, print_json, report_errors
from pipelines.cli.options import DatasetArgument, JsonOption

if TYPE_CHECKING:
    from ctmr_core.store import Snapshot
    from ctmr_core.store.snapshot_diff import Distribution

SCORE = "score "  # begins the names of scores among the numbers that are compared

snapshot_app = typer.Typer(
    name="snapshot",
    help="Keep named states of a dataset that never change, and compare them.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

SnapshotArgument = Annotated[str, typer.Argument(metavar="SNAPSHOT", help="Name, or the first digits of the digest.")]


@snapshot_app.command()
@report_errors
def create(
    dataset: DatasetArgument,
    name: Annotated[str | None, typer.Option(help="Default: the first digits of its digest.", show_default=False)] = None,
    cases: Annotated[
        Path | None, typer.Option(help="Text file with one case id per line: just these.", exists=True, dir_okay=False)
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option(help="The recipe (.yaml) the cases were planned from, to keep with it.", exists=True)
    ] = None,
    card: Annotated[Path | None, typer.Option(help="Markdown to keep with it; default a summary.", exists=True)] = None,
    note: Annotated[str, typer.Option(help="A line for people.")] = "",
    json: JsonOption = False,
) -> None:
    """Keep the accepted cases as they are now. Doing so again gives the same snapshot.

    Example: `ctmr snapshot create runs/demo --name night-1`
    """
    from ctmr_core.store import Dataset, create_snapshot

    chosen = [line.strip() for line in cases.read_text().splitlines() if line.strip()] if cases else None
    made = create_snapshot(
        Dataset.open(dataset),
        name,
        cases=chosen,
        recipe=_recipe(recipe) if recipe else None,
        card=card.read_text() if card else None,
        note=note,
    )
    if json:
        print_json(made.document())
        return
    console.print(f"{made.name}: {made.cases:,} cases, {made.bytes / 1e9:,.2f} GB", highlight=False)
    console.print(f"digest {made.digest}", soft_wrap=True, highlight=False)


@snapshot_app.command("list")
@report_errors
def list_command(dataset: DatasetArgument, json: JsonOption = False) -> None:
    """All snapshots, oldest first.

    Example: `ctmr snapshot list runs/demo`
    """
    from ctmr_core.store import list_snapshots, open_storage

    found = list_snapshots(open_storage(dataset))
    if json:
        print_json([{name: value for name, value in one.document().items() if name not in ("card", "recipe")} for one in found])
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for title in ("name", "cases", "GB", "created", "digest", "note"):
        table.add_column(title, justify="right" if title in ("cases", "GB") else "left")
    for one in found:
        cells = (one.name, f"{one.cases:,}", f"{one.bytes / 1e9:,.2f}", one.created[:19], one.digest[:12], one.note)
        table.add_row(*(Text(cell) for cell in cells))
    console.print(table)


@snapshot_app.command()
@report_errors
def show(dataset: DatasetArgument, snapshot: SnapshotArgument, json: JsonOption = False) -> None:
    """The card of a snapshot.

    Example: `ctmr snapshot show runs/demo night-1`
    """
    found = _read(dataset, snapshot)
    if json:
        print_json(found.document())
        return
    console.print(found.card, markup=False, highlight=False, soft_wrap=True)


@snapshot_app.command()
@report_errors
def diff(
    dataset: DatasetArgument,
    before: Annotated[str, typer.Argument(metavar="BEFORE", help="Name or first digits of the digest.")],
    after: Annotated[str, typer.Argument(metavar="AFTER", help="Name or first digits of the digest.")],
    json: JsonOption = False,
) -> None:
    """What came, went and changed between two snapshots: cases, counts per kind, distributions.

    Example: `ctmr snapshot diff runs/demo night-1 night-2`
    """
    from ctmr_core.store import diff_snapshots

    found = diff_snapshots(_read(dataset, before), _read(dataset, after))
    if json:
        print_json({**asdict(found), "same": found.same})
        return
    if found.same:
        console.print("the same cases with the same content")
        return
    counts = f"{len(found.added):,} added, {len(found.removed):,} removed, {len(found.changed):,} changed"
    console.print(Text(counts, "bold"))
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for title in ("", "", "before", "after", "shift"):
        table.add_column(title, justify="left" if not title else "right")
    for what, values in found.strata.items():
        for value, (old, new) in values.items():
            table.add_row(what, Text(value), f"{old:,}", f"{new:,}", "")
    shown = most_moved(found.distributions)
    for name, change in shown.items():
        table.add_row("median", Text(name), _median(change.before), _median(change.after), f"{change.shift:.2f}")
    console.print(table)
    if more := len(found.distributions) - len(shown):
        text = f"{more:,} more scores differ: --json has all, `ctmr quality drift` says what is no chance"
        console.print(Text(text, "dim"), soft_wrap=True)


def most_moved(distributions: Mapping[str, Distribution], most: int = 20) -> dict[str, Distribution]:
    """All numbers but the scores, and of these the ``most`` that moved furthest, those that both snapshots have first."""
    scores = [name for name in distributions if name.startswith(SCORE)]
    both = {name: None not in (distributions[name].before, distributions[name].after) for name in scores}
    ranked = sorted(scores, key=lambda name: (not both[name], -distributions[name].shift, name))
    kept = {*ranked[:most], *(name for name in distributions if name not in both)}
    return {name: change for name, change in distributions.items() if name in kept}


@snapshot_app.command()
@report_errors
def delete(dataset: DatasetArgument, snapshot: SnapshotArgument, json: JsonOption = False) -> None:
    """Forget a snapshot. Volumes stay until the garbage is collected.

    Example: `ctmr snapshot delete runs/demo night-1`
    """
    from ctmr_core.store import delete_snapshot, open_storage

    gone = delete_snapshot(open_storage(dataset), snapshot)
    if json:
        print_json({"deleted": gone.name, "digest": gone.digest})
        return
    console.print(f"deleted {gone.name}", highlight=False)


def _read(dataset: str, snapshot: str) -> Snapshot:
    from ctmr_core.store import open_storage, read_snapshot

    return read_snapshot(open_storage(dataset), snapshot)


def _recipe(path: Path) -> dict[str, Any]:
    from ctmr_core.cases.recipe import load_recipe

    return load_recipe(path).model_dump(mode="json", exclude_none=True)


def _median(quantiles: tuple[float, float, float] | None) -> str:
    return "-" if quantiles is None else f"{quantiles[1]:.4g}"
