"""Sampling images: from noise alone, or for a label map."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from ctmr_core.engines.maisi.behaviour import Behaviour, behaviour
from ctmr_core.engines.maisi.conditioning import (
    Conditioning,
    Region,
    check_modality,
    check_size,
    check_spacing,
    embed_mask,
    image_conditioning,
    modality_input,
    regions_of_mask,
)
from ctmr_core.engines.maisi.decode import check_window, conv_splits, decode
from ctmr_core.engines.maisi.denoise import Predictor, check_guidance, denoise, guided_predictor, image_predictor
from ctmr_core.engines.maisi.intensities import image_only_values, paired_values
from ctmr_core.engines.maisi.models import MaisiModels
from ctmr_core.engines.maisi.noise import Noise, Seed
from ctmr_core.engines.maisi.schedulers import make_sampler
from ctmr_core.engines.maisi.starting_image import Start, begin
from ctmr_core.engines.maisi.tumors import remove_tumors
from ctmr_core.errors import EngineError

Decoder = Callable[[torch.Tensor], torch.Tensor]
"""Latent [1,4,x,y,z], divided by the latent scale -> decoded volume [1,1,X,Y,Z]."""

Embedded = dict[str, torch.Tensor]
"""Label maps of one case as the ControlNet takes them; filled while images are made."""

UNKNOWN_MODALITY = 0
"""Class of the unconditional half of guidance."""
DEFAULT_REGIONS: tuple[Region, Region] = ("chest", "abdomen")


@torch.inference_mode()
def sample_image(
    models: MaisiModels,
    *,
    size: Sequence[int],
    spacing: Sequence[float],
    modality: int = 1,
    steps: int | None = None,
    guidance: float = 0.0,
    seed: Seed = 0,
    top_region: Region | None = None,
    bottom_region: Region | None = None,
    decode_window: Sequence[int] = (80, 80, 80),
    decode_overlap: float = 0.4,
    compat: bool = True,
    decoder: Decoder | None = None,
    start: Start | None = None,
) -> np.ndarray:
    """An image of nobody in particular: int16 [x, y, z], HU for modality codes up to 7, else arbitrary units from 0.

    size: voxels, multiples of 32. spacing: mm. modality: code of ``variants.MODALITY_CODES`` (ddpm-ct takes no notice of it).
    steps: default of the variant (30, or 1000 for DDPM). guidance: classifier-free guidance scale against the unknown
    modality, 0 for none. seed: integer or generator. top_region, bottom_region: of ddpm-ct, name or one-hot
    (default: chest to abdomen). decode_window: latent voxels. compat: reproduce the reference including its defects
    (``behaviour.Behaviour``). decoder: decodes in place of the window given. start: an image to start from in place of noise
    alone, which the reference can't. Raises ``EngineError`` for impossible requests; what the weights were made for is
    ``variants.check_limits``.
    """
    switches = behaviour(compat)
    voxels = check_size(size, models.size_multiple)
    code = check_modality(modality)
    check_window(decode_window, decode_overlap)
    conditional = image_conditioning(
        models,
        check_spacing(spacing),
        code,
        (top_region or DEFAULT_REGIONS[0], bottom_region or DEFAULT_REGIONS[1]),
        switches,
        from_mask=False,
    )
    predict = _predictor(models, conditional, check_guidance(guidance), switches, None)
    noise = Noise(seed, models.device, switches)
    latent = _latent(models, voxels, noise, switches, from_mask=False)
    latent = _denoised(models, predict, latent, steps, noise, switches, start, code)
    decoder = decoder or _window_decoder(models, decode_window, decode_overlap, stitch_on_cpu=False, compat=compat)
    decoded = decoder(latent.div_(models.scale_factor))
    return image_only_values(decoded, code, switches)


@torch.inference_mode()
def sample_image_from_mask(
    models: MaisiModels,
    mask: np.ndarray,
    *,
    spacing: Sequence[float],
    modality: int = 1,
    steps: int | None = None,
    guidance: float = 0.0,
    seed: Seed = 0,
    top_region: Region | None = None,
    bottom_region: Region | None = None,
    decode_window: Sequence[int] = (48, 48, 48),
    decode_overlap: float = 0.6666,
    compat: bool = True,
    decoder: Decoder | None = None,
    start: Start | None = None,
    embedded: Embedded | None = None,
) -> np.ndarray:
    """An image of a label map (MAISI labels 0-255, [x, y, z], each axis a multiple of 32): float32 [x, y, z].

    CT lies in -1000 to 1000 HU with -1000 wherever the mask is 0. spacing: mm. guidance: against the unknown modality and
    the mask without tumours, 0 for none. Regions (ddpm-ct) are read off the mask unless given. embedded: shared by images of one
    mask, which is then embedded once. The other arguments are those of ``sample_image``; the decoding window's defaults are
    those of the reference's sampler. Raises ``EngineError``.
    """
    switches = behaviour(compat)
    labels = _checked_mask(mask, models.size_multiple)
    code = check_modality(modality)
    check_window(decode_window, decode_overlap)
    regions = (top_region or DEFAULT_REGIONS[0], bottom_region or DEFAULT_REGIONS[1])
    if models.has_region_input and (top_region is None or bottom_region is None):
        top, bottom = regions_of_mask(labels, switches)
        regions = (top_region or top, bottom_region or bottom)
    conditional = image_conditioning(models, check_spacing(spacing), code, regions, switches, from_mask=True)
    conditional = replace(conditional, mask=_embedded(models, labels, "mask", embedded))
    predict = _predictor(models, conditional, check_guidance(guidance), switches, labels, embedded)
    noise = Noise(seed, models.device, switches)
    latent = _latent(models, labels.shape, noise, switches, from_mask=True)
    latent = _denoised(models, predict, latent, steps, noise, switches, start, code)
    decoder = decoder or _window_decoder(models, decode_window, decode_overlap, stitch_on_cpu=True, compat=compat)
    decoded = decoder(latent.div_(models.scale_factor))
    return paired_values(decoded, labels, code)


def _embedded(models: MaisiModels, mask: np.ndarray, name: str, known: Embedded | None) -> torch.Tensor:
    if known is None:
        return embed_mask(models, mask)
    if name not in known:
        known[name] = embed_mask(models, mask)
    return known[name]


def _window_decoder(models: MaisiModels, window: Sequence[int], overlap: float, *, stitch_on_cpu: bool, compat: bool) -> Decoder:
    def decoder(latent: torch.Tensor) -> torch.Tensor:
        splits = conv_splits(models.config["autoencoder_def"], models.device, compat=compat)
        return decode(models.autoencoder, latent, window, overlap, models.autocast(), splits=splits, stitch_on_cpu=stitch_on_cpu)

    return decoder


def _checked_mask(mask: np.ndarray, multiple: int) -> np.ndarray:
    if mask.ndim != 3 or mask.dtype.kind not in "iu":
        raise EngineError("not a label map", found=f"{mask.ndim} axes of {mask.dtype}", allowed="integers on [x, y, z]")
    check_size(mask.shape, multiple)
    if mask.dtype != np.uint8 and (mask.min() < 0 or mask.max() > np.iinfo(np.uint8).max):
        raise EngineError("labels beyond the 8-bit code", found=(int(mask.min()), int(mask.max())), allowed="0 to 255")
    return mask.astype(np.uint8, copy=False)


def _predictor(
    models: MaisiModels,
    conditional: Conditioning,
    guidance: float,
    switches: Behaviour,
    mask: np.ndarray | None,
    embedded: Embedded | None = None,
) -> Predictor:
    """With guidance where it is asked for and changes anything."""
    if guidance == 0 or (guidance == 1 and not switches.paired_guidance):
        return image_predictor(models, conditional)
    unconditional = conditional
    if conditional.modality is not None:
        unconditional = replace(unconditional, modality=modality_input(UNKNOWN_MODALITY, models.device))
    if mask is not None:
        healthy = remove_tumors(mask, compat=switches.partial_tumour_removal)
        if not np.array_equal(healthy, mask):
            unconditional = replace(unconditional, mask=_embedded(models, healthy, "healthy", embedded))
    if unconditional is conditional and not switches.paired_guidance:
        return image_predictor(models, conditional)
    return guided_predictor(models, conditional, unconditional, guidance, paired=switches.paired_guidance)


def _latent(models: MaisiModels, size: tuple[int, ...], noise: Noise, switches: Behaviour, *, from_mask: bool) -> torch.Tensor:
    """Initial noise. From masks, the reference draws on the CPU and rounds to float16 (and stays there on a GPU)."""
    shape = (1, models.latent_channels, *(n // models.latent_stride for n in size))
    latent = noise.initial(shape, on_device=not from_mask)
    if from_mask and switches.half_noise:
        latent = latent.half()
        return latent.to(models.device) if models.half else latent.float().to(models.device)
    return latent


def _denoised(
    models: MaisiModels,
    predict: Predictor,
    latent: torch.Tensor,
    steps: int | None,
    noise: Noise,
    switches: Behaviour,
    start: Start | None,
    code: int,
) -> torch.Tensor:
    count = models.variant.steps if steps is None else steps
    sampler = make_sampler(models.scheduler(), count, tuple(latent.shape[2:]), switches)
    if start is not None:
        latent, sampler = begin(models, start, code, latent, sampler)
    return denoise(predict, sampler, latent, noise.of_steps, models.device)
