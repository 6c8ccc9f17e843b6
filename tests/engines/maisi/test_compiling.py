"""Compiled networks give the same image, and a compiler that is not there is named."""

from __future__ import annotations

import json
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from ctmr_core.engines.maisi import MaisiModels, sample_image_from_mask
from ctmr_core.engines.maisi.parameters import MaisiParameters
from ctmr_core.errors import EngineError
from tests.engines.maisi.checkpoints import shrink, write_checkpoints


@pytest.fixture(scope="module")
def root(golden, tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    config = shrink(golden.network("rflow"))
    write_checkpoints(folder, "rflow-ct", config, netseed=200, networks=("autoencoder", "diffusion_unet", "controlnet"))
    (folder / "network.json").write_text(json.dumps(config))
    return folder


def image(root, compiler: str | None) -> np.ndarray:
    models = MaisiModels.load("rflow-ct", root=root, network_config=root / "network.json", compiler=compiler)
    mask = np.full((32, 32, 32), 200, np.uint8)
    mask[:8] = 1
    return sample_image_from_mask(models, mask, spacing=(2, 2, 2), steps=1, seed=1, compat=False)


def test_the_networks_of_the_sampling_loop_are_compiled_and_no_others(root):
    models = MaisiModels.load("rflow-ct", root=root, network_config=root / "network.json", compiler="eager")
    plain = MaisiModels.load("rflow-ct", root=root, network_config=root / "network.json")
    assert [is_compiled(part) for part in parts_of(models)] == [True, True, False, False]
    assert not any(is_compiled(part) for part in parts_of(plain))
    assert models.scale_factor == plain.scale_factor


def parts_of(models: MaisiModels) -> list[torch.nn.Module]:
    return [models.diffusion_unet, models.controlnet.network, models.controlnet.embedding, models.autoencoder]


def is_compiled(network: torch.nn.Module) -> bool:
    return isinstance(network, torch._dynamo.OptimizedModule)


@pytest.mark.slow
def test_a_captured_graph_gives_the_same_image(root):
    """``eager`` captures the graphs as every backend does, and runs them without a toolchain."""
    np.testing.assert_allclose(image(root, "eager"), image(root, None), atol=0.5)


@pytest.mark.slow
def test_torchs_own_compiler_gives_the_same_image(root):
    np.testing.assert_allclose(image(root, "inductor"), image(root, None), atol=2)


def test_a_compiler_that_is_not_there_is_refused_by_name(root):
    if find_spec("torch_tensorrt") is None:
        with pytest.raises(EngineError, match="TensorRT is not installed"):
            MaisiModels.load("rflow-ct", root=root, compiler="tensorrt")
    with pytest.raises(EngineError, match="unknown backend"):
        MaisiModels.load("rflow-ct", root=root, compiler="gcc")


def test_recipes_name_the_compiler():
    assert MaisiParameters().compiler is None
    assert MaisiParameters(compile=True).compiler == "inductor"
    assert MaisiParameters(compile="tensorrt").compiler == "tensorrt"
