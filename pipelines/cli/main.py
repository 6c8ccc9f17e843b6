"""``ctmr``: the command line of the factory."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from importlib import import_module
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from pipelines.cli.console import console

#: Command -> where it is. A module is imported when its command is called: ``ctmr status`` needs no planner and no network.
COMMANDS = {
    "demo": "demo:demo",
    "plan": "planning:plan",
    "validate": "planning:validate",
    "generate": "generate:generate",
    "status": "status:status",
    "verify": "dataset:verify",
    "report": "dataset:report",
    "replay": "replay:replay",
    "release": "status:release",
    "gc": "gc:gc",
    "card": "card:card",
    "curate": "curate:curate",
    "export": "exchange:export",
    "import": "exchange:import_pairs",
    "snapshot": "snapshot:snapshot_app",
    "quality": "quality:quality_app",
    "templates": "synthesize:templates_app",
    "models": "models:models_app",
    "schedule": "schedule:schedule_app",
    "train": "train:train_app",
    "segment": "segment:segment",
}
_STYLE: dict[str, Any] = {
    "no_args_is_help": True,
    "rich_markup_mode": "markdown",
    "pretty_exceptions_enable": False,
    "context_settings": {"help_option_names": ["-h", "--help"]},
}


class _OnDemand(MutableMapping[str, Any]):
    """Name -> command of :data:`COMMANDS`, imported when asked for, and what is added besides."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._made:
            self._made[name] = _made(name, COMMANDS[name])
        return self._made[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._made[name] = command

    def __delitem__(self, name: str) -> None:
        del self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter({**COMMANDS, **self._made})

    def __len__(self) -> int:
        return len({**COMMANDS, **self._made})


class _Group(TyperGroup):
    """Commands imported when they are called; all of them for ``--help``."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = _OnDemand()

    def list_commands(self, ctx: Any) -> list[str]:
        del ctx
        return list(self.commands)


app = typer.Typer(
    name="ctmr",
    cls=_Group,
    help="Make labelled synthetic CT and MR volumes: recipe -> manifest -> dataset.",
    epilog="Begin with `ctmr demo`. Every command has --help with an example.",
    **_STYLE,
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


def _made(name: str, place: str) -> Any:
    """The command or group of commands at ``<module of pipelines.cli>:<name in it>``, as :data:`app` would make it."""
    module, _, attribute = place.partition(":")
    target = getattr(import_module(f"pipelines.cli.{module}"), attribute)
    holder = typer.Typer(**_STYLE)
    holder.callback()(lambda: None)  # a group even with one command
    if isinstance(target, typer.Typer):
        holder.add_typer(target, name=name)
    else:
        holder.command(name)(target)
    return typer.main.get_group(holder).commands[name]


def main() -> None:
    """Entry point of the ``ctmr`` script."""
    app()
