"""Bodies without labels: an empty map in the right vocabulary, nothing that needs labels, checks that make sense."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from ctmr_core.cases.case import Case
from ctmr_core.cases.label_maps import build_label_map
from ctmr_core.cases.planner import plan
from ctmr_core.cases.recipe import parse_recipe
from ctmr_core.engines import load_engine
from ctmr_core.errors import EngineError, RecipeError
from ctmr_core.quality.base import Candidate
from ctmr_core.quality.judge import judge


def unlabelled(**fields) -> Case:
    given = {
        "case_id": "a",
        "body": "unlabelled:head",
        "sequences": ("mri_t1",),
        "size": (32, 48, 16),
        "spacing": (2.0, 2.0, 4.0),
        "engine": "rflow-mr-brain",
    }
    return Case(**{**given, **fields})


def image(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 900, (32, 48, 16)).astype(np.int16)


@pytest.mark.parametrize(("region", "vocabulary"), [("head", "brain"), ("chest", "maisi"), ("abdomen", "maisi")])
def test_the_map_is_all_background_on_the_grid_asked_for(region, vocabulary):
    label_map, lesions = build_label_map(unlabelled(body=f"unlabelled:{region}"), None, 0)
    assert (label_map.size, label_map.spacing, lesions) == ((32, 48, 16), (2.0, 2.0, 4.0), [])
    assert label_map.vocabulary.name == vocabulary
    assert not label_map.voxels.any()


@pytest.mark.parametrize(
    "fields", [{"center": "liver"}, {"lesions": ({"label": "hepatic tumor", "diameter": 9},)}, {"deformation": 3.0}]
)
def test_nothing_can_be_asked_for_that_needs_labels(fields):
    with pytest.raises(ValidationError, match=f"no label map for {next(iter(fields))}"):
        unlabelled(**fields)


def test_other_regions_are_refused():
    with pytest.raises(ValidationError, match="unlabelled:<head"):
        unlabelled(body="unlabelled:knee")


def test_an_engine_that_renders_label_maps_refuses_them():
    with pytest.raises(EngineError, match="an unlabelled body has none"):
        load_engine("tissue").validate(unlabelled(engine="tissue"))


def test_a_good_image_without_labels_is_accepted():
    case = unlabelled()
    verdict = judge(Candidate(case, build_label_map(case, None, 0)[0], {"mri_t1": image()}))
    assert verdict.accepted, verdict.reasons
    assert verdict.scores["constant/mri_t1/range"] > 100


def test_a_constant_image_without_labels_is_rejected():
    case = unlabelled()
    verdict = judge(Candidate(case, build_label_map(case, None, 0)[0], {"mri_t1": np.full((32, 48, 16), 5, np.int16)}))
    assert any("almost constant" in reason for reason in verdict.reasons)


def test_labels_in_the_map_of_an_unlabelled_body_are_rejected():
    case = unlabelled()
    label_map = build_label_map(case, None, 0)[0]
    label_map.voxels[3, 3, 3] = 2
    assert any(reason.startswith("labels:") for reason in judge(Candidate(case, label_map, {"mri_t1": image()})).reasons)


def recipe(**group):
    fields = {
        "name": "g",
        "cases": 6,
        "bodies": {"unlabelled": "head"},
        "sequences": ["mri_t1"],
        "spacing": [1, 1, 1],
        "size": [64, 64, 64],
    }
    return parse_recipe({"name": "r", "splits": {"train": 0.5, "val": 0.5}, "groups": [{**fields, **group}]})


def test_a_recipe_plans_them_as_different_persons():
    manifest = plan(recipe())
    cases = [manifest.case(row) for row in range(6)]
    assert {case.body for case in cases} == {"unlabelled:head"}
    assert len({case.body_identity for case in cases}) == 6
    assert sorted(case.split for case in cases) == ["train"] * 3 + ["val"] * 3


@pytest.mark.parametrize("group", [{"center": "head"}, {"lesions": [{"label": "left white matter lesion", "diameter": 8}]}])
def test_a_recipe_cannot_ask_them_for_anatomy(group):
    with pytest.raises(RecipeError, match="no label map for"):
        plan(recipe(**group))
