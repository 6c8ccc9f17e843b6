"""The brain mask of a head: what skull stripping leaves."""

from __future__ import annotations

import numpy as np
import torch

from ctmr_core.anatomy.tissues import tissue_id, tissues
from ctmr_core.anatomy.vocabulary import Vocabulary
from ctmr_core.engines.tissue.mr_fields import neighbourhood_share

#: Falx and tentorium too: tools that strip (BET, Smith 2002; SynthStrip, Hoopes et al. 2022) give filled masks.
_AMONG = ("cerebral_artery", "cerebral_vein", "arterial_blood", "venous_blood", "dura", "optic_nerve")
_BELOW_BRAIN_MM = 4.0  # spinal cerebrospinal fluid further below the brain is cut off
_INSIDE = 0.55  # share of brain around what lies in it
_FLUID_BESIDE = 0.08  # share of brain tissue around fluid that lies in the skull; ventricles are always inside


def brain_mask(
    labels: torch.Tensor, tissue_map: torch.Tensor, vocabulary: Vocabulary, spacing: tuple[float, float, float]
) -> torch.Tensor:
    """Brain tissues, their lesions, cerebrospinal fluid, and the vessels, dura and optic nerves among them: bool [x, y, z].

    labels: integer ids of the ``brain`` vocabulary. tissue_map: uint8 tissue ids. spacing: mm.
    """
    solid_ids = vocabulary.ids("brain") + vocabulary.ids("lesion")
    solid = _lookup(labels, solid_ids)
    fluid = _lookup(labels, vocabulary.ids("fluid"))
    fluid |= _lookup(tissue_map, (tissue_id("csf_subarachnoid"),))  # also where no label tells, around a brain that stands alone
    height = torch.nonzero(solid.any(dim=0).any(dim=0)).flatten()
    if len(height):
        lowest = int(height[0]) - round(_BELOW_BRAIN_MM / spacing[2])
        fluid[:, :, : max(lowest, 0)] = False
    ventricles = _lookup(tissue_map, (tissue_id("csf_ventricular"),))
    fluid &= ventricles | (neighbourhood_share(solid | ventricles, 5) > _FLUID_BESIDE)
    core = solid | fluid
    among = _lookup(tissue_map, tuple(tissue.id for tissue in tissues() if tissue.name in _AMONG)) & ~core
    return core | (among & (neighbourhood_share(core) > _INSIDE))


def edge_weights(mask: torch.Tensor, start: int, stop: int) -> torch.Tensor:
    """1 inside, about 3/4 on the outermost voxel, exactly 0 outside: float32 planes [stop - start, y, z]."""
    low, high = max(start - 1, 0), min(stop + 1, mask.shape[0])
    solid = mask[low:high].to(torch.float32)
    weight = solid
    for axis in range(3):
        n = weight.shape[axis]
        if n > 2:
            sums = torch.add(weight.narrow(axis, 0, n - 2), weight.narrow(axis, 2, n - 2)).mul_(0.25)
            weight = weight * 0.5 + torch.cat((weight.narrow(axis, 0, 1) * 0.5, sums, weight.narrow(axis, n - 1, 1) * 0.5), axis)
    return (weight * solid)[start - low : stop - low]


def _lookup(ids: torch.Tensor, chosen: tuple[int, ...]) -> torch.Tensor:
    """Whether each id is one of ``chosen``, bool."""
    table = np.zeros(max(1 << 16 if ids.dtype == torch.uint16 else 256, max(chosen, default=0) + 1), bool)
    table[list(chosen)] = True
    lookup = torch.from_numpy(table).to(ids.device)
    return torch.index_select(lookup, 0, ids.contiguous().view(-1).to(torch.int32)).view(ids.shape)
