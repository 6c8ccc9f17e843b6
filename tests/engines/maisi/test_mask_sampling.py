from __future__ import annotations

import numpy as np
import pytest
import torch

from ctmr_core.engines.maisi import MaisiModels, sample_mask
from ctmr_core.engines.maisi.mask_sampling import classes_of_logits, missing_labels
from ctmr_core.errors import EngineError
from tests.engines.maisi.checkpoints import shrink, write_checkpoints
from tests.engines.maisi.mask_networks import blobs, torso

SMALL = {"steps": 2, "latent_shape": (4, 8, 8, 8), "decode_window": (8, 8, 8), "decode_overlap": 0.5}
LIVER_ONLY = (0.5, 0.5, 0.4, 0.3, 0.4, -1, -1, -1, -1, -1)
HEPATIC = (0.5, 0.5, 0.4, 0.3, 0.4, -1, -1, 0.4, -1, -1)


@pytest.fixture(scope="module")
def models(golden, tmp_path_factory):
    settings = golden.settings("mask_generation")
    config = shrink(golden.network("rflow"))
    folder = tmp_path_factory.mktemp("weights")
    write_checkpoints(folder, "rflow-ct", config, netseed=settings["netseed"], scale_factor=settings["scale_factor"])
    return MaisiModels.load("rflow-ct", root=folder, network_config=config)


def drawing(*volumes):
    """A decoder that draws the given label maps one after another instead of what the latent holds."""
    from ctmr_core.engines.maisi.mask_postprocessing import CLASS_TO_LABEL

    remaining = iter(volumes)

    def decoder(latent):
        classes = np.zeros(256, np.int64)
        classes[CLASS_TO_LABEL] = np.arange(125)
        hot = torch.nn.functional.one_hot(torch.from_numpy(classes[next(remaining)]), 125)
        return hot.movedim(-1, 0)[None].float()

    return decoder


def test_golden_mask(golden, models):
    settings = golden.settings("mask_generation")
    mask = sample_mask(
        models,
        anatomy_sizes=settings["anatomy"],
        steps=settings["steps"],
        seed=settings["seed"],
        latent_shape=settings["latent"],
        decode_window=settings["roi"],
        decode_overlap=settings["overlap"],
        compat=True,
    )
    expected = golden.arrays("mask_generation")["mask"]
    assert mask.dtype == np.uint8
    assert mask.shape == expected.shape
    assert (mask == expected).mean() >= 0.999


def test_the_same_seed_draws_the_same_mask_whatever_happens_outside(models):
    first = sample_mask(models, LIVER_ONLY, seed=3, compat=False, **SMALL)
    torch.manual_seed(99)
    torch.randn(5)
    assert np.array_equal(first, sample_mask(models, LIVER_ONLY, seed=3, compat=False, **SMALL))
    assert not np.array_equal(first, sample_mask(models, LIVER_ONLY, seed=4, compat=False, **SMALL))


def test_sizes_steer_the_mask(models):
    larger = sample_mask(models, (1.0, *LIVER_ONLY[1:]), seed=3, compat=False, **SMALL)
    assert not np.array_equal(larger, sample_mask(models, LIVER_ONLY, seed=3, compat=False, **SMALL))


def test_unrequested_tumours_and_absent_organs_are_not_there(models):
    mask = sample_mask(models, (-1, 0.5, -1, 0.3, -1, *([-1] * 5)), seed=3, compat=False, **SMALL)
    assert not np.isin(mask, (10, 12, 62, 23, 24, 26, 27, 128, 129)).any()


def test_another_mask_is_drawn_until_the_tumour_is_there(models):
    healthy = np.where(np.isin(torso(), (23, 24, 26, 27, 128)), 1, torso())
    mask = sample_mask(models, HEPATIC, compat=False, decoder=drawing(healthy, torso()), **SMALL)
    assert (mask == 26).any()
    assert not np.isin(mask, (23, 24, 27, 128)).any()
    with pytest.raises(EngineError, match="hepatic tumor"):
        sample_mask(models, HEPATIC, compat=False, attempts=2, decoder=drawing(healthy, healthy, healthy), **SMALL)
    reference = sample_mask(models, HEPATIC, compat=True, decoder=drawing(healthy), **SMALL)
    assert 26 not in reference, "the reference returns what it drew"


def test_a_required_structure_that_never_comes_is_named(models):
    with pytest.raises(EngineError, match="spleen"):
        sample_mask(models, LIVER_ONLY, compat=False, attempts=2, required=(3,), decoder=drawing(torso(), torso()), **SMALL)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"latent_shape": (4, 8, 8, 9)}, "latent"),
        ({"latent_shape": (3, 8, 8, 8)}, "4 channels"),
        ({"steps": 0}, "steps"),
        ({"steps": 1001}, "steps"),
        ({"attempts": 0}, "attempts"),
        ({"decode_overlap": 1.0}, "overlap"),
        ({"seed": -1}, "seed"),
    ],
)
def test_refuses_impossible_requests(models, change, message):
    with pytest.raises(EngineError, match=message):
        sample_mask(models, LIVER_ONLY, **{**SMALL, "compat": False, **change})


def test_classes_are_the_first_of_the_likeliest():
    logits = torch.zeros(1, 125, 20, 3, 2)
    logits[0, 7, 18] = 2.0
    logits[0, 9, 18] = 2.0
    classes = classes_of_logits(logits)
    assert (classes[18] == 7).all()
    assert (np.delete(classes, 18, axis=0) == 0).all()
    with pytest.raises(EngineError, match="mask autoencoder"):
        classes_of_logits(torch.zeros(1, 124, 4, 4, 4))


def test_a_dot_is_no_lesion():
    volume = blobs((1, 3, 200), 0)
    volume[10, 10, 10:13] = 26
    assert missing_labels(volume, (1, 26, 3, 5)) == [26, 5]
    volume[10, 10, 13] = 26
    assert missing_labels(volume, (1, 26, 3)) == []
