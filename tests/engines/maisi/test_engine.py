"""The MAISI engines on shrunken networks: what they refuse, what they render, and whole cases through the factory."""

from __future__ import annotations

import errno
import json
import os
import shutil
import threading
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch

from ctmr_core.anatomy.label_map import LabelMap
from ctmr_core.cases.case import Case
from ctmr_core.cases.label_maps import build_label_map
from ctmr_core.engines import engine_names, load_engine
from ctmr_core.engines.maisi import decoder as decoder_module
from ctmr_core.engines.maisi import digests as digests_module
from ctmr_core.engines.maisi.engine import MaisiEngine
from ctmr_core.engines.maisi.hub import licences_in
from ctmr_core.engines.maisi.variants import VARIANTS
from ctmr_core.errors import EngineError
from ctmr_core.quality.registry import check_names
from ctmr_core.store import Dataset
from pipelines.factory.production import Workshop
from pipelines.factory.work import ActorSettings, WorkUnit
from tests.engines.maisi.checkpoints import RELEASED_FILES, shrink, write_checkpoints

IMAGE_NETWORKS = ("autoencoder", "diffusion_unet", "controlnet")


@pytest.fixture(scope="module")
def weights(golden, tmp_path_factory) -> Path:
    """A models folder with shrunken networks of all variants and their configurations."""
    root = tmp_path_factory.mktemp("models")
    for variant, files in RELEASED_FILES.items():
        config = shrink(golden.network("ddpm" if variant == "ddpm-ct" else "rflow"))
        write_checkpoints(root, variant, config, netseed=200, networks=[name for name in files if name in IMAGE_NETWORKS])
        (root / f"network_{variant}.json").write_text(json.dumps(config))
    return root


@pytest.fixture
def models(weights, monkeypatch) -> Path:
    monkeypatch.setenv("CTMR_MODELS", str(weights))
    return weights


SMALL = {"limits": "off", "steps": 1}


def torso(**fields) -> Case:
    given = {
        "case_id": "a",
        "body": "parametric:torso",
        "sequences": ("ct",),
        "size": (32, 32, 32),
        "spacing": (10.0, 10.0, 10.0),
        "center": "abdomen",
        "engine": "rflow-ct",
        "engine_parameters": SMALL,
    }
    return Case(**{**given, **fields})


def head(**fields) -> Case:
    given = {"body": "unlabelled:head", "center": "", "engine": "rflow-mr-brain", "sequences": ("mri_t1",)}
    return torso(**{"spacing": (3.0, 3.0, 3.0), **given, **fields})


@lru_cache(maxsize=16)
def label_map_on(body: str, body_seed: int, size: tuple[int, int, int]) -> LabelMap:
    spacing = tuple(320 / n for n in size)
    case = torso(body=body, body_seed=body_seed, size=size, spacing=spacing, center="abdomen" if "torso" in body else "")
    return build_label_map(case, None, 0)[0]


def label_map_of(case: Case) -> LabelMap:
    return label_map_on(case.body, case.body_seed, case.size)


def render(case: Case, attempt: int = 0, **options):
    engine = load_engine(case.engine, **options)
    label_map = label_map_of(case)
    try:
        return label_map, engine.render(case, label_map, attempt)
    finally:
        engine.close()


def test_every_variant_is_an_engine():
    assert set(VARIANTS) <= set(engine_names())


def test_ct_follows_the_label_map(models):
    label_map, images = render(torso(sequences=("ct", "ct_contrast")))
    assert list(images) == ["ct", "ct_contrast"]
    for image in images.values():
        assert image.dtype == np.int16
        assert image.shape == (32, 32, 32)
        assert (image[label_map.voxels == 0] == -1000).all()
        assert -1000 <= image.min() < image.max() <= 1000
        assert image[label_map.voxels != 0].std() > 1
    assert (images["ct"] != images["ct_contrast"]).any()
    record = images.parameters["ct"]
    assert (record["variant"], record["mode"], record["labels"], record["steps"]) == ("rflow-ct", "fixed", "conditioned on", 1)
    assert record["decode"] == {"window": [8, 8, 8], "overlap": 0.4, "splits": 1, "precision": "float32"}
    assert record["weights"] == load_engine("rflow-ct").weights_digest
    json.dumps(images.parameters)


