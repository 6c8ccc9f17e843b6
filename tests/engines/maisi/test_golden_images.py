"""Images against the golden vectors, from checkpoint files in the released formats.

The vectors were computed elsewhere in float32. Kernels and thread counts change the last bits of a network's output, and
sampling passes that on: here the same case differs by a few thousandths of a HU between one and two threads, and with a guidance
scale of 10 by several times that. An image that is cut to int16 therefore flips on voxels whose value is that near an integer.

The same computation in float64 equals the vectors on 99.85 % of voxels (rflow-ct) and 99.56 % (rflow-mr, guidance 10). Against
it the float32 vectors err by 0.00078 HU (rms, ``image_from_mask_rflow_ct``) and 0.0020 HU (with guidance 3), and float32 here by
0.00075 and 0.0019. Other BLAS, oneDNN and vector kernels give other errors of that size; none that was tried repeats those
of the vectors, so these two cases stay below 99.9 % of equal voxels.

So besides the bound of 1 the tests ask that every value lies within a tenth of a unit of what cuts to the expected integer.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ctmr_core.engines.maisi import MaisiModels, sample_image, sample_image_from_mask
from ctmr_core.engines.maisi.decode import conv_splits, decode
from tests.engines.maisi.checkpoints import AUTOENCODER, CONTROLNET, DIFFUSION_UNET, Golden, shrink, write_checkpoints

UNIT = {True: 2000, False: 1000}
"""HU, or MR units, per decoded unit: CT, MR."""


def golden_models(golden: Golden, settings: dict[str, Any], folder: Path, networks: list[str]) -> MaisiModels:
    config = shrink(golden.network(settings["network"]))
    variant = "ddpm-ct" if settings["network"] == "ddpm" else "rflow-ct" if settings["modality"] <= 7 else "rflow-mr"
    write_checkpoints(
        folder, variant, config, netseed=settings["netseed"], scale_factor=settings["scale_factor"], networks=networks
    )
    return MaisiModels.load(variant, root=folder, network_config=config)


def request_of(settings: dict[str, Any]) -> dict[str, Any]:
    return {
        "spacing": settings["spacing"],
        "modality": settings["modality"],
        "steps": settings["steps"],
        "guidance": settings["cfgscale"],
        "seed": settings["seed"],
        "top_region": settings.get("top"),
        "bottom_region": settings.get("bottom"),
    }


@pytest.mark.parametrize("name", ["image_only_ddpm_ct", "image_only_rflow_ct", "image_only_rflow_mr_cfg10"])
def test_image_only_is_what_the_reference_makes(
    golden: Golden, tmp_path: Path, name: str, record_property: Callable[[str, object], None]
) -> None:
    settings, expected = golden.settings(name), golden.arrays(name)["image"]
    models = golden_models(golden, settings, tmp_path, [AUTOENCODER, DIFFUSION_UNET])
    decoded: list[np.ndarray] = []

    def keeping_decoder(latent: torch.Tensor) -> torch.Tensor:
        splits = conv_splits(models.config["autoencoder_def"], models.device, compat=True)
        volume = decode(models.autoencoder, latent, (80, 80, 80), 0.4, models.autocast(), splits=splits)
        decoded.append(volume[0, 0].double().numpy().copy())
        return volume

    image = sample_image(models, size=settings["size"], compat=True, decoder=keeping_decoder, **request_of(settings))

    assert image.dtype == np.int16
    assert image.shape == tuple(settings["size"])
    assert np.abs(image.astype(int) - expected).max() <= 1
    is_ct = settings["modality"] <= 7
    values = np.clip(decoded[0] * UNIT[is_ct] - (1000 if is_ct else 0), -1000 if is_ct else 0, 1000 if is_ct else None)
    lowest = np.where(expected > 0, expected, expected - 1)  # cut towards zero: -0.9 and 0.9 become 0
    highest = np.where(expected < 0, expected, expected + 1)
    tolerance = 0.1
    assert (values > lowest - tolerance).all()
    assert (values < highest + tolerance).all()
    equal = float((image == expected).mean())
    record_property("equal voxels", equal)
    assert equal > (0.999 if settings["network"] == "ddpm" else 0.998 if settings["cfgscale"] == 0 else 0.99)


@pytest.mark.parametrize("name", ["image_from_mask_ddpm_ct", "image_from_mask_rflow_ct", "image_from_mask_rflow_ct_cfg_tiled"])
def test_image_from_mask_is_what_the_reference_makes(golden: Golden, tmp_path: Path, name: str) -> None:
    settings, arrays = golden.settings(name), golden.arrays(name)
    models = golden_models(golden, settings, tmp_path, [AUTOENCODER, DIFFUSION_UNET, CONTROLNET])

    image = sample_image_from_mask(
        models,
        arrays["mask"],
        decode_window=settings["roi"],
        decode_overlap=settings["overlap"],
        compat=True,
        **request_of(settings),
    )

    assert image.dtype == np.float32
    assert image.shape == arrays["mask"].shape
    assert np.abs(image - arrays["image"]).max() < 0.05
    assert (image[arrays["mask"] == 0] == -1000).all()


def test_no_golden_image_is_left_out(golden: Golden) -> None:
    assert golden.names("image_only") == ["image_only_ddpm_ct", "image_only_rflow_ct", "image_only_rflow_mr_cfg10"]
    assert golden.names("image_from_mask") == [
        "image_from_mask_ddpm_ct",
        "image_from_mask_rflow_ct",
        "image_from_mask_rflow_ct_cfg_tiled",
    ]
