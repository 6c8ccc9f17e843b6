"""``ctmr plan`` and ``ctmr validate``: results, JSON, exit codes and messages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from ctmr_core.cases.manifest import read_manifest
from pipelines.cli.planning import plan, validate

MANIFESTS = Path(__file__).resolve().parents[2] / "manifests"

app = typer.Typer()
app.command()(plan)
app.command()(validate)
runner = CliRunner()


def run(*arguments: object, code: int = 0):
    result = runner.invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result


@pytest.mark.parametrize("name", ["quick.yaml", "demo.yaml"])
def test_shipped_recipes_are_planned_and_valid(tmp_path, name):
    out = tmp_path / "m.parquet"
    assert "cases planned" in run("plan", MANIFESTS / name, "--out", out).output
    manifest = read_manifest(out)
    assert all(case.engine_identity.startswith("tissue/") for case in manifest.iter_cases())
    assert f"{manifest.rows} cases, valid" in run("validate", out).output.replace("\n", " ")
    run("validate", MANIFESTS / name)


def test_the_hand_written_examples_are_valid():
    assert "5 cases, valid" in run("validate", MANIFESTS / "examples.csv").output


def test_json_is_one_document(tmp_path):
    planned = json.loads(run("plan", MANIFESTS / "quick.yaml", "--out", tmp_path / "m.parquet", "--json").stdout)
    assert planned["cases"] == 8
    assert planned["manifest"] == str(tmp_path / "m.parquet")
    validated = json.loads(run("validate", tmp_path / "m.parquet", "--json").stdout)
    assert validated["groups"] == {"head-mr": 4, "torso-ct": 4}
    assert validated["skipped"] == []


def test_mistakes_fail_with_their_place_and_without_a_traceback(tmp_path):
    recipe = tmp_path / "bad.yaml"
    recipe.write_text((MANIFESTS / "quick.yaml").read_text().replace("center: abdomen", "centre: abdomen"))
    result = run("plan", recipe, "--out", tmp_path / "m.parquet", code=1)
    assert "field groups[0].centre: unknown key" in result.output
    assert "did you mean 'center'?" in result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / "m.parquet").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("mri_flair,", "mri_mra,"), ["mri_mra"]),
        (("left white matter lesion", "hepatic tumor"), ["brain-lesion", "cannot have this lesion"]),
        ((",head,,\nbrain-lesion", ",liver,,\nbrain-lesion"), ["brain-healthy", "liver"]),
        (("hepatic tumor:20,", 'hepatic tumor:20,"{""ct"": {""kernle"": 3}}"'), ["kernle"]),
    ],
)
def test_a_manifest_that_no_engine_can_render_is_refused(tmp_path, change, words):
    text = (MANIFESTS / "examples.csv").read_text()
    assert change[0] in text
    path = tmp_path / "m.csv"
    path.write_text(text.replace(*change))
    output = run("validate", path, code=1).output
    for word in words:
        assert word in output


def test_settings_of_checks_are_validated(tmp_path):
    recipe = tmp_path / "bad.yaml"
    recipe.write_text((MANIFESTS / "quick.yaml").read_text().replace("center: abdomen", "checks: {hu_medain: false}"))
    assert "did you mean 'hu_median'?" in run("validate", recipe, code=1).output


def test_bad_rows_can_be_skipped(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text((MANIFESTS / "examples.csv").read_text() + "bad,parametric:torso,,,ct,1x1x1,1x1x1,,,\n")
    assert "line 8" in run("validate", path, code=1).output
    assert "5 cases, valid" in run("validate", path, "--skip-invalid").output
    skipped = json.loads(run("validate", path, "--skip-invalid", "--json").stdout)["skipped"]
    assert [error["error"] for error in skipped] == ["ManifestError"]


def test_usage_errors_exit_with_2(tmp_path):
    run("plan", MANIFESTS / "quick.yaml", code=2)
    run("plan", code=2)
    run("validate", "--nonsense", code=2)


def test_missing_files_are_named(tmp_path):
    assert "no such recipe" in run("validate", tmp_path / "absent.yaml", code=1).output
    assert "no such manifest" in run("validate", tmp_path / "absent.csv", code=1).output
    assert "unknown kind of manifest" in run("validate", tmp_path / "absent.txt", code=1).output
