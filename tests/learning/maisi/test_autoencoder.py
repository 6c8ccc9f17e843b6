"""Training the autoencoder: two players, patches that are the same again, weights that engines take."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from ctmr_core.engines.maisi import MaisiModels
from ctmr_core.engines.maisi.encode import encode_values
from ctmr_core.errors import LearningError
from ctmr_core.learning.maisi.autoencoder import AutoencoderTask
from ctmr_core.learning.maisi.patch_items import PatchItems, random_changes
from ctmr_core.learning.maisi.run import train
from ctmr_core.learning.maisi.settings import AutoencoderConfig
from ctmr_core.learning.maisi.sources import sources_of
from ctmr_core.learning.training import Step, parse_config
from ctmr_core.learning.training.board import read_metrics


def settings(base, bodies, training=None, **more):
    brief = {"workers": 0, "logging": {"every": 1, "tensorboard": False}, "steps": 2, "validate_every": 0}
    given = {
        "variant": "rflow-ct",
        "models": base,
        "images": {"dataset": bodies.uri, "sequences": ["ct"]},
        "patch": [24, 24, 24],
        "loss": {"perceptual": 0},
        "discriminator_channels": 4,
        "validation_window": [32, 32, 32],
        "validation_items": 1,
    }
    return parse_config({**given, **more, "training": {**brief, **(training or {})}}, AutoencoderConfig)


@pytest.mark.slow
def test_a_trained_autoencoder_is_taken_by_the_engine(base, bodies, tmp_path):
    done = train(settings(base, bodies, {"steps": 1}), tmp_path)
    assert {"loss", "reconstruction", "kl", "psnr", "latent_scale"} == set(done.scores)
    (line,) = read_metrics(tmp_path, "train")
    assert {"autoencoder/reconstruction", "autoencoder/kl", "autoencoder/adversarial", "discriminator/loss"} <= set(line)
    models = MaisiModels.load("rflow-ct", root=tmp_path, network_config=tmp_path / "network_rflow-ct.json")
    assert encode_values(models, np.zeros((16, 16, 16), np.float32)).shape == (1, 4, 4, 4, 4)
    assert models.scale_factor == pytest.approx(0.9), "the other networks are those of the base"
    record = json.loads((tmp_path / "training.json").read_text())
    assert record["licences_of_weights"] == ["NVIDIA Open Model License"]


@pytest.mark.slow
def test_a_resumed_training_is_the_uninterrupted_one(base, bodies, tmp_path):
    config = settings(base, bodies)
    train(config, tmp_path / "whole")
    asked = iter([True])
    assert not train(config, tmp_path / "parts", should_stop=lambda: next(asked)).finished
    train(config, tmp_path / "parts")
    one, two = (torch.load(tmp_path / name / "models" / "autoencoder_v1.pt", weights_only=True) for name in ("whole", "parts"))
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_both_players_minimize_their_own_loss(base, bodies):
    task = AutoencoderTask(settings(base, bodies))
    batch = next(iter(task.batches))
    steps = [Step(0, player, torch.device("cpu"), torch.Generator(), base) for player in task.players]
    torch.manual_seed(4)
    total, parts = task.loss(batch, task.modules, steps[0])
    made = task._made[0]
    expected = parts["reconstruction"] + 1e-7 * parts["kl"] + 0.1 * parts["adversarial"]
    assert float(total) == pytest.approx(float(expected), rel=1e-5)
    verdicts = [task.modules["discriminator"](image)[-1] for image in (made, batch["image"])]
    fake, real = (torch.nn.functional.leaky_relu(verdict, 0.05) for verdict in verdicts)  # MONAI's least squares
    told, _ = task.loss(batch, task.modules, steps[1])
    assert float(told) == pytest.approx(float(0.5 * ((fake**2).mean() + ((real - 1) ** 2).mean())), rel=1e-4)
    assert float(parts["adversarial"]) == pytest.approx(float(((fake - 1) ** 2).mean()), rel=1e-4)
    assert task._made == []


def test_patches_depend_on_seed_epoch_and_image_alone(base, bodies):
    config = settings(base, bodies)
    items = PatchItems(sources_of(config.images, 5), config)
    first, again, later = items[0, 1], items[0, 1], items[1, 1]
    assert first["image"].shape == (1, 24, 24, 24)
    assert torch.equal(first["image"], again["image"])
    assert not torch.equal(first["image"], later["image"])


@pytest.mark.parametrize(("mode", "low", "high"), [("fixed", 0.9, 1.1), ("compat", 1.9, 2.1)])
def test_brightness_is_changed_by_a_tenth_and_doubled_by_the_reference(base, bodies, mode, low, high):
    steps = random_changes(settings(base, bodies, mode=mode), 1).transforms
    (scale,) = (step for step in steps if type(step).__name__ == "RandScaleIntensity")
    scale.prob = 1.0
    found = [float(np.asarray(scale(torch.ones(1, 2, 2, 2))).mean()) for _ in range(20)]
    assert low <= min(found) < max(found) <= high


def test_mr_gets_the_changes_of_mr(base, bodies):
    names = {
        modality: [type(step).__name__ for step in random_changes(settings(base, bodies), modality).transforms]
        for modality in (1, 9)
    }
    assert {"RandBiasField", "RandGibbsNoise", "RandAdjustContrast", "RandHistogramShift"} <= set(names[9]) - set(names[1])


def test_a_patch_that_cannot_be_halved_is_refused(base, bodies):
    with pytest.raises(LearningError, match="multiples of 4"):
        AutoencoderTask(settings(base, bodies, patch=[26, 24, 24]))
    with pytest.raises(LearningError, match="larger patches"):
        AutoencoderTask(settings(base, bodies, patch=[16, 24, 24]))
