"""``ctmr train latents | diffusion``, from YAML to a volume; and that the examples are valid."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from ctmr_core.learning.maisi.settings import AutoencoderConfig, ControlNetConfig, DiffusionConfig, LatentsConfig
from ctmr_core.learning.training import load_config
from pipelines.cli.main import app
from tests.conftest import REPOSITORY

CONFIGS = {
    "latents": LatentsConfig,
    "autoencoder": AutoencoderConfig,
    "diffusion": DiffusionConfig,
    "controlnet": ControlNetConfig,
}


@pytest.mark.parametrize("name", list(CONFIGS))
def test_the_examples_are_valid(name):
    assert load_config(REPOSITORY / "manifests" / "training" / f"{name}.yaml", CONFIGS[name]).variant == "rflow-ct"


def test_from_images_to_a_volume_of_the_tuned_network(base, bodies, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = CliRunner().invoke
    images = f"images: {{dataset: {bodies.uri}, sequences: [ct]}}\n"
    (tmp_path / "latents.yaml").write_text(f"variant: rflow-ct\nmodels: {base}\n{images}multiple: 32\n")
    result = run(app, ["train", "latents", "latents.yaml", "--out", "latents", "--json"])
    assert result.exit_code == 0, result.output
    assert len(json.loads(result.output)["made"]) == 7
    brief = "{steps: 1, workers: 0, logging: {tensorboard: false}}"
    (tmp_path / "diffusion.yaml").write_text(
        f"variant: rflow-ct\nmodels: {base}\nlatents: [latents]\nvalidation_times: 1\nvalidation_items: 1\ntraining: {brief}\n"
    )
    result = run(app, ["train", "diffusion", "diffusion.yaml", "--out", "tuned", "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.output)["file"] == "tuned/models/diff_unet_3d_rflow-ct.pt"
    # the command runs again: nothing is left to do, and the folder is still the training's own
    assert run(app, ["train", "diffusion", "diffusion.yaml", "--out", "tuned"]).exit_code == 0
    grid = ["--size", "32", "32", "32", "--spacing", "2", "2", "2", "--no-limits", "--steps", "1"]
    result = run(app, ["models", "sample", "rflow-ct", *grid, "--root", "tuned", "--out", "ct.nii.gz"])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "ct.nii.gz").is_file()
    listed = json.loads(run(app, ["models", "list", "--root", "tuned", "--json"]).output)["variants"]["rflow-ct"]["files"]
    assert {file["path"]: file["status"] for file in listed}["models/diff_unet_3d_rflow-ct.pt"] == "trained"


def test_images_that_were_refused_fail_the_command(base, tmp_path):
    (tmp_path / "bad.nii.gz").write_bytes(b"nothing")
    (tmp_path / "list.json").write_text(json.dumps({"training": [{"image": "bad.nii.gz", "modality": "ct"}]}))
    (tmp_path / "latents.yaml").write_text(f"variant: rflow-ct\nmodels: {base}\nimages: {{list: {tmp_path}/list.json}}\n")
    result = CliRunner().invoke(
        app, ["train", "latents", str(tmp_path / "latents.yaml"), "--out", str(tmp_path / "out"), "--json"]
    )
    assert result.exit_code == 1
    assert list(json.loads(result.stdout)["refused"]) == ["bad"]
