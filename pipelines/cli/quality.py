"""``ctmr quality run | calibrate | policies``: judge a finished dataset under a policy, and make policies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from pipelines.cli.console import EXIT_FAILED, console, error_console, print_json, report_errors
from pipelines.cli.options import DatasetArgument, JsonOption
from pipelines.cli.quality_set import drift_command, set_command

if TYPE_CHECKING:
    from ctmr_core.assessment.calibration import Scores
    from ctmr_core.assessment.judging import Judgement

quality_app = typer.Typer(
    name="quality",
    help="Judge finished datasets: verdicts under other policies, thresholds learned from real scans.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
quality_app.command("set")(set_command)
quality_app.command("drift")(drift_command)

PolicyOption = Annotated[
    str, typer.Option("--policy", "-p", help="A policy (.yaml), or the name of a built-in one.", show_default=False)
]


@quality_app.command()
@report_errors
def run(
    dataset: DatasetArgument,
    policy: PolicyOption,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    snapshot: Annotated[str | None, typer.Option(help="Only the cases of this snapshot.", show_default=False)] = None,
    json: JsonOption = False,
) -> None:
    """Judge every committed case of DATASET again, from its stored scores.

    Voxels are read only for checks that were never run on a case, or in another version. Verdicts are kept in the dataset, below
    `quality/`; nothing committed is changed. Exit code 1 when voxels of a case can't be read.

    Example: `ctmr quality run runs/demo --policy strict.yaml --workers 4`
    """
    from ctmr_core.assessment.judging import rejudge
    from ctmr_core.quality.policy import load_policy
    from ctmr_core.store import Dataset

    rules = load_policy(policy)
    opened = Dataset.open(dataset, snapshot)
    with Progress(console=error_console, transient=True, disable=json) as bar:
        task = bar.add_task("judging", total=None)
        found = rejudge(opened, rules, workers, lambda done, total: bar.update(task, completed=done, total=total))
    if json:
        print_json(found.as_dict())
    else:
        _print_judgement(found)
    if found.unreadable:
        raise typer.Exit(EXIT_FAILED)


@quality_app.command()
@report_errors
def calibrate(
    real: Annotated[
        list[str], typer.Argument(metavar="REAL...", help="IMAGE LABELS pairs of files, datasets, and template libraries.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Policy to write, ends in .yaml.", show_default=False)],
    mapping: Annotated[str, typer.Option(help="Ids of the label maps: a built-in mapping or a file.")] = "maisi",
    sequence: Annotated[str, typer.Option(help="What the images are.")] = "ct",
    percentiles: Annotated[tuple[float, float], typer.Option(help="Limits hold at least these percentiles.")] = (0.5, 99.5),
    sigmas: Annotated[float, typer.Option(min=0, help="And at least so many robust sigma around the median.")] = 6.0,
    fewest: Annotated[int, typer.Option(min=1, help="Fewest values to learn a threshold from; others keep their default.")] = 10,
    name: Annotated[str, typer.Option(help="Name of the policy.")] = "calibrated",
    json: JsonOption = False,
) -> None:
    """Learn thresholds from real scans, and write them as a policy.

    Of a dataset with imported scans only these count. Template libraries teach the thresholds of anatomy.

    Example: `ctmr quality calibrate ct-1.nii.gz labels-1.nii.gz ct-2.nii.gz labels-2.nii.gz --mapping totalsegmentator_v2
    --out ours.yaml`
    """
    from ctmr_core.anatomy.sequences import MODALITY_CODES
    from ctmr_core.assessment.calibration import calibrate as learn
    from ctmr_core.errors import CheckError
    from ctmr_core.quality.policy import write_policy

    if sequence not in MODALITY_CODES:
        raise CheckError("unknown sequence", where="--sequence", found=sequence, allowed=MODALITY_CODES)
    datasets, libraries, pairs = _sorted_out(real)
    origin = ", ".join([*datasets, *libraries, *([f"{len(pairs)} scans of {sequence}"] if pairs else [])])
    volumes = _volumes(datasets, libraries, pairs, mapping, sequence)
    learned = learn(volumes, percentiles, sigmas, fewest, name, origin)
    write_policy(learned.policy, out)
    if json:
        print_json(
            {"policy": str(out), "volumes": learned.volumes, "learned": learned.observations, "kept_defaults": learned.kept}
        )
        return
    console.print(f"{out}: {len(learned.observations)} thresholds from {learned.volumes:,} volumes", highlight=False)
    if learned.kept:
        console.print(f"defaults kept, fewer than {fewest} values: {', '.join(learned.kept)}", style="dim", highlight=False)


@quality_app.command()
@report_errors
def policies(
    dataset: Annotated[str | None, typer.Argument(metavar="[DATASET]", help="Also those this dataset was judged under.")] = None,
    json: JsonOption = False,
) -> None:
    """The policies that come with the project, and those a dataset was judged under.

    Example: `ctmr quality policies runs/demo`
    """
    from ctmr_core.assessment.verdicts import policies_applied, read_verdicts, share_accepted
    from ctmr_core.quality.policy import built_in_policies, document_of, load_policy
    from ctmr_core.store import Dataset

    rows = [{"place": "built in", **document_of(load_policy(name))} for name in built_in_policies()]
    if dataset is not None:
        opened = Dataset.open(dataset)
        for document in policies_applied(opened.storage):
            verdicts = read_verdicts(opened, document["digest"])
            judged = {"cases": verdicts.num_rows, "accepted_share": share_accepted(verdicts)}
            rows.append({"place": "dataset", **document, **judged})
    if json:
        print_json(rows)
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for title in ("policy", "where", "digest", "judged", "accepted", "description"):
        table.add_column(title, justify="right" if title in ("judged", "accepted") else "left")
    for row in rows:
        judged_text = (f"{row['cases']:,}", f"{row['accepted_share']:.1%}") if "cases" in row else ("", "")
        cells = (row["policy"]["name"], row["place"], row["digest"][:16], *judged_text, row["policy"]["description"])
        table.add_row(*(Text(cell) for cell in cells))
    console.print(table)


def _print_judgement(found: Judgement) -> None:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_row("policy", Text(f"{found.policy}, digest {found.digest[:16]}"))
    table.add_row("cases", f"{found.cases:,} with voxels: {found.kept:,} accepted, {found.cases - found.kept:,} not")
    if found.without_voxels:
        table.add_row("", f"{found.without_voxels:,} without: {found.would_pass:,} would be accepted, and have to be made again")
    table.add_row("voxels", f"read of {found.measured:,} cases" if found.measured else "none read")
    if found.reasons:
        table.add_row("fails", ", ".join(f"{check} {count:,}" for check, count in found.reasons.items()))
    table.add_row("verdicts", Text(found.verdicts))
    console.print(table)
    for line in found.unreadable[:10]:
        console.print(Text(f"voxels can't be read: {line}", "yellow"), soft_wrap=True)


def _sorted_out(real: list[str]) -> tuple[list[str], list[str], list[tuple[str, str]]]:
    """Datasets, template libraries, and pairs of image and label map."""
    from ctmr_core.anatomy.templates.library import INDEX
    from ctmr_core.errors import CheckError
    from ctmr_core.store.layout import DATASET

    datasets = [place for place in real if place.startswith("s3://") or (Path(place) / DATASET).is_file()]
    libraries = [place for place in real if (Path(place) / INDEX).is_file()]
    files = [place for place in real if place not in datasets and place not in libraries]
    if len(files) % 2:
        raise CheckError("images come with their label maps", where="REAL", found=files, allowed="IMAGE LABELS IMAGE LABELS ...")
    return datasets, libraries, list(zip(files[::2], files[1::2], strict=True))


def _volumes(
    datasets: Iterable[str], libraries: Iterable[str], pairs: Iterable[tuple[str, str]], mapping: str, sequence: str
) -> Iterator[Scores]:
    from ctmr_core.anatomy.templates.library import TemplateLibrary
    from ctmr_core.assessment.calibration_sources import scores_of_dataset, scores_of_library, scores_of_scan
    from ctmr_core.store import Dataset

    for place in datasets:
        yield from scores_of_dataset(Dataset.open(place))
    for place in libraries:
        yield from scores_of_library(TemplateLibrary.open(place))
    for image, labels in pairs:
        yield scores_of_scan(image, labels, mapping, sequence)
