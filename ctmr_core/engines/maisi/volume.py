"""One volume of a variant: request in, int16 image and record of how it was made out. Used by engines and command line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ctmr_core.anatomy.sequences import MODALITY_CODES
from ctmr_core.engines.maisi.decoder import REFERENCE_WINDOW, Decoder
from ctmr_core.engines.maisi.models import MaisiModels
from ctmr_core.engines.maisi.noise import Seed
from ctmr_core.engines.maisi.parameters import MaisiParameters
from ctmr_core.engines.maisi.sampling import Embedded, sample_image, sample_image_from_mask
from ctmr_core.engines.maisi.starting_image import Start
from ctmr_core.errors import EngineError

#: What the reference decodes images of nobody in (``diff_model_infer.py``).
_REFERENCE_UNLABELLED = ((80, 80, 80), 0.4)


@dataclass(frozen=True, eq=False)
class VolumeRequest:
    """What to make. labels: uint8 [x, y, z] in the maisi vocabulary, or None to draw an anatomy showing ``region``.

    size: voxels. spacing: mm. sequence: a name of ``MODALITY_CODES``. region matters to ddpm-ct only. start: an image to start
    from in place of noise alone. embedded: shared by the sequences of one label map, which is then embedded once.
    """

    size: tuple[int, int, int]
    spacing: tuple[float, float, float]
    sequence: str
    labels: np.ndarray | None = None
    region: str | None = None
    start: Start | None = None
    embedded: Embedded | None = None


def sample_volume(
    models: MaisiModels, request: VolumeRequest, parameters: MaisiParameters, seed: Seed
) -> tuple[np.ndarray, dict[str, Any]]:
    """The image (int16 [x, y, z]; CT in HU, MR in arbitrary units >= 0) and a JSON-able record of how it was made."""
    labelled = request.labels is not None
    modality = MODALITY_CODES[request.sequence]
    guidance = parameters.guidance
    if guidance is None:
        guidance = 0.0 if labelled else models.variant.guidance
    steps = parameters.steps or models.variant.steps
    decoder = Decoder(models, request.size, _window(parameters, labelled=labelled), stitch_on_cpu=labelled)
    settings: dict[str, Any] = {
        "spacing": request.spacing,
        "modality": modality,
        "steps": steps,
        "guidance": guidance,
        "seed": seed,
        "compat": parameters.compat,
        "decoder": decoder,
        "start": request.start,
    }
    regions = parameters.regions or ((request.region, request.region) if request.region else None)
    if regions and models.has_region_input:
        settings.update(top_region=regions[0], bottom_region=regions[1])
    if request.labels is not None:
        hu = sample_image_from_mask(models, request.labels, embedded=request.embedded, **settings)
        image = np.rint(hu, out=hu).astype(np.int16)
    else:
        image = sample_image(models, size=request.size, **settings)
    record = {
        "variant": models.variant.name,
        "mode": parameters.mode,
        "modality": modality,
        "labels": "conditioned on" if labelled else "none",
        "steps": steps,
        "guidance": guidance,
        "device": models.device.type,
        **decoder.record(),
    }
    if request.start is not None:
        record["strength"] = request.start.strength
    if "top_region" in settings:
        record["regions"] = list(regions or ())
    return image, record


def _window(parameters: MaisiParameters, *, labelled: bool) -> tuple[Sequence[int], float] | None:
    """The decoding window that was asked for or that the reference has; None: by the memory that is free."""
    if parameters.decode is not None:
        return parameters.decode.window, parameters.decode.overlap
    if parameters.compat:
        return REFERENCE_WINDOW if labelled else _REFERENCE_UNLABELLED
    return None


def device_named(name: str) -> torch.device:
    """The device of that name; ``EngineError`` where torch knows none."""
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise EngineError("unknown device", found=name, allowed="cpu, cuda, cuda:<n>") from error


@contextmanager
def one_thread(device: torch.device) -> Iterator[None]:
    """On a CPU, compute in one thread: oneDNN picks its convolutions by the number of threads, and their last bits differ."""
    before = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
