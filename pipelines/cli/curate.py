"""``ctmr curate``: choose the cases of a training set and keep them as a snapshot."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from pipelines.cli.console import console, print_json, report_errors
from pipelines.cli.options import DatasetArgument, JsonOption
from pipelines.cli.quality import PolicyOption


@report_errors
def curate(
    dataset: DatasetArgument,
    policy: PolicyOption,
    snapshot: Annotated[str, typer.Option("--snapshot", help="Name of the snapshot to make.", show_default=False)],
    where: Annotated[str, typer.Option(help="Condition on catalog columns and scores.", show_default=False)] = "",
    sequence: Annotated[list[str] | None, typer.Option(help="Cases with this sequence; may be repeated: with all.")] = None,
    region: Annotated[list[str] | None, typer.Option(help="Cases centred there; may be repeated: any of them.")] = None,
    split: Annotated[list[str] | None, typer.Option(help="Cases of this split; may be repeated: any of them.")] = None,
    min_score: Annotated[float, typer.Option(min=0, max=1, help="Least score of the verdict.")] = 0.0,
    balance: Annotated[
        list[str] | None,
        typer.Option(help="Equally many of each: sequences, center, lesions, spacing, split, body, engine; may be repeated."),
    ] = None,
    per_stratum: Annotated[
        int | None, typer.Option(min=1, help="At most so many of each; default: as many as the rarest has.")
    ] = None,
    drop_duplicates: Annotated[
        str, typer.Option(help="Pairs that are alike: `auto` for those found by `ctmr quality set`, or a Parquet file.")
    ] = "",
    json: JsonOption = False,
) -> None:
    """Keep the cases that a policy accepts, and that are asked for, as a snapshot. The same request gives the same cases.

    Judge the dataset first: `ctmr quality run`.

    Example: `ctmr curate runs/demo --policy default --where "scores['overlap/ct/dice'] > 0.95" --balance sequences --snapshot v1`
    """
    from ctmr_core.assessment.curation import Selection, snapshot_curated
    from ctmr_core.assessment.curation import curate as choose
    from ctmr_core.quality.policy import load_policy
    from ctmr_core.store import Dataset

    rules = load_policy(policy)
    opened = Dataset.open(dataset)
    selection = Selection(
        where=where,
        sequences=tuple(sequence or ()),
        regions=tuple(region or ()),
        splits=tuple(split or ()),
        min_score=min_score,
        balance=tuple(balance or ()),
        per_stratum=per_stratum,
        duplicates=drop_duplicates,
    )
    chosen = choose(opened, rules, selection)
    made = snapshot_curated(opened, rules, selection, chosen, snapshot)
    if json:
        print_json({**chosen.as_dict(), "snapshot": made.name, "digest": made.digest, "policy": made.policy})
        return
    console.print(f"{made.name}: {made.cases:,} cases, {made.bytes / 1e9:,.2f} GB, digest {made.digest[:12]}", highlight=False)
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for why, count in chosen.left_out.items():
        table.add_row("left out", Text(why), f"{count:,}")
    for name, count in chosen.strata.items():
        table.add_row("taken", Text(name), f"{count:,}")
    console.print(table)
