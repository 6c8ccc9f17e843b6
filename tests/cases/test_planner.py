"""Planning: exact counts, whole bodies per split, the same rows every time, and early refusals."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from ctmr_core.anatomy.label_map import LabelMap
from ctmr_core.anatomy.templates.library import TemplateLibrary
from ctmr_core.anatomy.vocabulary import load_vocabulary
from ctmr_core.cases.case import Case
from ctmr_core.cases.manifest import read_manifest
from ctmr_core.cases.planner import plan, plan_to_file
from ctmr_core.cases.recipe import Recipe, load_recipe, parse_recipe, recipe_from_source
from ctmr_core.cases.recipe_source import parse_source
from ctmr_core.errors import EngineError, RecipeError


def recipe_of(text: str) -> Recipe:
    return recipe_from_source(parse_source(text, "r.yaml"))


def boxes(vocabulary: str, *labels: int) -> LabelMap:
    voxels = np.zeros((24, 24, 24), load_vocabulary(vocabulary).dtype)
    for index, label in enumerate(labels):
        voxels[4:20, 4:20, 2 + 2 * index : 4 + 2 * index] = label
    return LabelMap(voxels, np.diag([4.0, 4.0, 4.0, 1.0]), load_vocabulary(vocabulary))


@pytest.fixture
def library(tmp_path: Path) -> TemplateLibrary:
    library = TemplateLibrary.open(tmp_path / "templates", create=True)
    for number in range(5):
        library.add(f"abdomen-{number}", boxes("maisi", 200, 1, 3, 33 + number))
    library.add("chest-0", boxes("maisi", 200, 28, 32, 23))
    library.add("head-0", boxes("brain", 2, 41, 24))
    return library


def test_choices_are_counted_out_exactly(recipe_path):
    cases = list(plan(load_recipe(recipe_path)).iter_cases())
    torso, head = cases[:10], cases[10:]
    assert Counter(case.sequences for case in torso) in ({("ct",): 8, ("ct_contrast",): 2}, {("ct",): 7, ("ct_contrast",): 3})
    assert Counter(case.spacing for case in torso) == {(1.5, 1.5, 1.5): 5, (2.0, 2.0, 3.0): 5}
    assert Counter(case.engine_parameters["ct"]["kernel"] for case in torso) == {"soft": 5, "sharp": 5}
    assert sum(bool(case.lesions) for case in torso) == 5
    assert {len(case.lesions) for case in torso} == {0, 1, 2}
    assert all(10 <= lesion.diameter <= 40 for case in torso for lesion in case.lesions)
    assert all(
        0.5 <= case.engine_parameters["ct"]["dose"] <= 1.0 and case.engine_parameters["ct"]["fixed"] == 3 for case in torso
    )
    assert len({case.engine_parameters["ct"]["dose"] for case in torso}) == 10
    assert all([lesion.label for lesion in case.lesions] == ["left white matter lesion"] for case in head)
    assert [case.case_id for case in cases[:2]] == ["torso-ct-0000000", "torso-ct-0000001"]


def test_bodies_are_shared_as_asked_and_stay_in_one_split(recipe_path):
    cases = list(plan(load_recipe(recipe_path)).iter_cases())
    splits = defaultdict(set)
    for case in cases:
        splits[case.body_identity].add(case.split)
    assert len(splits) == 15
    assert all(len(found) == 1 for found in splits.values())
    assert Counter(next(iter(found)) for found in splits.values())["train"] == 12


def test_splits_of_bodies_are_exact_over_the_whole_recipe(recipe_text):
    text = recipe_text.replace("cases: 10", "cases: 25").replace("cases_per_body: 2", "cases_per_body: 1")
    assert plan(recipe_of(text)).summary()["splits"] == {"test": 5, "train": 40, "val": 5}


def test_the_same_recipe_gives_the_same_bytes(recipe_path, tmp_path):
    plan_to_file(recipe_path, tmp_path / "a.parquet")
    plan_to_file(recipe_path, tmp_path / "b.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_another_seed_gives_other_cases(recipe_text):
    first, second = (plan(recipe_of(recipe_text.replace("seed: 7", f"seed: {seed}"))) for seed in (0, 1))
    assert set(first.case_keys()).isdisjoint(second.case_keys())


def test_editing_one_group_or_field_leaves_the_others_alone(recipe_text):
    before = plan(recipe_of(recipe_text)).table
    other_group = plan(recipe_of(recipe_text.replace("diameter: 8", "diameter: 9"))).table
    assert before.slice(0, 10).equals(other_group.slice(0, 10))
    other_field = plan(recipe_of(recipe_text.replace("uniform: [10, 40]", "uniform: [20, 30]"))).table
    assert before.drop_columns(["lesions"]).equals(other_field.drop_columns(["lesions"]))
    assert not before["lesions"].equals(other_field["lesions"])


def test_a_lesion_list_goes_into_the_share_of_cases_that_was_asked_for(recipe_text):
    text = recipe_text.replace("probability: 0.5", "exact: 3")
    cases = list(plan(recipe_of(text)).iter_cases(0, 10))
    assert sum(bool(case.lesions) for case in cases) == 3


def test_the_engine_identity_enters_every_row(recipe_path):
    manifest = plan(load_recipe(recipe_path), engine_identity=lambda name: f"{name}/9")
    assert {case.engine_identity for case in manifest.iter_cases()} == {"tissue/9"}
    assert manifest.table.equals(plan(load_recipe(recipe_path)).completed(lambda name: f"{name}/9").table)


def test_a_hundred_thousand_cases_are_planned_without_repeats(recipe_text, tmp_path):
    manifest = plan(recipe_of(recipe_text.replace("cases: 10", "cases: 50000")))
    manifest.write(tmp_path / "m.parquet")
    again = read_manifest(tmp_path / "m.parquet")
    assert again.rows == 100_000
    assert again.table.equals(manifest.table)
    assert len(set(again.iter_keys())) == 100_000
    assert again.summary()["splits"] == {"test": 10_000, "train": 80_000, "val": 10_000}


@pytest.mark.slow
def test_a_million_cases_are_planned(recipe_text, tmp_path):
    manifest = plan(recipe_of(recipe_text.replace("cases: 10", "cases: 500000")))
    manifest.write(tmp_path / "m.parquet")
    again = read_manifest(tmp_path / "m.parquet")
    assert len(set(again.iter_keys())) == again.rows == 1_000_000


TEMPLATES = """\
name: real
groups:
  - name: body
    cases: 12
    bodies: {templates: {regions: [abdomen]}}
    sequences: [ct]
    size: [32, 32, 32]
    spacing: [4, 4, 4]
    center: abdomen
    deformation: {uniform: [2, 6]}