def test_another_label_map_gives_another_image_from_the_same_noise(models):
    case = torso()
    engine = load_engine("rflow-ct")
    label_map, other = label_map_of(case), label_map_of(torso(body_seed=1))
    inside = (label_map.voxels != 0) & (other.voxels != 0)
    first, second = engine.render(case, label_map, 0)["ct"], engine.render(case, other, 0)["ct"]
    assert (first[inside] != second[inside]).mean() > 0.1


def test_a_case_is_the_same_whatever_the_number_of_threads_and_another_with_each_attempt(models):
    case = torso()
    before = torch.get_num_threads()
    try:
        first = render(case, threads=1)[1]["ct"]
        again = render(case, threads=2)[1]["ct"]
    finally:
        torch.set_num_threads(before)
    other = render(case, attempt=1)[1]["ct"]
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize("engine", ["rflow-mr", "rflow-mr-brain"])
def test_mr_variants_draw_unlabelled_bodies(models, engine):
    label_map, images = render(head(engine=engine, sequences=("mri_t1", "mri_t2"), size=(64, 32, 32)))
    assert not label_map.voxels.any()
    assert images["mri_t1"].dtype == np.int16
    assert images["mri_t1"].min() >= 0
    assert images["mri_t1"].shape == (64, 32, 32)
    assert (images["mri_t1"] != images["mri_t2"]).any()
    assert images.parameters["mri_t1"]["labels"] == "none"
    assert images.parameters["mri_t1"]["guidance"] == VARIANTS[engine].guidance


def test_ddpm_takes_the_region_of_an_unlabelled_body_or_of_the_label_map(models):
    unlabelled = head(engine="ddpm-ct", body="unlabelled:chest", sequences=("ct",), size=(32, 32, 32))
    assert render(unlabelled)[1].parameters["ct"]["regions"] == ["chest", "chest"]
    labelled = torso(engine="ddpm-ct")
    assert "regions" not in render(labelled)[1].parameters["ct"]


@pytest.mark.parametrize(
    ("case", "problem"),
    [
        (torso(engine_parameters={}, spacing=(3.0, 3.0, 3.0)), "x = y in (256, 384, 512)"),
        (torso(engine_parameters={}, size=(256, 256, 128), spacing=(0.8, 0.8, 2.5)), "too narrow"),
        (torso(engine_parameters={}, size=(256, 256, 128), spacing=(1.5, 1.6, 2.5)), "equal spacing"),
        (torso(size=(64, 64, 48)), "multiples of 32"),
        (torso(sequences=("mri_t1",), engine_parameters={}), "can't make this sequence"),
        (torso(engine="ddpm-ct", sequences=("ct_contrast",), engine_parameters={}), "can't make this sequence"),
        (head(body="parametric:head", engine="rflow-ct", sequences=("ct",)), "brain vocabulary"),
        (torso(engine="rflow-mr", sequences=("mri_t1",)), "unlabelled"),
        (head(body="unlabelled:chest", engine_parameters={}), "makes heads"),
        (torso(engine_parameters={"step": 3}), "engine_parameters.step"),
        (torso(engine_parameters={"decode": {"window": [1, 2, 3]}}), "engine_parameters.decode.window.0"),
        (torso(engine_parameters={**SMALL, "models": "/elsewhere"}), "need weights"),
        (torso(engine_parameters={**SMALL, "weights": "0123456789"}), "not the ones the case names"),
    ],
)
def test_refusals_come_before_any_work_and_name_the_case(models, case, problem):
    with pytest.raises(EngineError) as refusal:
        load_engine(case.engine).validate(case)
    text = str(refusal.value)
    assert text.startswith("case a")
    assert problem in text


