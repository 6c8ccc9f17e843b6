"""``ctmr train``: train networks on a dataset."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from pipelines.cli.console import EXIT_FAILED, console, print_json, report_errors
from pipelines.cli.live import duration
from pipelines.cli.options import JsonOption
from pipelines.cli.segment import checkpoint_of
from pipelines.cli.train_export import export
from pipelines.cli.train_maisi import autoencoder, controlnet, diffusion, latents
from pipelines.factory.logs import LogFormat

if TYPE_CHECKING:
    from rich.console import Console

    from pipelines.flows.train_options import TrainOptions, TrainOutcome

train_app = typer.Typer(
    help="Train networks on a dataset: segmentation, and the parts of the MAISI engines.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


@train_app.callback()
def _group() -> None:
    """Train networks on a dataset."""


for maisi_command in (latents, autoencoder, diffusion, controlnet):
    train_app.command()(maisi_command)


@train_app.command()
@report_errors
def segmentation(
    config: Annotated[Path, typer.Argument(help="The training in YAML.", exists=True, dir_okay=False, show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="The run folder; the training in it is resumed.", show_default=False)],
    snapshot: Annotated[
        str | None, typer.Option(help="Snapshot to train on, or `newest`, where the configuration names none.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that train together; above 1 on Ray.")] = 1,
    address: Annotated[
        str | None, typer.Option(envvar="CTMR_RAY_ADDRESS", help="Address of a running Ray cluster, or `auto`.")
    ] = None,
    local: Annotated[bool, typer.Option("--local", help="Train in this process, without Ray.")] = False,
    resume: Annotated[bool, typer.Option("--resume/--fresh", help="Go on with the training in the folder, or refuse it.")] = True,
    weights: Annotated[
        Path | None, typer.Option(help="File to start from, for example a checkpoint.", exists=True, dir_okay=False)
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Instead of the configuration's.")] = None,
    minutes: Annotated[float | None, typer.Option(min=0.01, help="End after so many minutes of training.")] = None,
    device: Annotated[str | None, typer.Option(help="`auto`, `cpu` or `cuda`, instead of the configuration's.")] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads per worker; default: an even share of the cores.")
    ] = None,
    max_failures: Annotated[int, typer.Option(min=0, help="Losses of workers after which the run fails.")] = 3,
    log_format: Annotated[
        LogFormat | None, typer.Option(envvar="CTMR_LOG_FORMAT", help="Of what this process and the workers log.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Train a segmentation network as CONFIG says, and score it on whole volumes.

    Ctrl-C: a checkpoint is written and the command ends; the same command goes on from there. So it does after a crash.
    Exit code 1 when the training failed or was stopped.

    Example: `ctmr train segmentation manifests/training/segmentation.yaml --out runs/torso --workers 2`
    """
    from pipelines.flows.train_options import TrainOptions

    if device not in (None, "auto", "cpu", "cuda"):
        raise typer.BadParameter("it is one of auto, cpu, cuda", param_hint="--device")
    if local and workers > 1:
        raise typer.BadParameter("one process trains with --local", param_hint="--workers")
    from ctmr_core.learning.segmentation.config import load_segmentation_config

    load_segmentation_config(config)  # what is wrong in it is told before the seconds that importing the flow takes
    options = TrainOptions(
        config=str(config),
        folder=str(out),
        snapshot=snapshot,
        workers=workers,
        address=address,
        local=local,
        threads=threads,
        device=device,  # type: ignore[arg-type]
        weights=None if weights is None else str(weights.absolute()),
        resume=resume,
        steps=steps,
        minutes=minutes,
        max_failures=max_failures,
        log_format=log_format,
    )
    outcome = _run(options, quiet=as_json)
    if as_json:
        print_json(outcome.model_dump())
    else:
        print_outcome(outcome, console)
    if not outcome.complete:
        raise typer.Exit(EXIT_FAILED)


