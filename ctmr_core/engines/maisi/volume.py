"""One volume of a variant: request in, int16 image and record of how it was made out. Used by engines and command line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from ctmr_core.anatomy.sequences import MODALITY_CODES
from ctmr_core.engines.maisi.decode import decode
from ctmr_core.engines.maisi.memory import (
    CPU_SPLITS,
    SPLITS,
    Decoding,
    Precision,
    decode_within_memory,
    first_rung,
    free_bytes,
    ladder,
)
from ctmr_core.engines.maisi.models import MaisiModels
from ctmr_core.engines.maisi.noise import Seed
from ctmr_core.engines.maisi.parameters import MaisiParameters
from ctmr_core.engines.maisi.sampling import sample_image, sample_image_from_mask
from ctmr_core.errors import EngineError

_NAMES: dict[torch.dtype, Precision] = {
    torch.float32: "float32",
    torch.float16: "float16",
    torch.bfloat16: "bfloat16",
}
#: What the reference decodes in unless its presets for a device say otherwise: images of label maps, and of nobody.
_COMPAT_LABELLED = ((48, 48, 48), 0.6666)
_COMPAT_UNLABELLED = ((80, 80, 80), 0.4)


@dataclass(frozen=True, eq=False)
class VolumeRequest:
    """What to make. labels: uint8 [x, y, z] in the maisi vocabulary, or None to draw an anatomy showing ``region``.

    size: voxels. spacing: mm. sequence: a name of ``MODALITY_CODES``. region matters to ddpm-ct only.
    """

    size: tuple[int, int, int]
    spacing: tuple[float, float, float]
    sequence: str
    labels: np.ndarray | None = None
    region: str | None = None


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
    decoder = Decoder(models, request.size, parameters, labelled=labelled)
    settings: dict[str, Any] = {
        "spacing": request.spacing,
        "modality": modality,
        "steps": steps,
        "guidance": guidance,
        "seed": seed,
        "compat": parameters.compat,
        "decoder": decoder,
    }
    regions = parameters.regions or ((request.region, request.region) if request.region else None)
    if regions and models.has_region_input:
        settings.update(top_region=regions[0], bottom_region=regions[1])
    if request.labels is not None:
        image = np.rint(sample_image_from_mask(models, request.labels, **settings)).astype(np.int16)
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
    if "top_region" in settings:
        record["regions"] = list(regions or ())
    return image, record


class Decoder:
    """Decodes one image within the memory there is, and remembers how.

    With a window that was asked for, and in compat mode, only the splits change, which does not change the image.
    """

    def __init__(self, models: MaisiModels, size: tuple[int, int, int], parameters: MaisiParameters, *, labelled: bool) -> None:
        self._models = models
        self._size = size
        self._labelled = labelled
        self._fixed: tuple[tuple[int, int, int], float] | None = None
        if parameters.decode is not None:
            self._fixed = (parameters.decode.window, parameters.decode.overlap)
        elif parameters.compat:
            self._fixed = _COMPAT_LABELLED if labelled else _COMPAT_UNLABELLED
        self.used: Decoding | None = None
        self.fallen: list[Decoding] = []

    def __call__(self, latent: torch.Tensor) -> torch.Tensor:
        """Latent [1,4,x,y,z], divided by the latent scale -> [1,1,X,Y,Z]."""
        models = self._models
        precision = _NAMES[models.dtype]
        splits: Sequence[int] = CPU_SPLITS if models.device.type == "cpu" else SPLITS
        start = 0
        if self._fixed is not None:
            rungs = tuple(Decoding(*self._fixed, count, precision) for count in splits)
        else:
            rungs = ladder(self._size, precision, splits)
            channels = int(models.config["autoencoder_def"]["num_channels"][0])
            start = first_rung(rungs, self._size, channels, models.device, free_bytes(models.device))
        volume, self.used, self.fallen = decode_within_memory(rungs, start, partial(self._decode, latent))
        return volume

    def _decode(self, latent: torch.Tensor, decoding: Decoding) -> torch.Tensor:
        models = self._models
        return decode(
            models.autoencoder,
            latent,
            decoding.window,
            decoding.overlap,
            models.autocast(),
            splits=decoding.splits,
            stitch_on_cpu=self._labelled,
        )

    def record(self) -> dict[str, Any]:
        """What was used, and what had run out of memory before."""
        return {
            "decode": self.used.record() if self.used else None,
            "out_of_memory": [decoding.record() for decoding in self.fallen],
        }


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
