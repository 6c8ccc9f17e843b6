from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from ctmr_core.anatomy.vocabulary import Label, Vocabulary
from ctmr_core.engines.base import Engine
from ctmr_core.engines.tissue.engine import TissueEngine
from ctmr_core.errors import EngineError
from tests.engines.tissue.bodies import make_case, small_body


@pytest.fixture(autouse=True)
def _threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_it_keeps_the_contract_of_an_engine() -> None:
    engine = TissueEngine()
    assert isinstance(engine, Engine)
    assert engine.weights_digest == ""
    assert engine.vocabularies == {"maisi", "brain"}
    assert {"ct", "ct_wo_contrast", "ct_contrast", "mri_t1", "mri_flair_skull_stripped"} <= engine.sequences
    engine.close()


def test_images_are_int16_on_the_grid_and_say_what_was_drawn() -> None:
    body = small_body()
    images = TissueEngine().render(make_case(body, ("ct", "ct_contrast", "mri_t1")), body, 0)
    assert list(images) == ["ct", "ct_contrast", "mri_t1"]
    for sequence, image in images.items():
        assert image.dtype == np.int16
        assert image.shape == body.size
        assert images.parameters[sequence]
    assert images.parameters["ct"]["phase"] == "native"
    assert images.parameters["ct_contrast"]["phase"] in ("arterial", "portal")
    assert images["mri_t1"].min() >= 0


@pytest.mark.parametrize("size", [(72, 56, 40), (67, 53, 37)])
def test_the_number_of_threads_does_not_change_a_byte(size: tuple[int, int, int]) -> None:
    body = small_body(size)
    case = make_case(body, ("ct", "ct_contrast", "mri_t1", "mri_t2"))
    one = TissueEngine(threads=1).render(case, body, 0)
    two = TissueEngine(threads=2).render(case, body, 0)
    for sequence in case.sequences:
        assert one[sequence].tobytes() == two[sequence].tobytes(), sequence


def test_attempts_and_seeds_draw_anew_and_repeat() -> None:
    body = small_body()
    engine = TissueEngine()
    first = engine.render(make_case(body), body, 0)["ct"]
    assert np.array_equal(first, engine.render(make_case(body), body, 0)["ct"])
    assert not np.array_equal(first, engine.render(make_case(body), body, 1)["ct"])
    assert not np.array_equal(first, engine.render(make_case(body, seed=1), body, 0)["ct"])


def test_sequences_of_a_case_share_texture_but_not_noise() -> None:
    body = small_body()
    case = make_case(body, ("ct", "ct_wo_contrast"), ct={"kernel": "soft", "noise": 4.0})
    images = TissueEngine().render(case, body, 0)
    muscle = (body.voxels == 200) & (images["ct"] > 0) & (images["ct_wo_contrast"] > 0)
    one, two = images["ct"][muscle].astype(float), images["ct_wo_contrast"][muscle].astype(float)
    assert not np.array_equal(one, two)
    assert np.corrcoef(one, two)[0, 1] > 0.6
    assert 3.0 < np.std(one - two) / np.sqrt(2) < 5.5  # what differs is the noise


def test_a_sequence_without_physics_is_refused() -> None:
    with pytest.raises(EngineError, match="mri_dwi") as refusal:
        TissueEngine().validate(make_case(small_body(), ("mri_dwi",)))
    assert "case body" in str(refusal.value.where)
    assert "mri_t1" in str(refusal.value.allowed)


def test_a_sequence_of_the_head_is_refused_for_a_body_before_any_work() -> None:
    body = small_body()
    torso = make_case(body, ("ct", "mri_flair")).model_copy(update={"body": "parametric:torso"})
    with pytest.raises(EngineError, match="maisi") as refusal:
        TissueEngine().validate(torso)
    assert "ct_contrast" in str(refusal.value.allowed)
    with pytest.raises(EngineError, match="mri_flair"):
        TissueEngine().render(make_case(body, ("ct", "mri_flair")), body, 0)


@pytest.mark.parametrize(
    ("parameters", "place", "help_"),
    [
        ({"ct": {"kernal": "soft"}}, "ct.kernal", "kernel"),
        ({"ct": {"dose": -1}}, "ct.dose", "greater than 0"),
        ({"ct": {"phase": "late"}}, "ct.phase", "portal"),
        ({"CT": {}}, "CT", "intensities"),
        ({"intensities": "real"}, "intensities", "template"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_allowed(parameters: dict, place: str, help_: str) -> None:
    with pytest.raises(EngineError) as refusal:
        TissueEngine().validate(make_case(small_body(), **parameters))
    assert place in str(refusal.value)
    assert help_ in str(refusal.value)


def test_a_label_map_in_a_foreign_language_is_refused() -> None:
    body = small_body()
    foreign = Vocabulary("martian", (Label(1, "gland", "organ", "", "#ffffff", "liver"),))
    with pytest.raises(EngineError, match="martian"):
        TissueEngine().render(make_case(body), replace(body, vocabulary=foreign), 0)


@pytest.mark.parametrize("options", [{"device": "abacus"}, {"threads": 0}])
def test_impossible_hardware_is_refused(options: dict) -> None:
    with pytest.raises(EngineError):
        TissueEngine(**options)
