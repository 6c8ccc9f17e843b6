"""Label maps that the CT engines make for their own cases, on shrunken networks and a small bank."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from ctmr_core.cases.case import Case
from ctmr_core.cases.manifest import Manifest
from ctmr_core.engines import load_engine
from ctmr_core.engines.base import BodyEngine
from ctmr_core.engines.bodies import label_map_of
from ctmr_core.engines.registry import body_digest
from ctmr_core.errors import EngineError
from tests.engines.maisi.bodies_folder import write_models

SIZES = (0.5, 0.5, 0.4, 0.3, 0.4, -1, -1, -1, -1, -1)
TUMOURS = ["lung tumor", "pancreatic tumor", "hepatic tumor", "colon cancer primaries", "bone lesion"]
QUICK = {"limits": "off", "steps": 1}
MASK = {**QUICK, "anatomy_sizes": SIZES, "mask_steps": 1}
BANK = {**QUICK, "bank_splits": {"train": 1.0}}


@pytest.fixture(scope="module")
def folder(golden, tmp_path_factory) -> Path:
    return write_models(golden, tmp_path_factory.mktemp("models"))


@pytest.fixture
def models(folder, monkeypatch) -> Path:
    monkeypatch.setenv("CTMR_MODELS", str(folder))
    body_digest.cache_clear()
    return folder


def case_of(body: str, parameters: dict | None = None, /, **fields) -> Case:
    given = {
        "case_id": "a",
        "body": f"generated:{body}",
        "body_seed": 7,
        "sequences": ("ct",),
        "size": (32, 32, 32),
        "spacing": (1.5, 1.5, 1.5) if body == "mask" else (2.0, 2.0, 2.0),
        "engine": "rflow-ct",
        "engine_parameters": parameters if parameters is not None else MASK if body == "mask" else BANK,
    }
    return Case(**{**given, **fields})


def made(case: Case, attempt: int = 0):
    engine = load_engine(case.engine)
    engine.validate(case)
    try:
        return label_map_of(case, None, engine, attempt)
    finally:
        engine.close()


@pytest.mark.parametrize("body", ["mask", "bank"])
def test_equal_bodies_are_equal_in_every_process_and_others_differ(models, body):
    case = case_of(body)
    first, record = made(case)
    again, same_record = made(case.model_copy(update={"case_id": "b", "seed": 3}))
    assert (first.size, first.spacing, first.vocabulary.name) == (case.size, case.spacing, "maisi")
    assert np.array_equal(first.voxels, again.voxels)
    assert record == same_record
    json.dumps(record)
    for other, note in (made(case, attempt=1), made(case.model_copy(update={"body_seed": 8}))):
        assert note != record or not np.array_equal(first.voxels, other.voxels)


def test_a_body_of_the_bank_says_which_and_how_it_was_varied(models):
    records = [made(case_of("bank", body_seed=seed))[1]["body"] for seed in range(6)]
    assert {record["path"] for record in records} > {"set/healthy_0.nii.gz"}
    assert all(record["augmentation"][0]["what"] == "body" for record in records)
    attempts = [made(case_of("bank"), attempt)[1]["body"]["path"] for attempt in range(3)]
    assert len(set(attempts)) == 3  # attempts take turns among the candidates


def test_required_tumours_come_along_and_move(models):
    wish = {**BANK, "anatomy": TUMOURS, "in_view": ["abdomen"]}
    case = case_of("bank", wish, size=(64, 64, 64), spacing=(1.2, 1.2, 1.2))
    label_map, record = made(case)
    assert {23, 24, 26, 27, 128} <= set(np.unique(label_map.voxels).tolist())
    assert {step["what"] for step in record["body"]["augmentation"]} == set(TUMOURS)


def test_lesions_of_the_case_are_placed_and_recorded(models):
    label_map, record = made(case_of("bank", lesions=({"label": "hepatic tumor", "diameter": 6.0},)))
    assert (label_map.voxels == 26).sum() >= 4
    assert [lesion["label"] for lesion in record["lesions"]] == ["hepatic tumor"]


def test_no_label_map_of_the_bank_is_in_two_splits(models):
    wish = {**QUICK, "bank_splits": {"train": 0.5, "test": 0.5}}
    paths = {
        split: {made(case_of("bank", wish, split=split, body_seed=seed))[1]["body"]["path"] for seed in range(5)}
        for split in ("train", "test")
    }
    assert paths["train"]
    assert paths["test"]
    assert not paths["train"] & paths["test"]
    with pytest.raises(EngineError, match="no label maps for split val"):
        made(case_of("bank", wish, split="val"))


def test_the_engine_says_which_bodies_it_makes(models):
    for name in ("rflow-ct", "ddpm-ct"):
        engine = load_engine(name)
        assert isinstance(engine, BodyEngine)
        assert engine.bodies == {"generated:mask", "generated:bank"}
    assert not isinstance(load_engine("rflow-mr"), BodyEngine)


def test_what_bodies_are_made_of_enters_the_case_key(models, folder, tmp_path, monkeypatch):
    manifest = Manifest.from_cases(
        [case_of("mask"), case_of("bank", case_id="b"), case_of("bank", case_id="c", body="parametric:torso")]
    )
    filled = manifest.completed(body_digest=body_digest)
    mask, bank, torso = (case.template_digest for case in filled.iter_cases())
    assert len(mask) == len(bank) == 64
    assert mask != bank
    assert torso == ""
    made(filled.case(0))
    moved = tmp_path / "other"
    shutil.copytree(folder, moved)
    index = moved / "datasets" / "candidate_masks_flexible_size_and_spacing_4000.json"
    index.write_text(index.read_text() + " ")
    monkeypatch.setenv("CTMR_MODELS", str(moved))
    body_digest.cache_clear()
    assert manifest.completed(body_digest=body_digest).case_keys()[1] != filled.case_keys()[1]
    with pytest.raises(EngineError, match="not made of what was meant"):
        made(filled.case(1))


def test_a_bank_of_ones_own_is_named_by_folder_and_digest(models, tmp_path):
    shutil.copytree(models / "datasets", tmp_path / "bank")
    wish = {**BANK, "bank": str(tmp_path / "bank")}
    with pytest.raises(EngineError, match="needs body_digest") as refusal:
        made(case_of("bank", wish))
    digest = str(refusal.value.allowed).split()[0]
    assert made(case_of("bank", {**wish, "body_digest": digest}))[1]["body"]["made_of"].startswith(digest)
    with pytest.raises(EngineError, match="not made of what was meant"):
        made(case_of("bank", {**wish, "body_digest": "0" * 8}))


@pytest.mark.parametrize(
    ("case", "problem"),
    [
        (case_of("mask", QUICK), "sizes of organs are missing"),
        (case_of("mask", {**MASK, "anatomy_sizes": {"heart": 0.5}}), "cannot be controlled"),
        (case_of("mask", {**MASK, "anatomy_sizes": {"lung tumor": 0.5, "bone lesion": 0.5}}), "one kind of tumour"),
        (case_of("mask", {**MASK, "in_view": ["chest"]}), "for other bodies"),
        (case_of("bank", {**BANK, "anatomy_sizes": {"liver": 0.5}}), "for other bodies"),
        (case_of("bank", {**BANK, "anatomy": ["brain"]}), "no label map of the bank fits"),
        (case_of("bank", {**BANK, "anatomy": ["livr"]}), "livr"),
        (case_of("bank", {**BANK, "bank_splits": {"train": 0.5}}), "add up to 1"),
        (case_of("bank", {**QUICK, "anatomy": ["liver"]}, body="parametric:torso"), "for other bodies"),
        (case_of("bank", center="liver"), "can't have a center"),
        (case_of("bank", deformation=3.0), "can't have a deformation"),
        (case_of("bank", lesions=({"label": "hepatic tumour", "diameter": 9},)), "cannot have this lesion"),
        (case_of("bank", size=(40, 32, 32)), "multiples of 32"),
    ],
)
def test_refusals_come_before_any_work_and_name_the_case(models, case, problem):
    with pytest.raises(EngineError, match=problem) as refusal:
        load_engine("rflow-ct").validate(case)
    assert (refusal.value.where or "").startswith("case a")


@pytest.mark.parametrize(("body", "flag"), [("mask", "--masks"), ("bank", "--bank")])
def test_missing_sources_are_named_with_the_command_that_fetches_them(models, folder, tmp_path, monkeypatch, body, flag):
    bare = tmp_path / "bare"
    shutil.copytree(folder, bare, ignore=shutil.ignore_patterns("mask_generation*", "datasets"))
    monkeypatch.setenv("CTMR_MODELS", str(bare))
    with pytest.raises(EngineError, match=f"ctmr models pull rflow-ct {flag}"):
        load_engine("rflow-ct").validate(case_of(body))


def test_compat_makes_label_maps_as_the_reference(models):
    for body in ("mask", "bank"):
        case = case_of(body)
        compat = case.model_copy(update={"engine_parameters": {**case.engine_parameters, "mode": "compat"}})
        label_map, record = made(compat)
        assert label_map.voxels.any()
        if body == "mask":
            assert record["body"]["mask"]["decode"]["window"] == [48, 48, 48]
