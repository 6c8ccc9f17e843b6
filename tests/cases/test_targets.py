"""What a recipe wants of its finished set: checked when it is read, carried in the manifest, and nothing to recipes without."""

from __future__ import annotations

import json

import pytest

from ctmr_core.cases.manifest import read_manifest
from ctmr_core.cases.planner import plan
from ctmr_core.cases.recipe import parse_recipe, recipe_from_source
from ctmr_core.cases.recipe_source import parse_source
from ctmr_core.cases.targets import Targets
from ctmr_core.errors import RecipeError

RECIPE = """name: wanted
splits: {train: 0.5, test: 0.5}
groups:
  - {name: a, cases: 4, bodies: {parametric: torso}, sequences: {choose: [[ct], [mri_t1]]}, size: [32, 32, 32],
     spacing: [6, 6, 6], lesions: {choose: [{label: hepatic tumor, diameter: 20}], probability: 0.5}}
"""
TARGETS = """targets:
  tolerance: 0.1
  shares: {sequence: {ct: 1, mri_t1: 1}, region: {chest: 1, abdomen: 2}, lesion: {none: 0.5, hepatic tumor: 0.5}}
  numbers:
    volume_ml/liver: {low: 800, high: 2600}
    spacing_z_mm: {quantiles: {5: 1.0, 95: 6.0}}
    score/hu_median/ct/liver: {mean: 55, sd: 12}
"""


def recipe(targets: str):
    return recipe_from_source(parse_source(RECIPE + targets, "wanted.yaml"))


def test_targets_of_a_recipe_go_along_in_the_manifest_and_change_no_case(tmp_path):
    with_targets, without = plan(recipe(TARGETS)), plan(recipe(""))
    with_targets.write(tmp_path / "m.parquet")
    carried = Targets.model_validate_json(read_manifest(tmp_path / "m.parquet").metadata["targets"])
    assert carried == recipe(TARGETS).targets
    assert carried.numbers["spacing_z_mm"].quantiles == {5.0: 1.0, 95.0: 6.0}
    assert with_targets.case_keys() == without.case_keys()
    assert "targets" not in without.metadata
    assert recipe(TARGETS).scaled_to(2).targets == carried


@pytest.mark.parametrize(
    ("targets", "where", "words"),
    [
        ("{shares: {colour: {red: 1}}}", "targets.shares.colour", "unknown category"),
        ("{shares: {sequnce: {ct: 1}}}", "targets.shares.sequnce", "did you mean 'sequence'"),
        ("{shares: {sequence: {mri_t11: 1}}}", "targets.shares.sequence.mri_t11", "did you mean 'mri_t1'"),
        ("{shares: {region: {abdomn: 1}}}", "targets.shares.region.abdomn", "did you mean 'abdomen'"),
        ("{shares: {sequence: {mri_t2: 1}}}", "targets.shares.sequence.mri_t2", "no group makes what the targets want"),
        ("{shares: {split: {val: 1}}}", "targets.shares.split.val", "no group makes what the targets want"),
        ("{shares: {lesion: {bone lesion: 1}}}", "targets.shares.lesion.bone lesion", "no group makes"),
        ("{shares: {split: {train: 0}}}", "targets.shares", "all 0"),
        ("{numbers: {volume_ml/livre: {low: 1}}}", "targets.numbers.volume_ml/livre", "did you mean 'liver'"),
        ("{numbers: {spacing_mm: {low: 1}}}", "targets.numbers.spacing_mm", "did you mean 'spacing_"),
        ("{numbers: {labels: {low: 3, high: 1}}}", "targets.numbers.labels", "low is above high"),
        ("{numbers: {labels: {lo: 3}}}", "targets.numbers.labels.lo", "did you mean 'low'"),
        ("{tolerance: 2}", "targets.tolerance", "less than or equal to 1"),
    ],
)
def test_targets_that_can_not_be_are_refused_with_their_line(targets, where, words):
    with pytest.raises(RecipeError) as refused:
        recipe(f"targets: {targets}\n")
    assert f"wanted.yaml line 6, field {where}" in str(refused.value)
    assert words in str(refused.value)


def test_a_recipe_given_as_data_may_have_targets():
    data = {"name": "x", "groups": [{"name": "a", "cases": 1, "bodies": {"parametric": "head"}, "sequences": ["ct"],
                                     "size": [32, 32, 32], "spacing": [6, 6, 6]}]}  # fmt: skip
    found = parse_recipe({**data, "targets": {"numbers": {"labels": {"low": 10}}}})
    assert json.loads(found.targets.model_dump_json(exclude_none=True))["numbers"] == {
        "labels": {"low": 10.0, "share": 0.95, "distance": 0.25}
    }
