"""Bodies that an engine makes: recipes, manifests and the one place that asks the engine."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from ctmr_core.anatomy.grid import Grid
from ctmr_core.anatomy.label_map import LabelMap
from ctmr_core.anatomy.vocabulary import load_vocabulary
from ctmr_core.cases.case import Case
from ctmr_core.cases.label_maps import build_label_map
from ctmr_core.cases.manifest import Manifest, read_manifest
from ctmr_core.cases.planner import plan
from ctmr_core.cases.recipe import parse_recipe
from ctmr_core.engines import load_engine
from ctmr_core.engines.base import BodyEngine, Engine, Images
from ctmr_core.engines.bodies import label_map_of, refuse_body
from ctmr_core.errors import EngineError, ManifestError, RecipeError
from pipelines.flows.admission import Examiner, admit


class Sculptor:
    """Makes cubes, larger with every attempt."""

    name, version, weights_digest = "sculptor", "1", ""
    sequences, vocabularies = frozenset(("ct",)), frozenset(("maisi",))
    bodies = frozenset(("generated:cube", "generated:ball"))

    def validate(self, case: Case) -> None:
        pass

    def render(self, case: Case, label_map: LabelMap, attempt: int) -> Images:
        return Images(ct=label_map.voxels.astype(np.int16))

    def body(self, case: Case, attempt: int):
        voxels = np.zeros(case.size, np.uint8)
        voxels[: 2 + attempt] = 1
        return LabelMap(voxels, Grid.centred(case.size, case.spacing).affine, load_vocabulary("maisi")), [{"body": case.body}]

    def close(self) -> None:
        pass


def case_of(body: str, **fields) -> Case:
    return Case(case_id="a", body=body, sequences=("ct",), size=(16, 16, 16), spacing=(4.0, 4.0, 4.0), **fields)


def recipe(body: dict, cases: int = 6, **group) -> dict:
    fields = {"name": "g", "cases": cases, "bodies": body, "sequences": ["ct"], "size": [64, 64, 64], "spacing": [4.0, 4.0, 4.0]}
    return {"name": "r", "splits": {"train": 0.5, "test": 0.5}, "groups": [{**fields, **group}]}


def test_the_engine_of_the_case_makes_its_label_map():
    engine = Sculptor()
    assert isinstance(engine, Engine)
    assert isinstance(engine, BodyEngine)
    label_map, record = label_map_of(case_of("generated:cube"), None, engine, 1)
    assert (int(label_map.voxels.sum()), record) == (3 * 16 * 16, {"body": {"body": "generated:cube"}, "lesions": []})


def test_other_bodies_do_not_ask_the_engine():
    label_map, record = label_map_of(case_of("unlabelled:chest"), None, Sculptor(), 0)
    assert not label_map.voxels.any()
    assert record == {"lesions": []}


def test_an_unknown_generated_body_is_refused_with_the_ones_there_are():
    with pytest.raises(EngineError, match="does not make this body") as refusal:
        refuse_body(case_of("generated:cone"), Sculptor())
    assert "generated:ball" in str(refusal.value)
    with pytest.raises(EngineError, match="makes no bodies of its own"):
        refuse_body(case_of("generated:cube"), load_engine("tissue"))
    refuse_body(case_of("parametric:torso"), load_engine("tissue"))


def test_manifests_are_refused_before_any_work():
    manifest = Manifest.from_cases([case_of("generated:cube", engine="tissue")])
    with pytest.raises(EngineError, match=r"row 1.*does not make this body"):
        admit(manifest, Examiner(None), skip_invalid=False)
    kept, errors = admit(manifest, Examiner(None), skip_invalid=True)
    assert (kept.rows, len(errors)) == (0, 1)


def test_recipes_are_refused_before_any_work():
    with pytest.raises(RecipeError, match="tissue does not make this body"):
        plan(parse_recipe(recipe({"generated": "mask"})), validators=(Examiner(None).examine,))
    with pytest.raises(RecipeError):
        parse_recipe(recipe({"generated": "no such:body"}))
    with pytest.raises(RecipeError, match="one source"):
        parse_recipe(recipe({"generated": "mask", "parametric": "torso"}))


def test_each_generated_body_is_a_person_of_one_split():
    manifest = plan(parse_recipe(recipe({"generated": "mask"}, cases_per_body=2, engine="rflow-ct")))
    cases = list(manifest.iter_cases())
    assert {case.body for case in cases} == {"generated:mask"}
    identities = {case.body_identity: case.split for case in cases}
    assert len(identities) == 3
    assert all(identities[case.body_identity] == case.split for case in cases)


def test_a_generated_body_is_not_built_from_templates():
    with pytest.raises(ManifestError, match="the engine makes this body"):
        build_label_map(case_of("generated:cube"), None, 0)
    with pytest.raises(ValidationError, match="generated:<what the engine makes>"):
        case_of("generated:")


def test_a_manifest_that_mixes_lesions_into_unlabelled_bodies_is_refused_by_row(tmp_path):
    ill = case_of("parametric:torso", lesions=({"label": "hepatic tumor", "diameter": 9.0},))
    table = Manifest.from_cases([case_of("unlabelled:chest"), ill.model_copy(update={"case_id": "b"})]).table
    column = table.schema.get_field_index("body")
    spoiled = table.set_column(column, table.schema.field(column), table["body"].take([0, 0]))
    Manifest(spoiled).write(tmp_path / "m.parquet")
    with pytest.raises(ManifestError, match="no label map for lesions"):
        read_manifest(tmp_path / "m.parquet")
