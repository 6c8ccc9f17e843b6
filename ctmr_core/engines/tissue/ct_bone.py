"""The dense shells of bones, by the share of the voxel they fill."""

from __future__ import annotations

import numpy as np
import torch

from ctmr_core.anatomy.tissues import tissue_id
from ctmr_core.engines.tissue.context import RenderContext

#: Thickness of the cortical shell in mm by the beginning of the label's name; ``_OTHER_BONES`` for
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
    "cortical bone": 2.6,
}
_OTHER_BONES = 1.3
_UNEVEN = 0.9  # standard deviation of the logarithm of the shell's share


def add_shells(hu: torch.Tensor, context: RenderContext, cortical_hu: np.ndarray) -> None:
    """Set the cortical shells of all bones by the share of the voxel they fill, in place.

    A voxel of the shell holds thickness / voxel size of cortical bone and for the rest what ``hu`` holds. The shell is
    the cortical bone of the tissue map; for a bone the map gives none (too thin for the grid), its outermost voxels.
    cortical_hu: float32, HU of cortical bone per label id.
    """
    tissue_map, labels = context.tissues, context.labels.view(-1)
    solid = tissue_map == tissue_id("cortical_bone")
    cortical = torch.nonzero(solid.view(-1)).view(-1)
    thickness = _thickness(context).to(hu.device)
    shelled = torch.zeros(len(thickness), dtype=torch.bool, device=hu.device)
    shelled[labels[cortical].to(torch.int64)] = True
    spongy = (tissue_map == tissue_id("trabecular_bone")) | (tissue_map == tissue_id("skull_diploe"))
    surface = torch.nonzero((spongy & ~_inside(spongy | solid)).view(-1)).view(-1)
    surface = surface[~shelled[labels[surface].to(torch.int64)]]
    shell = torch.cat([cortical, surface])
    if not len(shell):
        return
    voxel = float(np.cbrt(np.prod(context.spacing)))
    owner = labels[shell].to(torch.int64)
    layers = thickness[owner].div_(voxel)
    # Shells are thick in places and thin in others, and cut coarse voxels at any height: a skewed, patchy share.
    uneven = (2.0 - layers).clamp_(0.0, 1.0).mul_(_UNEVEN)
    patches = context.band("fine").view(-1)[shell].mul_(uneven).sub_(uneven.square().mul_(0.5)).exp_()
    share = layers.mul_(patches).clamp_(max=1.0)
    flat = hu.view(-1)
    flat[shell] = torch.lerp(flat[shell], torch.from_numpy(cortical_hu).to(hu.device)[owner], share)


def _thickness(context: RenderContext) -> torch.Tensor:
    """Shell thickness in mm per label id, float32."""
    names = {label.id: label.name for label in context.label_map.vocabulary}
    thickness = np.full(max(names) + 1, _OTHER_BONES, np.float32)
    for label, name in names.items():
        for beginning, mm in _SHELL_MM.items():
            if name.startswith(beginning):
                thickness[label] = mm
    return torch.from_numpy(thickness)


def _inside(mask: torch.Tensor) -> torch.Tensor:
    """The voxels of ``mask`` whose six neighbours are in it too; what lies beyond the volume counts as in."""
    inside = mask.clone()
    for axis, n in enumerate(mask.shape):
        if n < 2:
            continue
        inside.narrow(axis, 1, n - 1).logical_and_(mask.narrow(axis, 0, n - 1))
        inside.narrow(axis, 0, n - 1).logical_and_(mask.narrow(axis, 1, n - 1))
    return inside
