"""How the decoder is made to fit: window, overlap, conv splits and precision by the memory that is free.

The autoencoder turns a latent (4 channels, a quarter of the voxels per axis) into the image. Decoded whole, 512^3 voxels
take more than any device has, so the latent is decoded in overlapping windows that are blended, and convolutions are done in
slabs (splits). More splits give the same image; another window or overlap gives a slightly different one, because the norms of
the autoencoder are taken over the window. So the ladder goes over splits first, and what was used is recorded.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeVar

import torch

from ctmr_core.engines.out_of_memory import is_out_of_memory
from ctmr_core.errors import EngineError

LOG = logging.getLogger(__name__)
T = TypeVar("T")
Size = tuple[int, int, int]
Precision = Literal["float32", "float16", "bfloat16"]

LATENT_FACTOR = 4  # image voxels per latent voxel and axis: two halvings in the encoder
SPLITS = (4, 8, 16)
CPU_SPLITS = (1,)  # slabs save nothing there
#: Window (latent voxels) and overlap of the settings NVIDIA publishes for devices of 16 to 80 GB (``config_infer_*.json`` of
#: NV-Generate-CTMR), largest first; the last one is smaller than any of theirs, for what is left on a small device.
WINDOWS: tuple[tuple[Size, float], ...] = (
    ((80, 80, 96), 0.4),
    ((80, 80, 80), 0.4),
    ((80, 80, 48), 0.4),
    ((64, 64, 64), 0.25),
    ((80, 80, 32), 0.4),
    ((64, 64, 48), 0.4),
    ((48, 48, 64), 0.6666),
    ((64, 64, 32), 0.5),
    ((48, 48, 48), 0.6666),
    ((32, 32, 32), 0.5),
)
#: Bytes per image voxel of a window while it is decoded in half precision by 64 channels: the slope of peak memory over
#: window in NVIDIA's table of nine settings (NV-Generate-CTMR, ``docs/performance.md``, A100 80 GB: 15.0..49.7 GB for
#: 8.4..39.3 million voxels), which is about nine feature maps.
_BYTES_PER_VOXEL = 1110
_CHANNELS = 64
#: The stitched volume and its weights, float32, and room for workspaces on a GPU (the table's offset less the weights).
_BYTES_PER_OUTPUT_VOXEL = 12
_GPU_RESERVE = 4_000_000_000
_SHARE_OF_FREE = 0.9


@dataclass(frozen=True)
class Decoding:
    """One way to decode. window: latent voxels [x, y, z]. overlap: share of the window. splits: slabs per convolution."""

    window: Size
    overlap: float
    splits: int
    precision: Precision

    def record(self) -> dict[str, Any]:
        """As it is kept with the volume."""
        return {**asdict(self), "window": list(self.window)}


def default_precision(device: torch.device) -> Precision:
    """Half precision on CUDA, as the weights were trained and are used by NVIDIA; float32 elsewhere."""
    return "float16" if device.type == "cuda" else "float32"


def free_bytes(device: torch.device) -> int:
    """Memory that can still be taken on the device, in bytes (on a CPU: what the system calls available)."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # cached blocks can be taken again
        return int(torch.cuda.mem_get_info(device)[0]) + kept
    import psutil

    return int(psutil.virtual_memory().available)


def needed_bytes(size: Size, decoding: Decoding, channels: int, device: torch.device) -> int:
    """Estimated peak of decoding an image of ``size`` voxels, beside the weights.

    channels: of the widest feature maps at full resolution, ``num_channels[0]`` of the autoencoder.
    """
    window = math.prod(min(w * LATENT_FACTOR, n) for w, n in zip(decoding.window, size, strict=True))
    width = 2 if decoding.precision == "float32" else 1
    reserve = _GPU_RESERVE if device.type == "cuda" else 0
    feature_maps = _BYTES_PER_VOXEL * window * channels / _CHANNELS * width
    return int(feature_maps) + _BYTES_PER_OUTPUT_VOXEL * math.prod(size) + reserve


def ladder(size: Size, precision: Precision, splits: Sequence[int] = SPLITS) -> tuple[Decoding, ...]:
    """Every way to decode an image of ``size`` voxels, from the most to the least memory; each window with more and more splits.

    Windows are cut to the latent, so a small volume begins with a single pass. Splits divide the second axis at every level
    of the decoder: where they do not, MONAI's convolutions lose rows.
    """
    latent = tuple(n // LATENT_FACTOR for n in size)
    rungs: dict[tuple[Size, int], Decoding] = {}
    cut = [(_cut(window, latent), overlap) for window, overlap in WINDOWS]
    for window, overlap in sorted(cut, key=lambda entry: -math.prod(entry[0])):
        for count in splits:
            fitting = _fitting_splits(window[1], count)
            rungs.setdefault((window, fitting), Decoding(window, overlap, fitting, precision))
    return tuple(rungs.values())


def first_rung(rungs: tuple[Decoding, ...], size: Size, channels: int, device: torch.device, free: int) -> int:
    """The first rung that fits into ``free`` bytes by estimate; the last window's first rung when none does."""
    for index, decoding in enumerate(rungs):
        if needed_bytes(size, decoding, channels, device) <= _SHARE_OF_FREE * free:
            return index
    return min(index for index, decoding in enumerate(rungs) if decoding.window == rungs[-1].window)


def decode_within_memory(
    rungs: tuple[Decoding, ...], start: int, decode: Callable[[Decoding], T]
) -> tuple[T, Decoding, list[Decoding]]:
    """``decode`` on the first rung from ``start`` on that does not run out of memory.

    Returns what it gave, the rung it was given on, and the rungs that ran out of memory before. ``EngineError`` when the last
    one does too; other errors pass.
    """
    fallen: list[Decoding] = []
    for decoding in rungs[start:]:
        try:
            return decode(decoding), decoding, fallen
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            LOG.warning("out of memory with window %s in %d splits, trying less", decoding.window, decoding.splits)
            fallen.append(decoding)
        release_memory()  # outside the except block: the error's traceback would keep the tensors alive
    raise EngineError(
        "the device has too little memory to decode the volume",
        found=f"windows tried: {', '.join(str(decoding.window) for decoding in fallen)}",
        fix="render smaller volumes, or on a device with more memory; engine_parameters decode sets a window by hand",
    )


def release_memory() -> None:
    """Give cached blocks back to the device, where there is one."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _cut(window: Size, latent: tuple[int, ...]) -> Size:
    x, y, z = (min(w, n) for w, n in zip(window, latent, strict=True))
    return (x, y, z)


def _fitting_splits(length: int, splits: int) -> int:
    """The greatest number of slabs, at most ``splits``, that divides the length (and so its multiples at finer levels)."""
    return max(n for n in range(1, splits + 1) if length % n == 0)
