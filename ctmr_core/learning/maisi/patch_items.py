"""Patches of images in the autoencoder's units, changed at random as NVIDIA's training changes them."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import torch

from ctmr_core.engines.maisi.encode import normalised
from ctmr_core.engines.maisi.variants import LAST_CT_CODE
from ctmr_core.learning.maisi.batches import Items, Key
from ctmr_core.learning.maisi.settings import AutoencoderConfig
from ctmr_core.learning.maisi.sources import Source


class PatchItems(Items):
    """case_id, image float32 [1, *patch], modality (code). What is random depends on seed, epoch and image alone."""

    def __init__(self, sources: Sequence[Source], config: AutoencoderConfig) -> None:
        self._sources = list(sources)
        self._config = config
        self.sizes: Sequence[Hashable] = [config.patch] * len(self._sources)

    def __getitem__(self, key: Key) -> dict[str, Any]:
        epoch, index = key
        source = self._sources[index]
        volume = prepared(source, self._config)
        change = random_changes(self._config, source.modality)
        identity = f"{self._config.seed}|{epoch}|{source.name}".encode()
        change.set_random_state(seed=int.from_bytes(hashlib.sha256(identity).digest()[:4], "big"))
        patch = torch.as_tensor(np.asarray(change(volume)), dtype=torch.float32).contiguous()
        return {"case_id": source.name, "image": patch, "modality": torch.tensor(source.modality)}


def prepared(source: Source, config: AutoencoderConfig) -> Any:
    """A whole image in the autoencoder's units, float32 [1, x, y, z] with its affine, at the spacing of the configuration."""
    from monai.data import MetaTensor
    from monai.transforms import Spacing

    scan = source.read()
    volume: Any = MetaTensor(
        torch.from_numpy(normalised(scan.voxels, source.modality))[None], affine=torch.from_numpy(scan.affine)
    )
    return volume if config.spacing is None else Spacing(config.spacing, mode="bilinear")(volume)


def random_changes(config: AutoencoderConfig, modality: int) -> Any:
    """Random changes of an image [1, x, y, z], ending in a patch (NV-Generate-CTMR, ``scripts/transforms.py``).

    NVIDIA gives ``RandScaleIntensity`` the factors 0.9 and 1.1, which MONAI adds to 1: images are then made twice as bright
    (``compat``). The fixed mode scales by 0.9 to 1.1.
    """
    from monai import transforms as t

    steps: list[Any] = []
    if modality > LAST_CT_CODE:
        steps += [
            t.RandBiasField(prob=0.3, coeff_range=(0.0, 0.3)),
            t.RandGibbsNoise(prob=0.3, alpha=(0.5, 1.0)),
            t.RandAdjustContrast(prob=0.3, gamma=(0.5, 2.0)),
            t.RandHistogramShift(prob=0.05, num_control_points=10),
        ]
    steps += [t.RandFlip(prob=0.5, spatial_axis=axis) for axis in range(3)]
    steps += [t.RandRotate90(prob=0.5, max_k=3, spatial_axes=axes) for axes in ((0, 1), (1, 2), (0, 2))]
    factors = (0.9, 1.1) if config.compat else (-0.1, 0.1)
    steps += [t.RandScaleIntensity(prob=0.3, factors=factors), t.RandShiftIntensity(prob=0.3, offsets=0.05)]
    if config.random_zoom:
        steps += [
            t.RandZoom(prob=0.3, min_zoom=0.5, max_zoom=1.5, keep_size=False, mode="trilinear"),
            t.RandRotate(prob=0.3, range_x=0.1, range_y=0.1, range_z=0.1),
        ]
    steps += [t.SpatialPad(config.patch), t.RandSpatialCrop(config.patch, random_size=False)]
    return t.Compose(steps)
