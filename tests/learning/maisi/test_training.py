"""Fine-tuning the networks: the loss falls, a resumed training is the uninterrupted one, and engines take what comes of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
import torch

from ctmr_core.engines.maisi import MaisiModels, sample_image, sample_image_from_mask
from ctmr_core.engines.maisi.hub import verify
from ctmr_core.engines.maisi.identity import weights_digest
from ctmr_core.errors import LearningError
from ctmr_core.learning.maisi.controlnet import ControlNetTask
from ctmr_core.learning.maisi.diffusion import DiffusionTask
from ctmr_core.learning.maisi.run import train
from ctmr_core.learning.maisi.settings import ControlNetConfig, DiffusionConfig
from ctmr_core.learning.training import Step, parse_config
from tests.learning.maisi.conftest import shrunken

BRIEF = {"workers": 0, "logging": {"every": 1, "tensorboard": False}}
KINDS = {"diffusion": DiffusionConfig, "controlnet": ControlNetConfig}
FILES = {"diffusion": "diff_unet_3d_rflow-ct.pt", "controlnet": "controlnet_3d_rflow-ct.pt"}


def settings(kind, base, latents, training=None, **more):
    given = {"variant": "rflow-ct", "models": base, "latents": [latents], "validation_times": 1, **more}
    return parse_config({**given, "training": {**BRIEF, "steps": 4, "validate_every": 0, **(training or {})}}, KINDS[kind])


def state(path):
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize("kind", ["diffusion", pytest.param("controlnet", marks=pytest.mark.slow)])
def test_a_resumed_training_is_the_uninterrupted_one(kind, base, latents, tmp_path):
    config = settings(kind, base, latents, {"steps": 4, "batch_size": 2})
    whole = train(config, tmp_path / "whole")
    asked = iter([False, True])
    part = train(config, tmp_path / "parts", should_stop=lambda: next(asked))
    assert (part.reason, part.step, part.finished) == ("stopped", 2, False)
    rest = train(config, tmp_path / "parts")
    assert (rest.reason, rest.step) == ("finished", 4)
    one, two = (state(folder / "models" / FILES[kind]) for folder in (tmp_path / "whole", tmp_path / "parts"))
    wrapper = "unet_state_dict" if kind == "diffusion" else "controlnet_state_dict"
    assert all(torch.equal(one[wrapper][key], two[wrapper][key]) for key in one[wrapper])
    assert one["epoch"] == two["epoch"] == 4
    assert rest.scores == whole.scores
    before = state(base / "models" / FILES[kind])[wrapper]
    assert any(not torch.equal(before[key], one[wrapper][key]) for key in before)


def test_a_fine_tuned_diffusion_network_is_taken_by_the_engine(base, latents, tmp_path):
    done = train(settings("diffusion", base, latents, {"steps": 1}), tmp_path)
    content = state(tmp_path / "models" / FILES["diffusion"])
    assert float(content["scale_factor"]) == pytest.approx(0.9), "the latent scale of the weights it started from"
    assert (content["num_train_timesteps"], content["epoch"]) == (1000, 1)
    models = MaisiModels.load("rflow-ct", root=tmp_path, network_config=tmp_path / "network_rflow-ct.json")
    image = sample_image(models, size=(32, 32, 32), spacing=(2, 2, 2), steps=2, seed=1, compat=False)
    assert image.shape == (32, 32, 32)
    assert {file.path.name: file.status for file in verify("rflow-ct", tmp_path)}[FILES["diffusion"]] == "trained"
    config = tmp_path / "network_rflow-ct.json"
    assert weights_digest("rflow-ct", tmp_path, config) not in ("", weights_digest("rflow-ct", base, config))
    record = json.loads((tmp_path / "training.json").read_text())
    assert record["licences_of_weights"] == ["NVIDIA Open Model License"]
    assert (record["items"], record["held_out"], record["steps"]) == (5, 2, done.used_step)


def test_a_fine_tuned_controlnet_is_taken_by_the_engine(base, latents, tmp_path):
    train(settings("controlnet", base, latents, {"steps": 1}), tmp_path)
    models = MaisiModels.load("rflow-ct", root=tmp_path, network_config=tmp_path / "network_rflow-ct.json")
    mask = np.full((32, 32, 32), 200, np.uint8)
    image = sample_image_from_mask(models, mask, spacing=(2, 2, 2), steps=1, seed=1, compat=False)
    assert image.shape == (32, 32, 32)


@pytest.mark.parametrize("kind", ["diffusion", pytest.param("controlnet", marks=pytest.mark.slow)])
def test_the_loss_falls_on_a_fixed_batch(kind, base, latents):
    config = settings(kind, base, latents, label_dropout=0.0) if kind == "diffusion" else settings(kind, base, latents)
    task = (DiffusionTask if kind == "diffusion" else ControlNetTask)(config)
    first, *_, last = losses_over(task, 10 if kind == "diffusion" else 3)
    assert last < 0.93 * first


def losses_over(task, steps):
    """The losses of Adam on one batch with one draw of noise."""
    (name,) = (one for names in task.players.values() for one in names)
    for other, module in task.modules.items():
        module.requires_grad_(other == name)
    torch.manual_seed(0)
    batch = next(iter(task.batches))
    optimizer = torch.optim.Adam(task.modules[name].parameters(), lr=2e-3)
    found = []
    for _ in range(steps):
        torch.manual_seed(1)
        step = Step(0, name, torch.device("cpu"), torch.Generator().manual_seed(2), task.models.root)
        loss, _ = task.loss(batch, task.modules, step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(float(loss.detach()))
    return found


def test_a_training_never_overwrites_weights_it_did_not_make(base, latents, tmp_path):
    before = (base / "models" / FILES["diffusion"]).read_bytes()
    with pytest.raises(LearningError, match="does not overwrite"):
        train(settings("diffusion", base, latents), base)
    other = shrunken(tmp_path / "other", "rflow-ct", ("diffusion_unet",))
    with pytest.raises(LearningError, match="no training here has made"):
        train(settings("diffusion", base, latents), other)
    assert (base / "models" / FILES["diffusion"]).read_bytes() == before


def test_latents_of_another_autoencoder_are_refused(latents, tmp_path):
    other = shrunken(tmp_path, "rflow-ct")
    state_of = state(other / "models" / "autoencoder_v1.pt")
    torch.save({name: value * 1.01 for name, value in state_of.items()}, other / "models" / "autoencoder_v1.pt")
    with pytest.raises(LearningError, match="another autoencoder"):
        DiffusionTask(settings("diffusion", other, latents))


def test_a_variant_without_a_controlnet_is_refused(base, latents):
    with pytest.raises(LearningError, match="no ControlNet"):
        ControlNetTask(settings("controlnet", base, latents, variant="rflow-mr"))


def test_latents_divided_otherwise_are_another_training(base, latents, tmp_path):
    train(settings("diffusion", base, latents, {"steps": 1}, validation_fold=None), tmp_path)
    with pytest.raises(LearningError, match="data: "):
        train(settings("diffusion", base, latents, {"steps": 2}, validation_fold=0), tmp_path)


def test_the_latent_scale_is_kept_or_measured(base, latents):
    values = np.concatenate(
        [nib.load(path).get_fdata().ravel() for path in sorted(latents.glob("*_emb.nii.gz")) if path.name[8] not in "24"]
    )
    assert DiffusionTask(settings("diffusion", base, latents)).scale_factor == pytest.approx(0.9)
    measured = DiffusionTask(settings("diffusion", base, latents, scale_factor="measure", start="scratch")).scale_factor
    assert measured == pytest.approx(1 / values.std(ddof=1), rel=1e-6)
    compat = DiffusionTask(settings("diffusion", base, latents, {"batch_size": 1}, mode="compat")).scale_factor
    assert compat != pytest.approx(0.9), "the reference measures the first batch, whatever the weights were trained with"


def test_folds_and_typing_errors_are_named(base, latents):
    with pytest.raises(LearningError, match="no latents are held out"):
        DiffusionTask(settings("diffusion", base, latents, validation_fold=3))
    with pytest.raises(LearningError, match="did you mean 'latents'"):
        parse_config({"variant": "rflow-ct", "latent": [str(latents)]}, DiffusionConfig)
    with pytest.raises(LearningError, match="batch can't be shared"):
        DiffusionTask(settings("diffusion", base, latents, {"batch_size": 3, "accumulate": 2}))


@pytest.mark.slow
def test_two_ranks_train_together(base, latents, tmp_path):
    brief = "{steps: 2, batch_size: 2, workers: 0, validate_every: 0, logging: {tensorboard: false}}"
    (tmp_path / "config.yaml").write_text(
        f"variant: rflow-ct\nmodels: {base}\nlatents: [{latents}]\nvalidation_times: 1\ntraining: {brief}\n"
    )
    (tmp_path / "main.py").write_text("from pipelines.cli.main import main\nmain()\n")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "main.py"]
    command += ["train", "diffusion", "config.yaml", "--out", "tuned", "--json"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert (outcome["reason"], outcome["step"]) == ("finished", 2)
    assert state(tmp_path / "tuned" / "models" / FILES["diffusion"])["epoch"] == 2
