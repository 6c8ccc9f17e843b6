"""Decoding one volume within the memory there is."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from ctmr_core.engines.maisi.decode import check_window, decode
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
from ctmr_core.engines.maisi.variants import AUTOENCODER, MASK_AUTOENCODER

_NAMES: dict[torch.dtype, Precision] = {
    torch.float32: "float32",
    torch.float16: "float16",
    torch.bfloat16: "bfloat16",
}
REFERENCE_WINDOW = ((48, 48, 48), 0.6666)
"""Window and overlap in which the reference decodes label maps and images of them (``config_infer.json``)."""


class Decoder:
    """Decodes one volume within the memory there is, and remembers how.

    size: voxels of the volume. window, overlap: latent voxels and share, as asked for; None: by the memory that is free. With a
    window that was asked for only the splits change, which does not change the volume. masks: the autoencoder of label maps in
    place of that of images. stitch_on_cpu: blend windows in host memory.
    """

    def __init__(
        self,
        models: MaisiModels,
        size: Sequence[int],
        window: tuple[Sequence[int], float] | None = None,
        *,
        masks: bool = False,
        stitch_on_cpu: bool = True,
    ) -> None:
        self._models = models
        self._size = (int(size[0]), int(size[1]), int(size[2]))
        self._window = None if window is None else (check_window(*window), float(window[1]))
        self._network = MASK_AUTOENCODER if masks else AUTOENCODER
        self._stitch_on_cpu = stitch_on_cpu
        self.used: Decoding | None = None
        self.fallen: list[Decoding] = []

    def __call__(self, latent: torch.Tensor) -> torch.Tensor:
        """Latent [1,4,x,y,z], divided by the latent scale -> [1,C,X,Y,Z]."""
        models = self._models
        precision = _NAMES[models.dtype]
        splits: Sequence[int] = CPU_SPLITS if models.device.type == "cpu" else SPLITS
        start = 0
        if self._window is not None:
            rungs = tuple(Decoding(*self._window, count, precision) for count in splits)
        else:
            rungs = ladder(self._size, precision, splits)
            channels = int(models.config[f"{self._network}_def"]["num_channels"][0])
            start = first_rung(rungs, self._size, channels, models.device, free_bytes(models.device))
        volume, self.used, self.fallen = decode_within_memory(rungs, start, partial(self._decode, latent))
        return volume

    def _decode(self, latent: torch.Tensor, decoding: Decoding) -> torch.Tensor:
        models = self._models
        return decode(
            models.mask_autoencoder if self._network == MASK_AUTOENCODER else models.autoencoder,
            latent,
            decoding.window,
            decoding.overlap,
            models.autocast(),
            splits=decoding.splits,
            stitch_on_cpu=self._stitch_on_cpu,
        )

    def record(self) -> dict[str, Any]:
        """What was used, and what had run out of memory before."""
        return {
            "decode": self.used.record() if self.used else None,
            "out_of_memory": [decoding.record() for decoding in self.fallen],
        }
