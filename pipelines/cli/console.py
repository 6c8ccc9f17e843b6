"""How the command line speaks: one console, one way to print errors, one way to print JSON."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import typer
from rich.console import Console
from rich.text import Text

from ctmr_core.errors import CtmrError

P = ParamSpec("P")
R = TypeVar("R")

console = Console()
error_console = Console(stderr=True)

EXIT_FAILED = 1
EXIT_USAGE = 2


def print_json(value: Any) -> None:
    """One JSON document on stdout, nothing else: what ``--json`` promises."""
    sys.stdout.write(json.dumps(value, indent=2, sort_keys=True, default=str) + "\n")


def report_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Turn a ``CtmrError`` of a command into its text on stderr and exit code 1, without a traceback."""

    @functools.wraps(command)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except CtmrError as error:
            error_console.print(Text.assemble(("error: ", "bold red"), str(error)), soft_wrap=True)
            raise typer.Exit(EXIT_FAILED) from error

    return guarded
