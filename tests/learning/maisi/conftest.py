"""Shrunken networks on disk, a few bodies, and their latents."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ctmr_core.engines.maisi.network_config import reference_config
from ctmr_core.learning.maisi.latents import make_latents
from ctmr_core.learning.maisi.settings import Images, LatentsConfig
from ctmr_core.store import Dataset
from tests.engines.maisi.checkpoints import shrink, write_checkpoints

IMAGE_NETWORKS = ("autoencoder", "diffusion_unet", "controlnet")


def shrunken(folder: Path, variant: str, networks=IMAGE_NETWORKS) -> Path:
    config = shrink(reference_config("ddpm" if variant == "ddpm-ct" else "rflow"))
    for name in ("diffusion_unet_def", "controlnet_def"):
        config[name] |= {"num_channels": [8, 8, 16, 16], "num_head_channels": [0, 0, 8, 8], "norm_num_groups": 8}
    write_checkpoints(folder, variant, config, netseed=200, networks=networks)
    (folder / f"network_{variant}.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with shrunken networks of rflow-ct."""
    return shrunken(tmp_path_factory.mktemp("base"), "rflow-ct")


@pytest.fixture(scope="session")
def latents(tmp_path_factory: pytest.TempPathFactory, base: Path, bodies: Dataset) -> Path:
    """Latents [4, 8, 8, 16] of the CT of seven bodies (two held out), with label maps of 32 x 32 x 64 voxels."""
    out = tmp_path_factory.mktemp("latents")
    images = Images(dataset=bodies.uri, sequences=("ct",))
    made = make_latents(LatentsConfig(variant="rflow-ct", models=base, images=images, labels=True, multiple=32), out)
    assert len(made.made) == 7
    assert not made.refused
    return out
