"""``ctmr``: the command line of the factory."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from pipelines.cli.card import card
from pipelines.cli.console import console
from pipelines.cli.curate import curate
from pipelines.cli.dataset import report, verify
from pipelines.cli.demo import demo
from pipelines.cli.exchange import export, import_pairs
from pipelines.cli.gc import gc
from pipelines.cli.generate import generate
from pipelines.cli.models import models_app
from pipelines.cli.planning import plan, validate
from pipelines.cli.quality import quality_app
from pipelines.cli.replay import replay
from pipelines.cli.schedule import schedule_app
from pipelines.cli.snapshot import snapshot_app
from pipelines.cli.status import release, status
from pipelines.cli.synthesize import templates_app
from pipelines.cli.train import train_app

app = typer.Typer(
    name="ctmr",
    help="Make labelled synthetic CT and MR volumes: recipe -> manifest -> dataset.",
    epilog="Begin with `ctmr demo`. Every command has --help with an example.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        console.print(f"ctmr-factory {version('ctmr-factory')}")
        raise typer.Exit


@app.callback()
def _options(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    del show_version


for command in (demo, plan, validate, generate, status, verify, report, replay, release, gc, card, curate):
    app.command()(command)
app.command()(export)
app.command("import")(import_pairs)
app.add_typer(snapshot_app, name="snapshot")
app.add_typer(quality_app, name="quality")
app.add_typer(templates_app, name="templates")
app.add_typer(models_app, name="models")
app.add_typer(schedule_app, name="schedule")
app.add_typer(train_app, name="train")


def main() -> None:
    """Entry point of the ``ctmr`` script."""
    app()