"""


def test_templates_are_used_equally_often_and_carry_their_digest(library):
    cases = list(plan(recipe_of(TEMPLATES), library).iter_cases())
    used = Counter(case.template_id for case in cases)
    assert sorted(used) == [f"abdomen-{number}" for number in range(5)]
    assert set(used.values()) == {2, 3}
    assert all(case.template_digest == library.row(case.template_id).digest for case in cases)
    assert all(2 <= case.deformation <= 6 for case in cases)


def test_a_pose_is_drawn_once_per_body_and_leaves_other_draws_alone(library):
    text = TEMPLATES + "    cases_per_body: 2\n"
    pose = "    pose: {nod: {uniform: [-30, 10]}, turn: {normal: {mean: 0, sd: 5, low: -8, high: 8}}}\n"
    plain, posed = (list(plan(recipe_of(one), library).iter_cases()) for one in (text, text + pose))
    assert [case.pose for case in plain] == [()] * 12
    assert [case.model_copy(update={"pose": ()}) for case in posed] == plain
    assert all(-30 <= nod <= 10 and -8 <= turn <= 8 and tilt == 0 for nod, turn, tilt in (case.pose for case in posed))
    assert [case.pose for case in posed[::2]] == [case.pose for case in posed[1::2]]
    assert len({case.pose for case in posed}) == 6


def test_a_template_stays_in_one_split_across_groups(library):
    text = TEMPLATES.replace("groups:", "splits: {train: 0.6, val: 0.2, test: 0.2}\ngroups:")
    text += text[text.index("  - name: body") :].replace("name: body", "name: more")
    splits = defaultdict(set)
    for case in plan(recipe_of(text), library).iter_cases():
        splits[case.body].add(case.split)
    assert sorted(len(found) for found in splits.values()) == [1] * 5
    assert Counter(next(iter(found)) for found in splits.values()) == {"train": 3, "val": 1, "test": 1}


def test_bodies_of_several_sources_are_mixed_by_weight(library):
    text = TEMPLATES.replace(
        "{templates: {regions: [abdomen]}}", "[{templates: {ids: [abdomen-1]}, weight: 1}, {parametric: torso, weight: 2}]"
    )
    cases = list(plan(recipe_of(text), library).iter_cases())
    assert Counter(case.body for case in cases) == {"template:abdomen-1": 4, "parametric:torso": 8}
    assert all(case.deformation == 0 for case in cases if case.template_id is None)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            "regions: [abdomen]",
            "regions: [abdomen], labels: [lung tumor]",
            ["no template matches", "7 templates", "lacks: label lung tumor"],
        ),
        ("regions: [abdomen]", "ids: [abdomen-9]", ["no such template", "did you mean 'abdomen-"]),
        ("regions: [abdomen]", "labels: [lungtumor]", ["no vocabulary has such a label", "did you mean 'lung tumor'"]),
        ("regions: [abdomen]", "regions: [belly]", ["unknown region", "'belly'", "head, chest, abdomen, pelvis"]),
        ("regions: [abdomen]", "regions: [chest]", ["do not show what the field of view is centred on", "chest-0"]),
        ("regions: [abdomen]", "vocabulary: brain", ["line 9, field groups[0].center", "abdomen"]),
    ],
)
def test_template_queries_that_cannot_be_met_say_what_is_nearest(library, old, new, words):
    with pytest.raises(RecipeError) as caught:
        plan(recipe_of(TEMPLATES.replace(old, new)), library)
    for word in words:
        assert word in str(caught.value)


def test_a_missing_library_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError, match=r"line 5, field groups\[0\].bodies"):
        plan(recipe_of(TEMPLATES))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            "hepatic tumor",
            "hepatic tumour",
            ["field groups[0].lesions.choose[0].label", "unknown lesion", "did you mean 'hepatic tumor'"],
        ),
        (
            "label: left white matter lesion",
            "label: hepatic tumor",
            ["line 22, field groups[1].lesions[0].label", "a head cannot have this"],
        ),
        ("label: hepatic tumor", "label: liver", ["unknown lesion"]),
        (
            "[ct_contrast]]",
            "[mri_t1_skull_stripped]]",
            ["line 8", "skull-stripped sequences need a head", "mri_t1_skull_stripped"],
        ),
        ("center: abdomen", "center: abdomn", ["line 11", "abdomn"]),
        ("center: head", "center: liver", ["field groups[1].center", "liver"]),
        ("[10, 40]", "[10, 150]", ["larger than the field of view", "below 96 mm"]),
        ("probability: 0.5", "exact: 11", ["more cases with lesions than cases", "0..10"]),
    ],
)
def test_what_no_body_can_give_is_refused_before_any_work(recipe_text, old, new, words):
    assert old in recipe_text
    with pytest.raises(RecipeError) as caught:
        plan(recipe_of(recipe_text.replace(old, new, 1)))
    for word in words:
        assert word in str(caught.value)


def test_validators_see_every_combination_and_their_refusals_are_located(recipe_path):
    seen: list[Case] = []
    plan(load_recipe(recipe_path), validators=(seen.append,))
    assert {case.sequences for case in seen} == {("ct",), ("ct_contrast",), ("mri_t1", "mri_t2")}

    def refuse(case: Case) -> None:
        if "mri_t2" in case.sequences:
            raise EngineError("cannot render this", found="mri_t2", allowed="ct")

    with pytest.raises(RecipeError, match=r"line 14, field groups\[1\]: cannot render this"):
        plan(load_recipe(recipe_path), validators=(refuse,))


def test_a_recipe_without_a_file_can_be_planned():
    group = {
        "name": "a",
        "cases": 2,
        "bodies": {"parametric": "head"},
        "sequences": ["ct"],
        "size": [32, 32, 32],
        "spacing": [2, 2, 2],
    }
    assert plan(parse_recipe({"name": "x", "groups": [group]})).rows == 2


@pytest.mark.parametrize(
    ("pose", "words"),
    [
        ("{nod: {uniform: [-60, 10]}}", ["pose.nod", "-45..45 degrees"]),
        ("{nodd: 3}", ["nodd", "did you mean 'nod'"]),
    ],
)
def test_a_pose_that_nobody_lies_in_is_refused(pose, words):
    with pytest.raises(RecipeError) as caught:
        recipe_of(TEMPLATES + f"    pose: {pose}\n")
    for word in words:
        assert word in str(caught.value)


def test_a_pose_needs_a_body_with_a_map():
    text = TEMPLATES.replace("{templates: {regions: [abdomen]}}", "{unlabelled: head}").replace("center: abdomen", 'center: ""')
    with pytest.raises(RecipeError, match="parametric bodies and templates"):
        recipe_of(text.replace("    deformation: {uniform: [2, 6]}\n", "    pose: {nod: 5}\n"))
