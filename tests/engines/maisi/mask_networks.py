"""Small networks and label maps for the tests of label-map generation."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from scipy import ndimage

from ctmr_core.engines.maisi import MaisiModels
from tests.engines.maisi.checkpoints import Golden, shrink, write_checkpoints


def small_models(golden: Golden, folder: Path, *, netseed: int = 300, scale_factor: float = 1.0) -> MaisiModels:
    """All five networks of rflow-ct, shrunken and filled by the rule."""
    config = shrink(golden.network("rflow"))
    root = write_checkpoints(folder, "rflow-ct", config, netseed=netseed, scale_factor=scale_factor)
    return MaisiModels.load("rflow-ct", root=root, network_config=config)


def blobs(labels: tuple[int, ...], seed: int, size: int = 32, sigma: float = 2.5) -> np.ndarray:
    """uint8 [size, size, size]: random smooth regions of ``labels`` in a ball of body; background outside."""
    rng = np.random.default_rng(seed)
    fields = [ndimage.gaussian_filter(rng.standard_normal((size,) * 3), sigma) for _ in labels]
    volume = np.array(labels, np.uint8)[np.argmax(fields, axis=0)]
    grid = np.indices((size,) * 3) - (size - 1) / 2
    volume[(grid**2).sum(axis=0) > (0.48 * size) ** 2] = 0
    return volume


@cache
def torso() -> np.ndarray:
    """uint8 [48, 48, 48]: a box of body with liver, pancreas, colon, two lobes, a vertebra and five tumours."""
    volume = np.zeros((48, 48, 48), np.uint8)
    volume[3:45, 3:45, :] = 200
    volume[5:25, 6:40, 2:18] = 1
    volume[28:42, 8:20, 2:16] = 4
    volume[28:42, 24:40, 2:16] = 62
    volume[5:23, 8:40, 22:46] = 32
    volume[27:43, 8:40, 22:46] = 29
    volume[23:27, 20:32, :] = 40
    volume[12:17, 18:23, 8:12] = 26
    volume[33:37, 12:16, 7:11] = 24
    volume[33:37, 30:34, 7:11] = 27
    volume[12:16, 20:25, 32:37] = 23
    volume[24:26, 24:28, 20:25] = 128
    volume.setflags(write=False)
    return volume