def test_a_refused_size_comes_with_the_fields_of_view_of_training(models):
    with pytest.raises(EngineError, match=r"chest\+abdomen of 512x512x128 voxels at 0.781x0.781x2.981 mm"):
        load_engine("rflow-ct").validate(torso(engine_parameters={}, spacing=(1.0, 1.0, 1.0)))


def test_a_template_of_another_vocabulary_is_refused_when_it_is_read(models):
    case = torso()
    label_map = label_map_of(head(body="unlabelled:head"))
    with pytest.raises(EngineError, match="label maps of bodies only"):
        load_engine("rflow-ct").render(case, label_map, 0)


def test_missing_weights_are_named_with_the_command_that_fetches_them(tmp_path):
    with pytest.raises(EngineError, match="ctmr models pull rflow-ct") as refusal:
        load_engine("rflow-ct", models=tmp_path).validate(
            torso(engine_parameters={}, size=(256, 256, 128), spacing=(1.5, 1.5, 2.0))
        )
    assert "models/controlnet_3d_rflow-ct.pt: missing" in str(refusal.value)
    assert load_engine("rflow-ct", models=tmp_path).weights_digest == ""


def test_the_digest_of_weights_follows_their_content_and_not_their_place(weights, tmp_path):
    digest = load_engine("rflow-ct", models=weights).weights_digest
    moved = tmp_path / "moved"
    for path in [*weights.glob("models/*"), weights / "network_rflow-ct.json"]:
        target = moved / path.relative_to(weights)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(path, target)
    assert load_engine("rflow-ct", models=moved).weights_digest == digest
    assert (moved / "digests.json").is_file()

    controlnet = moved / "models/controlnet_3d_rflow-ct.pt"
    data = controlnet.read_bytes()
    controlnet.unlink()
    controlnet.write_bytes(data + b"!")
    changed = load_engine("rflow-ct", models=moved).weights_digest
    assert changed != digest

    config = json.loads((weights / "network_rflow-ct.json").read_text())
    config["scale"] = 7
    (moved / "network_rflow-ct.json").write_text(json.dumps(config))
    assert load_engine("rflow-ct", models=moved).weights_digest not in (digest, changed)


def test_weights_of_ones_own_are_named_by_folder_and_digest(weights, tmp_path):
    digest = load_engine("rflow-ct", models=weights).weights_digest
    case = torso(engine_parameters={**SMALL, "models": str(weights), "weights": digest[:12]})
    load_engine("rflow-ct", models=tmp_path).validate(case)


def test_cases_for_a_gpu_can_be_planned_without_one_and_are_refused_when_rendered(models):
    case = torso(engine_parameters={**SMALL, "precision": "bfloat16"})
    load_engine("rflow-ct").validate(case)
    with pytest.raises(EngineError, match="reduced precision needs a CUDA device"):
        render(case)


