"""Recipes: what is accepted, and what the refusals say."""

from __future__ import annotations

from pathlib import Path

import pytest

from ctmr_core.cases.recipe import load_recipe, parse_recipe
from ctmr_core.errors import RecipeError

MANIFESTS = Path(__file__).resolve().parents[2] / "manifests"


def refusal(path: Path, text: str) -> RecipeError:
    path.write_text(text)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    return caught.value


def test_a_recipe_is_read_with_its_distributions(recipe_path):
    recipe = load_recipe(recipe_path)
    assert recipe.cases == 20
    torso, head = recipe.groups
    assert torso.sequences.options == (("ct",), ("ct_contrast",))
    assert torso.engine_parameters["ct"]["dose"].limits == (0.5, 1.0)
    assert torso.engine_parameters["ct"]["fixed"] == 3
    assert head.spacing.limits == ((1.0, 1.0, 1.0), (2.0, 2.0, 2.0))
    assert head.lesions.most == 1


@pytest.mark.parametrize("name", ["quick.yaml", "demo.yaml", "real_templates.yaml"])
def test_shipped_recipes_are_valid(name):
    assert load_recipe(MANIFESTS / name).cases > 0


@pytest.mark.parametrize(
    ("old", "new", "line", "field", "words"),
    [
        ("sequences: {choose", "sequnces: {choose", 8, "groups[0].sequnces", ["did you mean 'sequences'", "cases_per_body"]),
        ("size: [64, 64, 64]", "size: [64, 64, 8]", 10, "groups[0].size[2]", ["8", "greater than or equal to 16"]),
        ("size: [64, 64, 64]", "size: [64, 64]", 10, "groups[0].size", ["[64, 64]", "x, y and z"]),
        (
            "cases: 10\n    bodies: {parametric: torso",
            "cases: ten\n    bodies: {parametric: torso",
            6,
            "groups[0].cases",
            ["'ten'"],
        ),
        (
            "cases: 10\n    bodies: {parametric: torso",
            "cases: 2.5\n    bodies: {parametric: torso",
            6,
            "groups[0].cases",
            ["integer"],
        ),
        (
            "cases: 10\n    bodies: {parametric: torso",
            "cases: true\n    bodies: {parametric: torso",
            6,
            "groups[0].cases",
            ["True"],
        ),
        ("[2, 2, 3]]}", "[2, 2, 30]]}", 9, "groups[0].spacing", ["30", "0.2..10 mm"]),
        (
            "[ct_contrast]], weights: [3, 1]",
            "[ct_contrst]]",
            8,
            "groups[0].sequences",
            ["ct_contrst", "did you mean ct_contrast"],
        ),
        ("weights: [3, 1]", "weights: [3]", 8, "groups[0].sequences", ["1 weights for 2 choices"]),
        ("weights: [3, 1]", "weights: [0, 0]", 8, "groups[0].sequences", ["all 0"]),
        ("weights: [3, 1]", "weigths: [3, 1]", 8, "groups[0].sequences.weigths", ["did you mean 'weights'"]),
        ("{parametric: torso}", "{parametric: torzo}", 7, "groups[0].bodies.parametric", ["did you mean 'torso'"]),
        ("{parametric: torso}", "{}", 7, "groups[0].bodies", ["either parametric, templates, generated or unlabelled"]),
        ("{uniform: [10, 40]}", "{uniform: [40, 10]}", 12, "groups[0].lesions.choose[0].diameter.uniform", ["40", "low <= high"]),
        ("{uniform: [10, 40]}", "{uniform: [10, 400]}", 12, "groups[0].lesions.choose[0].diameter", ["10..400 mm", "1..200 mm"]),
        ("{uniform: [10, 40]}", "{unifrom: [10, 40]}", 12, "groups[0].lesions.choose[0].diameter.unifrom", ["'uniform'"]),
        ("{uniform: [10, 40]}", "big", 12, "groups[0].lesions.choose[0].diameter", ["'big'"]),
        ("label: hepatic tumor, ", "", 12, "groups[0].lesions.choose[0].label", ["add 'label'"]),
        ("{uniform: [0.5, 1.0]}", "{uniform: [0.5]}", 13, "groups[0].engine_parameters.ct.dose.uniform", ["[low, high]"]),
        ("val: 0.1", "val: 0.2", 3, "splits", ["1.1", "allowed: 1"]),
        ("train: 0.8", "trian: 0.8", 3, "splits.trian", ["did you mean 'train'"]),
        ("name: head-mr", "name: torso-ct", 14, "groups[1].name", ["two groups have the same name"]),
        ("name: head-mr", "name: head.mr", 14, "groups[1].name", ["head.mr"]),
        ("seed: 7", "seed: -7", 2, "seed", ["-7"]),
        ("probability: 0.5", "probability: 1.5", 12, "groups[0].lesions.probability", ["1.5"]),
        ("probability: 0.5", "probability: 0.5, exact: 3", 12, "groups[0].lesions", ["one of them"]),
    ],
)
def test_refusals_name_line_field_found_and_allowed(recipe_text, tmp_path, old, new, line, field, words):
    assert old in recipe_text
    path = tmp_path / "bad.yaml"
    error = refusal(path, recipe_text.replace(old, new, 1))
    assert error.where == f"{path} line {line}, field {field}"
    for word in words:
        assert word in str(error)
    assert "also:" not in str(error), "one mistake is one problem"


def test_several_mistakes_are_told_at_once(recipe_text, tmp_path):
    error = refusal(
        tmp_path / "bad.yaml", recipe_text.replace("seed: 7", "seed: no").replace("size: [64, 64, 64]", "size: [1, 2, 3]")
    )
    assert "line 2, field seed" in str(error)
    assert "also:" in str(error)
    assert "groups[0].size[1]" in str(error)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "mapping"),
        ("- a\n- b\n", "mapping"),
        ("name: [unclosed\n", "line 2"),
        ("name: a\nname: b\n", 'duplicate key "name"'),
        ("name: a\n  seed: 3\n", "line 2"),
        ("\tname: a\n", "line 1"),
        ("a: {{b: [1]}: c}\n", "not valid YAML"),
        ("a: 2026-13-45\n", "not valid YAML"),
    ],
)
def test_text_that_is_no_recipe_is_refused(tmp_path, text, words):
    assert words in str(refusal(tmp_path / "bad.yaml", text))


def test_unreadable_files_are_refused(tmp_path):
    with pytest.raises(RecipeError, match="no such recipe"):
        load_recipe(tmp_path / "absent.yaml")
    with pytest.raises(RecipeError, match="cannot be read"):
        load_recipe(tmp_path)
    (tmp_path / "latin.yaml").write_bytes("name: é".encode("latin-1"))
    with pytest.raises(RecipeError, match="UTF-8"):
        load_recipe(tmp_path / "latin.yaml")


def test_plain_data_is_validated_alike():
    with pytest.raises(RecipeError, match="field groups"):
        parse_recipe({"name": "a"})


def test_scaling_keeps_the_shares_of_the_groups(recipe_path):
    scaled = load_recipe(recipe_path).scaled_to(4)
    assert [group.cases for group in scaled.groups] == [2, 2]
    assert [group.name for group in load_recipe(recipe_path).scaled_to(1).groups] == ["torso-ct"]
    with pytest.raises(RecipeError):
        scaled.scaled_to(0)
