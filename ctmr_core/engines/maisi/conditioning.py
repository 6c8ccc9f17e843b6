"""What the networks are told about a case: spacing, body region, modality and label map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ctmr_core.engines.maisi.behaviour import Behaviour
from ctmr_core.engines.maisi.models import MaisiModels
from ctmr_core.engines.maisi.variants import MODALITY_ROWS, REGION_SYNONYMS, REGIONS
from ctmr_core.errors import EngineError

Region = str | Sequence[float]
INPUT_SCALE = 100
"""Spacing (mm) and region one-hots enter the networks times this."""
MASK_BITS = 8
EMBEDDED_AT_ONCE = 128
"""Voxels along x whose mask code is embedded at once (8 float32 channels of 512 x 512 x 128 take 1 GB)."""

REGION_LABELS = ((22, 120), (28, 29, 30, 31, 32), (1, 2, 3, 4, 5, 14), (93, 94))
"""Labels that show a region, in the order of ``REGIONS``: brain, skull; lung lobes; upper abdominal organs; femora."""
MORE_REGION_LABELS = (
    tuple(range(50, 57)),  # cervical vertebrae
    (*range(38, 50), 57, 115, 122),  # thoracic vertebrae, trachea, heart, sternum
    (*range(33, 38), 8, 9, 10, 12, 13),  # lumbar vertebrae, adrenals, gallbladder, stomach, duodenum
    (15, 95, 96, 97, 118, 127),  # bladder, hips, sacrum, prostate, S1
)
"""Labels that help out where none of ``REGION_LABELS`` is present (not in compat mode)."""


@dataclass(frozen=True)
class Conditioning:
    """Network inputs of one case, each with a leading batch axis of 1.

    spacing [1,3] and regions [1,4] float32, both x 100; modality [1] int64; mask: embedded label map, float [1,C,x,y,z].
    None: not an input of these networks.
    """

    spacing: torch.Tensor | None = None
    top_region: torch.Tensor | None = None
    bottom_region: torch.Tensor | None = None
    modality: torch.Tensor | None = None
    mask: torch.Tensor | None = None


def check_spacing(spacing: Sequence[float]) -> tuple[float, float, float]:
    """Three finite positive lengths (mm), or an ``EngineError``."""
    values = tuple(float(step) for step in spacing)
    if len(values) != 3 or not all(np.isfinite(step) and step > 0 for step in values):
        raise EngineError("impossible spacing", found=tuple(spacing), allowed="three lengths above 0 (mm)")
    return values


def check_size(size: Sequence[int], multiple: int) -> tuple[int, int, int]:
    """Three voxel counts that the networks can halve and double evenly, or an ``EngineError``."""
    values = tuple(int(n) for n in size)
    if len(values) != 3 or any(n < multiple or n % multiple or n != raw for n, raw in zip(values, size, strict=True)):
        raise EngineError("impossible image size", found=tuple(size), allowed=f"three multiples of {multiple} voxels")
    return values


def check_modality(modality: int) -> int:
    """A row of the modality embedding, or an ``EngineError``."""
    if isinstance(modality, bool) or not isinstance(modality, (int, np.integer)) or not 0 <= modality < MODALITY_ROWS:
        raise EngineError("impossible modality code", found=modality, allowed=f"0 to {MODALITY_ROWS - 1}")
    return int(modality)


def spacing_input(spacing: Sequence[float], switches: Behaviour, *, rounded_first: bool) -> torch.Tensor:
    """Spacing x 100, [1,3] float32.

    In float16, the reference rounds before and after the product on the path from masks (``rounded_first``), and only after it
    on the image-only path.
    """
    values = torch.tensor([check_spacing(spacing)], dtype=torch.float64)
    if not switches.half_conditioning:
        return (values * INPUT_SCALE).float()
    if rounded_first:
        values = values.half().double()
    return (values * INPUT_SCALE).half().float()


def region_input(region: Region) -> torch.Tensor:
    """One-hot of a body region x 100, [1,4] float32. region: name, or four numbers in the order of ``REGIONS``."""
    if isinstance(region, str):
        name = REGION_SYNONYMS.get(region, region)
        if name not in REGIONS:
            raise EngineError("unknown body region", found=region, allowed=[*REGIONS, *REGION_SYNONYMS])
        values = [float(name == other) for other in REGIONS]
    else:
        values = [float(value) for value in region]
    if sorted(values) != [0.0, 0.0, 0.0, 1.0]:
        raise EngineError("not a region one-hot", found=values, allowed=f"four numbers, one of them 1: {REGIONS}")
    return torch.tensor([values]) * INPUT_SCALE


def modality_input(modality: int, device: torch.device) -> torch.Tensor:
    """Modality code, [1] int64."""
    return torch.tensor([modality], dtype=torch.int64, device=device)


def labels_present(mask: np.ndarray) -> np.ndarray:
    """Sorted labels of a uint8 mask [x, y, z], found slice by slice (``np.bincount`` works on int64 copies)."""
    counts = np.zeros(256, np.int64)
    for plane in mask:
        counts += np.bincount(plane.ravel(), minlength=256)
    return np.flatnonzero(counts)


def regions_of_mask(mask: np.ndarray, switches: Behaviour) -> tuple[Region, Region]:
    """Top and bottom region (names) a label map shows. Raises ``EngineError`` where it shows none."""
    present = set(labels_present(mask).tolist())
    tables = (REGION_LABELS,) if switches.strict_regions else (REGION_LABELS, MORE_REGION_LABELS)
    for table in tables:
        shown = [name for name, labels in zip(REGIONS, table, strict=True) if present.intersection(labels)]
        if shown:
            return shown[0], shown[-1]
    raise EngineError(
        "the label map shows no body region, which this network needs",
        found=sorted(present),
        allowed=[label for labels in REGION_LABELS for label in labels],
        fix="give top_region and bottom_region",
    )


def mask_code(mask: np.ndarray, device: torch.device) -> torch.Tensor:
    """The 8-bit code of a uint8 mask [x, y, z], lowest bit first: float32 [1,8,x,y,z]."""
    labels = torch.from_numpy(np.ascontiguousarray(mask)).to(device)
    code = torch.empty((1, MASK_BITS, *mask.shape), device=device)
    for bit in range(MASK_BITS):
        code[0, bit] = (labels >> bit) & 1
    return code


def embed_mask(models: MaisiModels, mask: np.ndarray) -> torch.Tensor:
    """The ControlNet's embedding of a uint8 mask [x, y, z]: [1,C,x/4,y/4,z/4] on the models' device.

    It is the same in every step, so it is computed once, in slabs along x whose margins (wider than what the convolutions
    reach) are dropped: the full-size code and feature maps never exist at once.
    """
    embedding = models.controlnet.embedding
    stride = models.latent_stride
    margin = 4 * stride
    parts = []
    for start in range(0, mask.shape[0], EMBEDDED_AT_ONCE):
        stop = min(start + EMBEDDED_AT_ONCE, mask.shape[0])
        first, last = max(start - margin, 0), min(stop + margin, mask.shape[0])
        with models.autocast():
            part = embedding(mask_code(mask[first:last], models.device))
        parts.append(part[:, :, (start - first) // stride : (stop - first) // stride])
    return torch.cat(parts, dim=2)


def image_conditioning(
    models: MaisiModels,
    spacing: Sequence[float],
    modality: int,
    regions: tuple[Region, Region],
    switches: Behaviour,
    *,
    from_mask: bool,
) -> Conditioning:
    """The inputs these models take, without a mask."""
    place: Any = models.device
    return Conditioning(
        spacing=spacing_input(spacing, switches, rounded_first=from_mask).to(place) if models.has_spacing_input else None,
        top_region=region_input(regions[0]).to(place) if models.has_region_input else None,
        bottom_region=region_input(regions[1]).to(place) if models.has_region_input else None,
        modality=modality_input(modality, place) if models.has_modality_input else None,
    )
