"""Decoded values (0-1) -> HU or MR intensities."""

from __future__ import annotations

import numpy as np
import torch

from ctmr_core.engines.maisi.behaviour import Behaviour
from ctmr_core.engines.maisi.variants import LAST_CT_CODE

CT_RANGE_HU = (-1000, 1000)
MR_RANGE = (0, 1000)
"""What 0 and 1 stand for (training normalisation of NV-Generate-CTMR); MR may go beyond 1000."""


def intensity_range(modality: int) -> tuple[int, int]:
    """What decoded 0 and 1 mean for a modality code: (-1000, 1000) HU, or (0, 1000) for MR."""
    return CT_RANGE_HU if modality <= LAST_CT_CODE else MR_RANGE


def image_only_values(decoded: torch.Tensor, modality: int, switches: Behaviour) -> np.ndarray:
    """int16 image [x, y, z] of a decoded volume [1,1,x,y,z], which is changed in place. CT is clipped to +-1000 HU."""
    low, high = intensity_range(modality)
    values = decoded[0, 0].mul_(high - low).add_(low)
    if modality <= LAST_CT_CODE:
        values.clamp_(low, high)
    else:
        values.clamp_(min=low)
    if switches.truncated_intensities:
        wrapped = values.to(torch.int64) if float(values.max()) > np.iinfo(np.int16).max else values
        return wrapped.to(torch.int16).cpu().numpy()
    return values.round_().clamp_(max=np.iinfo(np.int16).max).to(torch.int16).cpu().numpy()


def paired_values(decoded: torch.Tensor, mask: np.ndarray, modality: int) -> np.ndarray:
    """float32 image [x, y, z] of a decoded volume [1,1,x,y,z], which is changed in place; the floor where the mask is 0.

    CT lies in -1000 to 1000 HU; MR at 0 or above.
    """
    low, high = intensity_range(modality)
    values = decoded[0, 0]
    if modality <= LAST_CT_CODE:
        values.clamp_(0, 1)
    else:
        values.clamp_(min=0)
    image: np.ndarray = values.mul_(high - low).add_(low).float().cpu().numpy()
    np.copyto(image, np.float32(low), where=mask == 0)
    return image