@train_app.command()
@report_errors
def validate(
    run: Annotated[Path, typer.Argument(help="A run folder: its best checkpoint; or a checkpoint.", show_default=False)],
    config: Annotated[
        Path | None, typer.Argument(help="YAML whose `validation` is scored; default: the training's own.", dir_okay=False)
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for the tables: Parquet, CSV, Markdown.")] = None,
    last: Annotated[bool, typer.Option("--last", help="The last checkpoint, not the best.")] = False,
    device: Annotated[str, typer.Option(help="`auto`, `cpu` or `cuda`.")] = "auto",
    as_json: JsonOption = False,
) -> None:
    """Score a trained segmentation network on whole volumes: Dice and HD95 by class.

    Example: `ctmr train validate runs/torso manifests/training/segmentation.yaml --out runs/torso/test`
    """
    from ctmr_core.errors import LearningError
    from ctmr_core.learning.segmentation.config import load_segmentation_config
    from ctmr_core.learning.segmentation.evaluation import score_volumes
    from ctmr_core.learning.segmentation.predict import load_segmenter
    from ctmr_core.learning.segmentation.scores import class_table, score_frame, write_scores
    from ctmr_core.learning.segmentation.validation import validation_sets

    segmenter = load_segmenter(checkpoint_of(run, "last" if last else "best"), device)
    mine = segmenter.config
    if config is not None:
        mine = mine.model_copy(update={"validation": load_segmentation_config(config).validation})
    sets = validation_sets(mine)
    if not sum(map(len, sets)):
        raise LearningError(
            "there is nothing to score it on", where=str(config or run), allowed="a configuration with `validation`"
        )
    frame = score_frame(score_volumes(segmenter, sets, None if as_json else _say_volume))
    if out is not None:
        write_scores(frame, out, "scores")
    rows = [{name: _text(value) for name, value in row.items()} for row in class_table(frame).to_dict("records")]
    if as_json:
        print_json(rows)
    else:
        console.print(score_table(rows))


train_app.command()(export)


def _say_volume(dataset: str, name: str) -> None:
    console.print(Text(f"{dataset}: {name}", "dim"), soft_wrap=True)


def _text(value: object) -> str:
    """A cell as CSV files have it: nothing for NaN."""
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.4f}"
    return str(value)


def _run(options: TrainOptions, *, quiet: bool) -> TrainOutcome:
    """Train with the live picture (none when ``quiet``)."""
    if not quiet:
        console.print(Text("Starting ...", "dim"))
    from pipelines.cli.train_live import LiveTraining
    from pipelines.flows.train_segmentation import run_train_segmentation  # PyTorch, MONAI and Prefect take seconds to import

    if quiet:
        return run_train_segmentation(options)
    with LiveTraining(console) as live:
        return run_train_segmentation(options, live)


def print_outcome(outcome: TrainOutcome, to: Console) -> None:
    """How a training ended: its scores by class, and where everything is."""
    if outcome.table:
        to.print(score_table(outcome.table))
    facts = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    facts.add_row("training", Text(outcome.folder, "bold"))
    facts.add_row("steps", f"{outcome.step} of {outcome.steps}, {outcome.reason}, {duration(outcome.seconds)}")
    if outcome.score is not None:
        facts.add_row("best", f"{outcome.best_by} {outcome.score:.4f} at step {outcome.best_step}: {outcome.best}")
    if outcome.last is not None:
        facts.add_row("last", Text(outcome.last))
    if outcome.tensorboard is not None:
        facts.add_row("curves", Text(f"tensorboard --logdir {outcome.tensorboard}"))
    to.print(facts)
    if outcome.tracking_lost:
        to.print(Text(outcome.tracking_lost, "yellow"), soft_wrap=True)
    if not outcome.complete:
        to.print(Text("Stopped before the end, with a checkpoint. Run the same command again to go on.", "bold yellow"))


def score_table(rows: Sequence[Mapping[str, str]]) -> Table:
    """Dice and HD95 by validation set and class; the rows as ``segmentation.scores.class_table`` has them, as text."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("set")
    table.add_column("class")
    for heading in ("cases", "Dice mean", "median", "HD95 mm mean", "median", "missed", "false ml"):
        table.add_column(heading, justify="right")
    for row in rows:
        dice = [_number(row[name], 3) for name in ("dice_mean", "dice_median")]
        hd95 = [_number(row[name], 1) for name in ("hd95_mean", "hd95_median")]
        table.add_row(row["dataset"], row["class"], row["cases"], *dice, *hd95, row["missed"], _number(row["false_ml"], 1))
    return table


def _number(text: str, digits: int) -> str:
    return f"{float(text):.{digits}f}" if text else "-"
