"""Under which licences the weights of a training stand: those of what they were trained from, and of nothing else."""

from __future__ import annotations

import json

import pytest
import torch
from typer.testing import CliRunner

from ctmr_core.cases.case import Case
from ctmr_core.engines import load_engine
from ctmr_core.engines.licences import licences_of
from ctmr_core.engines.maisi import MaisiModels
from ctmr_core.engines.maisi.hub import file_states, licences_in, pull
from ctmr_core.engines.maisi.identity import weights_digest
from ctmr_core.learning.maisi.base import write_models
from ctmr_core.learning.maisi.controlnet import ControlNetTask
from ctmr_core.learning.maisi.diffusion import DiffusionTask
from pipelines.cli.main import app
from tests.learning.maisi.conftest import IMAGE_NETWORKS, shrunken
from tests.learning.maisi.test_training import settings

NVIDIA = "NVIDIA Open Model License"


def trained(base, out, network, *origins):
    """A models folder in which ``network`` was trained from ``origins`` of ``base``; the weights are those of the base."""
    models = MaisiModels.load("rflow-ct", root=base, network_config=base / "network_rflow-ct.json")
    content = torch.load(base / "models" / models.variant.files[network], weights_only=True)
    write_models(models, network, content, out, {"task": "none"}, origins=origins)
    return out


def licences(folder):
    """Network file -> names."""
    return {state.path.name.split("_")[0]: list(state.licences) for state in file_states("rflow-ct", folder)}


def test_what_is_trained_from_weights_that_were_trained_from_nothing_is_not_nvidias(base, tmp_path):
    scratch = trained(base, tmp_path / "scratch", "diffusion_unet")
    assert licences(scratch) == {"autoencoder": [NVIDIA], "diff": [], "controlnet": [NVIDIA]}
    tuned = trained(scratch, tmp_path / "tuned", "diffusion_unet", "diffusion_unet")
    assert licences(tuned) == {"autoencoder": [NVIDIA], "diff": [], "controlnet": [NVIDIA]}
    with_controlnet = trained(tuned, tmp_path / "controlnet", "controlnet", "diffusion_unet")
    assert licences(with_controlnet) == {"autoencoder": [NVIDIA], "diff": [], "controlnet": []}
    own = trained(with_controlnet, tmp_path / "own", "autoencoder")
    assert licences(own) == {"autoencoder": [], "diff": [], "controlnet": []}
    assert licences_in("rflow-ct", own) == ()
    assert json.loads((own / "training.json").read_text())["licences_of_weights"] == []
    listed = CliRunner().invoke(app, ["models", "list", "--root", str(with_controlnet)], env={"COLUMNS": "200"}).output
    assert f"{NVIDIA}; of your own: diff_unet_3d_rflow-ct.pt, controlnet_3d_rflow-ct.pt" in listed
    assert {state.status for state in file_states("rflow-ct", own)} == {"trained"}, "whoever trained them, in which folder"
    # written again, as by a training that had ended: nothing changes
    trained(with_controlnet, own, "autoencoder")
    assert licences_in("rflow-ct", own) == ()


def test_what_is_trained_from_released_weights_stays_under_their_licence(base, tmp_path):
    tuned = trained(base, tmp_path / "tuned", "diffusion_unet", "diffusion_unet")
    again = trained(tuned, tmp_path / "again", "diffusion_unet", "diffusion_unet")
    assert licences(again) == {"autoencoder": [NVIDIA], "diff": [NVIDIA], "controlnet": [NVIDIA]}
    (tuned / "licences.json").unlink()
    assert licences(tuned)["diff"] == [NVIDIA], "without a record they are taken for NVIDIA's"


def test_a_ControlNet_stands_under_the_licences_of_both_networks_it_came_from(base, latents):
    assert ControlNetTask(settings("controlnet", base, latents)).origins == ("diffusion_unet", "controlnet")
    assert ControlNetTask(settings("controlnet", base, latents, start="scratch")).origins == ("diffusion_unet",)
    assert DiffusionTask(settings("diffusion", base, latents)).origins == ("diffusion_unet",)
    assert DiffusionTask(settings("diffusion", base, latents, start="scratch")).origins == ()


@pytest.mark.parametrize("body", ["unlabelled:chest", "generated:mask"])
def test_cases_carry_the_licences_of_the_weights_they_name(base, tmp_path, body):
    own = base
    for network in IMAGE_NETWORKS:
        own = trained(own, tmp_path / network, network)
    weights = weights_digest("rflow-ct", own, own / "network_rflow-ct.json")
    case = Case.model_construct(case_id="a", body=body, engine_parameters={"models": str(own), "weights": weights})
    names = licences_of(case, load_engine("rflow-ct"), None)
    assert names == ((NVIDIA,) if body == "generated:mask" else ()), "label maps are drawn by NVIDIA's networks"
    assert licences_of(case.model_copy(update={"engine_parameters": {}}), load_engine("rflow-ct"), None) == (NVIDIA,)


def test_fetching_the_rest_does_not_put_a_trained_file_under_nvidias_licence(base, tmp_path, monkeypatch):
    monkeypatch.setattr("ctmr_core.engines.maisi.released.SHA256", {})
    own = trained(base, tmp_path / "own", "diffusion_unet")
    mirror = shrunken(tmp_path / "mirror", "rflow-ct")
    (own / "models" / "controlnet_3d_rflow-ct.pt").unlink()
    pull("rflow-ct", own, mirror=mirror)
    assert licences(own) == {"autoencoder": [NVIDIA], "diff": [], "controlnet": [NVIDIA]}
