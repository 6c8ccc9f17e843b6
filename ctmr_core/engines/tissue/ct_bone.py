"""The dense shell of bones whose tissue map has none, as on grids too coarse to hold it in voxels of its own."""

from __future__ import annotations

import numpy as np
import torch

from ctmr_core.anatomy.tissues import tissue_id
from ctmr_core.engines.tissue.context import RenderContext

#: Thickness of the cortical shell in mm by the beginning of the label's name ; ``_OTHER_BONES`` for
#: the rest. Set so that whole and eroded vertebrae of a 3 mm scan have the medians of a real one (160-190 and 110-135 HU).
_SHELL_MM = {
    "vertebrae": 0.7,
    "sacrum": 0.6,
    "sternum": 0.8,
    "left rib": 0.9,
    "right rib": 0.9,
    "left hip": 1.4,
    "right hip": 1.4,
    "left femur": 2.0,
    "right femur": 2.0,
    "left humerus": 2.2,
    "right humerus": 2.2,
    "skull": 2.6,
}
_OTHER_BONES = 1.3
_UNEVEN = 0.9  # standard deviation of the logarithm of the shell's share
_HAS_SHELL = 0.03  # share of cortical voxels among all bone from which on the tissue map has shells of its own


def add_shells(hu: torch.Tensor, context: RenderContext, cortical_hu: float) -> None:
    """Mix cortical bone into the outermost voxels of trabecular bone and diploe, in place.

    The share is the thickness of the shell over the size of the voxel. Nothing is done where the tissue map already
    has cortical bone.
    """
    spongy_ids = (tissue_id("trabecular_bone"), tissue_id("skull_diploe"))
    spongy = (context.tissues == spongy_ids[0]) | (context.tissues == spongy_ids[1])
    spongy_count = int(spongy.count_nonzero())
    cortical = context.tissues == tissue_id("cortical_bone")
    if spongy_count == 0 or int(cortical.count_nonzero()) > _HAS_SHELL * spongy_count:
        return
    surface = torch.nonzero((spongy & ~_inside(spongy)).view(-1)).view(-1)
    names = {label.id: label.name for label in context.label_map.vocabulary}
    thickness = np.full(max(names) + 1, _OTHER_BONES, np.float32)
    for label, name in names.items():
        for beginning, mm in _SHELL_MM.items():
            if name.startswith(beginning):
                thickness[label] = mm
    voxel = float(np.cbrt(np.prod(context.spacing)))
    share = torch.from_numpy(np.minimum(thickness / voxel, 1.0)).to(hu.device)
    mixed = share[context.labels.view(-1)[surface].to(torch.int64)]
    # Shells are thick in places and thin in others, and cut voxels at any height: a skewed, patchy share.
    patches = context.band("fine").view(-1)[surface].mul_(_UNEVEN).sub_(0.5 * _UNEVEN**2).exp_()
    mixed = mixed.mul_(patches).clamp_(max=1.0)
    flat = hu.view(-1)
    flat[surface] = torch.lerp(flat[surface], torch.full_like(mixed, cortical_hu), mixed)


def _inside(mask: torch.Tensor) -> torch.Tensor:
    """The voxels of ``mask`` whose six neighbours are in it too; what lies beyond the volume counts as in."""
    inside = mask.clone()
    for axis, n in enumerate(mask.shape):
        if n < 2:
            continue
        inside.narrow(axis, 1, n - 1).logical_and_(mask.narrow(axis, 0, n - 1))
        inside.narrow(axis, 0, n - 1).logical_and_(mask.narrow(axis, 1, n - 1))
    return inside