def test_a_models_folder_that_cannot_be_written_is_hashed_once(weights, tmp_path, monkeypatch):
    root = tmp_path / "models"
    shutil.copytree(weights, root, ignore=shutil.ignore_patterns("digests.json"))
    hashed: list[Path] = []
    real = digests_module.hash_file

    def refuse(path: Path, document: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(digests_module, "hash_file", lambda path: hashed.append(path) or real(path))
    monkeypatch.setattr(digests_module, "write_json", refuse)
    first = load_engine("rflow-ct", models=root).weights_digest
    assert load_engine("rflow-ct", models=root).weights_digest == first
    assert len(hashed) == 3


def test_compat_decodes_in_the_windows_of_the_reference(models):
    record = render(torso(engine_parameters={**SMALL, "mode": "compat"}))[1].parameters["ct"]
    assert (record["decode"]["window"], record["decode"]["overlap"]) == ([48, 48, 48], 0.6666)
    record = render(head(engine_parameters={**SMALL, "mode": "compat"}))[1].parameters["mri_t1"]
    assert (record["decode"]["window"], record["decode"]["overlap"]) == ([80, 80, 80], 0.4)


def test_weights_that_vanish_while_an_engine_is_open_are_missed(weights, tmp_path):
    root = tmp_path / "models"
    shutil.copytree(weights, root)
    engine = load_engine("rflow-ct", models=root)
    engine.validate(torso())
    (root / "models/controlnet_3d_rflow-ct.pt").unlink()
    with pytest.raises(EngineError, match=r"controlnet_3d_rflow-ct\.pt: missing"):
        engine.validate(torso())


def test_licences_go_with_the_engine(tmp_path):
    assert licences_in("rflow-ct", tmp_path) == ("NVIDIA Open Model License",)
    assert licences_in("rflow-mr", tmp_path) == ("NVIDIA OneWay Noncommercial License (22 March 2022)",)


def test_a_device_that_runs_out_of_memory_decodes_in_smaller_windows(models, monkeypatch):
    """The first two windows fail as a GPU would; the image is then the one that the third window gives."""
    real = decoder_module.decode
    tried: list[tuple[int, int, int]] = []

    def decode(autoencoder, latent, window, *rest, **options):
        tried.append(tuple(window))
        if window[0] > 48:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(autoencoder, latent, window, *rest, **options)

    case = torso(size=(256, 32, 32), spacing=(1.25, 10.0, 10.0))
    monkeypatch.setattr(decoder_module, "decode", decode)
    images = render(case)[1]
    record = images.parameters["ct"]
    assert [tuple(rung["window"]) for rung in record["out_of_memory"]] == tried[:-1]
    assert record["decode"]["window"] == [48, 8, 8]
    monkeypatch.setattr(decoder_module, "decode", real)
    monkeypatch.setattr(decoder_module, "first_rung", lambda *_: len(tried) - 1)
    np.testing.assert_array_equal(render(case)[1]["ct"], images["ct"])


def make(cases: list[Case], dataset: Path) -> dict[str, dict]:
    Dataset.create(str(dataset))
    workshop = Workshop(ActorSettings(dataset=str(dataset)))
    report = workshop.make_unit(WorkUnit(tuple(cases)), threading.Event())
    workshop.close()
    assert report.halt is None
    rows = Dataset.open(str(dataset)).ledger.to_table().to_pylist()
    return {row["case_id"]: row for row in rows}


def test_the_factory_makes_labelled_ct_and_rejects_noise_with_its_reasons(models, tmp_path):
    """The networks are filled with noise, so the organs cannot have the HU of their kind: that check must say so."""
    off = {name: False for name in check_names() if name not in ("labels", "geometry", "finite")}
    grid = {"size": (64, 64, 64), "spacing": (6.0, 6.0, 6.0)}
    good = torso(case_id="good", checks=off, **grid)
    strict = torso(case_id="strict", checks={**off, "hu_median": True}, max_attempts=2, **grid)
    brain = head(case_id="brain", size=(32, 32, 32), checks=off)
    rows = make([good, strict, brain], tmp_path / "dataset")
    assert {name: row["status"] for name, row in rows.items()} == {
        "good": "accepted",
        "strict": "rejected",
        "brain": "accepted",
    }
    assert (rows["good"]["attempt"], rows["strict"]["attempt"]) == (0, 1)
    assert any("hu_median: ct: the median of" in reason for reason in rows["strict"]["reasons"])
    assert rows["good"]["licences"] == ["NVIDIA Open Model License"]


def test_the_engine_satisfies_the_contract(models):
    from ctmr_core.engines.base import Engine

    for name in VARIANTS:
        engine = load_engine(name)
        assert isinstance(engine, MaisiEngine)
        assert isinstance(engine, Engine)
        assert engine.sequences


def test_a_label_map_is_embedded_once_for_all_sequences(models, monkeypatch):
    from ctmr_core.engines.maisi import sampling

    embed_mask, calls = sampling.embed_mask, []
    monkeypatch.setattr(sampling, "embed_mask", lambda *given: calls.append(1) or embed_mask(*given))
    both = render(torso(sequences=("ct", "ct_contrast")))[1]
    assert len(calls) == 1
    assert set(both) == {"ct", "ct_contrast"}
