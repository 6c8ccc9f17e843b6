"""Image -> latent: the autoencoder's encoder, in windows that fit the memory."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from monai.inferers import sliding_window_inference

from ctmr_core.engines.maisi.decode import set_splits
from ctmr_core.engines.maisi.intensities import intensity_range
from ctmr_core.engines.maisi.memory import Decoding, Precision, decode_within_memory, first_rung, free_bytes, ladder
from ctmr_core.engines.maisi.models import MaisiModels
from ctmr_core.engines.maisi.variants import LAST_CT_CODE
from ctmr_core.errors import EngineError

_MR_PERCENTILES = (0.0, 99.5)
"""Of an MR image, become 0 and 1: how the autoencoder was trained (NV-Generate-CTMR, ``scripts/transforms.py``)."""


@dataclass(frozen=True)
class Window:
    """Where the encoder works at a time: voxels of the latent [x, y, z] (a quarter of the image's), and their overlap."""

    size: tuple[int, int, int]
    overlap: float


REFERENCE_WINDOW = Window((80, 80, 40), 0.4)
"""320 x 320 x 160 voxels (NV-Generate-CTMR, ``scripts/diff_model_create_training_data.py``)."""


def normalised(image: np.ndarray, modality: int) -> np.ndarray:
    """float32 image in the autoencoder's units: CT -1000..1000 HU to 0-1, clipped; MR by its percentiles, not clipped.

    Raises ``EngineError`` for an MR image of one value.
    """
    values = image.astype(np.float32)
    low: float
    high: float
    if modality <= LAST_CT_CODE:
        low, high = intensity_range(modality)
        np.clip(values, low, high, out=values)
    else:
        low, high = (float(value) for value in np.percentile(values, _MR_PERCENTILES))
        if high <= low:
            raise EngineError("the image is constant", found=low)
    values -= low
    values /= high - low
    return values


@torch.inference_mode()
def encode_values(
    models: MaisiModels, values: np.ndarray, *, window: Window | None = None, sampled: int | None = None
) -> torch.Tensor:
    """The latent [1,4,X/4,Y/4,Z/4], float32, of an image [x, y, z] in the autoencoder's units (``normalised``).

    window: None chooses by the free memory. sampled: seed of a draw from the latent's distribution, which is how the reference
    prepares training (in every window anew); None gives the mean, without a random part.
    """
    volume = torch.from_numpy(values)[None, None]
    size = (values.shape[0], values.shape[1], values.shape[2])
    precision: Precision = "float32" if models.dtype is torch.float32 else "float16"
    work = partial(_encoded, models, volume, sampled)
    if window is not None:
        return work(Decoding(window.size, window.overlap, 1, precision))
    rungs = ladder(size, precision, (1,))
    channels = int(models.config["autoencoder_def"]["num_channels"][0])
    start = first_rung(rungs, size, channels, models.device, free_bytes(models.device))
    latent, _, _ = decode_within_memory(rungs, start, work)
    return latent


def _encoded(models: MaisiModels, volume: torch.Tensor, sampled: int | None, rung: Decoding) -> torch.Tensor:
    autoencoder = models.autoencoder
    set_splits(autoencoder, 1, 1)
    generator = None if sampled is None else torch.Generator().manual_seed(sampled)

    def latent_of(window: torch.Tensor) -> torch.Tensor:
        with models.autocast():
            mean, spread = autoencoder.encode(window.to(models.device))  # type: ignore[operator]
        latent: torch.Tensor = mean.float()
        if generator is not None:
            latent = latent + spread.float() * torch.randn(latent.shape, generator=generator).to(latent.device)
        return latent

    stride = models.latent_stride
    roi = [min(stride * w, n) for w, n in zip(rung.window, volume.shape[2:], strict=True)]
    if list(volume.shape[2:]) == roi:
        return latent_of(volume)
    stitched = sliding_window_inference(
        volume, roi_size=roi, sw_batch_size=1, predictor=latent_of, overlap=rung.overlap, mode="gaussian"
    )
    if not isinstance(stitched, torch.Tensor):
        raise TypeError("one output expected of the encoder")
    return stitched
