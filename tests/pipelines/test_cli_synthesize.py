"""Parametric bodies as templates."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from ctmr_core.anatomy.templates.library import TemplateLibrary
from pipelines.cli.main import app


def synthesize(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["templates", "synthesize", *arguments])
    return result.exit_code, result.output


def test_people_become_templates_that_differ(tmp_path: Path) -> None:
    grid = ["--size", "40", "48", "40", "--spacing", "5", "5", "5"]
    code, output = synthesize("head", "--count", "2", *grid, "--library", str(tmp_path / "lib"))
    assert code == 0, output
    library = TemplateLibrary.open(tmp_path / "lib")
    assert library.ids() == ["head-0", "head-1"] or library.ids() == ("head-0", "head-1")
    assert library.row("head-0").vocabulary == "brain"
    assert library.row("head-0").digest != library.row("head-1").digest
    assert library.row("head-0").licence == "Apache-2.0"


def test_an_unknown_body_is_refused(tmp_path: Path) -> None:
    code, output = synthesize("foot", "--library", str(tmp_path / "lib"))
    assert code == 1
    assert "torso, head" in output
