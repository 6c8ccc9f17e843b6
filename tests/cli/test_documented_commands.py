"""Commands and files that README, docs and --help name are there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from pipelines.cli.main import app
from tests.conftest import REPOSITORY

FOLDERS = (("docs", "*.md"), ("pipelines/cli", "*.py"))
PAGES = [REPOSITORY / "README.md", *(page for folder, names in FOLDERS for page in sorted((REPOSITORY / folder).glob(names)))]
_FENCE = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`(ctmr [^`]+)`")
_FILE = re.compile(r"\b(?:manifests|benchmarks|infra)/[\w./-]+\.(?:yaml|yml|csv|py|sh|json)\b")


def commands_in(text: str) -> Iterator[str]:
    """Lines that begin with ``ctmr`` in fenced blocks, continued ones whole, and code spans that do."""
    for block in _FENCE.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("ctmr "):
                yield line
    for span in _SPAN.findall(_FENCE.sub("", text)):
        yield " ".join(span.split())


def unknown_in(line: str, root: Any) -> str:
    """What of a command line there is not: a command or an option; "" if all is there."""
    try:
        words = shlex.split(line, comments=True)[1:]
    except ValueError:
        return "quotes"
    command = root
    while words and hasattr(command, "commands") and re.fullmatch(r"[a-z][a-z-]*", words[0]):
        if words[0] not in command.commands:
            return words[0]
        command = command.commands[words.pop(0)]
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)} | {"--help", "-h"}
    options = [word.partition("=")[0] for word in words if re.match(r"--?[a-zA-Z]", word)]
    return next((option for option in options if option not in known), "")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_and_file_that_is_named_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    root = typer.main.get_command(app)
    wrong = {line: what for line in commands_in(text) if (what := unknown_in(line, root))}
    assert not wrong
    assert not [name for name in _FILE.findall(text) if not (REPOSITORY / name).exists()]


def test_a_mistyped_option_or_command_is_found() -> None:
    root = typer.main.get_command(app)
    assert unknown_in("ctmr plan r.yaml --outt m.parquet", root) == "--outt"
    assert unknown_in("ctmr models pul rflow-ct", root) == "pul"
    assert unknown_in("ctmr generate m.parquet --out d   # a remark --nothing", root) == ""
