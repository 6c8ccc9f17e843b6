"""A recipe may name a policy: its checks decide while cases are made, thresholds of a group over those of the policy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ctmr_core.cases.manifest import read_manifest
from ctmr_core.cases.planner import plan
from ctmr_core.cases.recipe import load_recipe
from ctmr_core.errors import RecipeError
from ctmr_core.quality.policy import load_policy
from pipelines.cli.main import app
from pipelines.flows.policies import with_policy

RECIPE = """name: small
policy: {policy}
groups:
  - {{name: a, cases: 2, bodies: {{parametric: head}}, sequences: [mri_t1], size: [32, 32, 32], spacing: [6, 6, 6]}}
  - {{name: b, cases: 1, bodies: {{parametric: head}}, sequences: [ct], size: [32, 32, 32], spacing: [6, 6, 6],
     checks: {{hu_median: {{skull_low: 250}}, overlap: true}}}}
"""
POLICY = "policy: 1\nname: strict\nchecks:\n  hu_median: {skull_low: 300, skull_high: 2000}\n  overlap: false\n"


def written(folder: Path, policy: str = "strict.yaml", text: str = POLICY) -> Path:
    (folder / "strict.yaml").write_text(text)
    recipe = folder / "small.yaml"
    recipe.write_text(RECIPE.format(policy=policy))
    return recipe


def test_checks_of_the_policy_reach_every_case_and_a_group_may_differ(tmp_path):
    out = tmp_path / "m.parquet"
    result = CliRunner().invoke(app, ["plan", str(written(tmp_path)), "--out", str(out)])
    assert result.exit_code == 0, result.output
    checks = [json.loads(text) for text in read_manifest(out).table["checks"].to_pylist()]
    policy = load_policy(tmp_path / "strict.yaml")
    assert checks[:2] == [policy.checks] * 2
    assert checks[2] == {"hu_median": {"skull_low": 250, "skull_high": 2000}, "overlap": True}


def test_a_built_in_policy_is_named(tmp_path):
    resolved = with_policy(load_recipe(written(tmp_path, "maisi")))
    assert resolved.policy is None
    assert resolved.groups[0].checks == load_policy("maisi").checks


def test_another_policy_is_another_recipe(tmp_path):
    recipe = load_recipe(written(tmp_path))
    before = with_policy(recipe).source.digest
    (tmp_path / "strict.yaml").write_text(POLICY.replace("300", "310"))
    assert before != with_policy(recipe).source.digest != recipe.source.digest
    plain = with_policy(recipe)
    assert with_policy(plain) is plain


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (POLICY + "weights: {noise: 0}\n", "weights"),
        (POLICY + "tolerance: 1\n", "tolerance"),
        (POLICY + "segmenters: [{name: n, source: n.ts, mapping: {1: liver}}]\n", "no such segmenter"),
        (POLICY + "colour: red\n", "Extra inputs"),
        (POLICY.replace("skull_low", "skul_low"), "unknown threshold"),
    ],
)
def test_what_a_recipe_can_not_use_is_refused_with_its_line(tmp_path, text, what):
    recipe = load_recipe(written(tmp_path, text=text))
    with pytest.raises(RecipeError, match=what) as error:
        with_policy(recipe)
    assert "small.yaml line 2, field policy" in str(error.value)


def test_a_policy_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="no such policy"):
        with_policy(load_recipe(written(tmp_path, "none.yaml")))


def test_planning_never_passes_over_a_policy(tmp_path):
    with pytest.raises(RecipeError, match="was not resolved"):
        plan(load_recipe(written(tmp_path)))


def test_a_target_for_a_score_of_an_unknown_check_is_refused(tmp_path):
    recipe = written(tmp_path)
    recipe.write_text(recipe.read_text() + "targets: {numbers: {score/hu_medan/ct/liver: {low: 1}}}\n")
    with pytest.raises(RecipeError, match="did you mean 'hu_median'") as error:
        with_policy(load_recipe(recipe))
    assert "field targets.numbers.score/hu_medan/ct/liver" in str(error.value)
