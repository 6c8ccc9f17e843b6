"""Fat and what runs through it: septa and planes between muscles, vessels and strands of the mesentery."""

from __future__ import annotations

import numpy as np
import torch

from ctmr_core.anatomy.tissues import tissue_id
from ctmr_core.engines.tissue.context import BANDS, RenderContext
from ctmr_core.engines.tissue.psf import blur
from ctmr_core.engines.tissue.surfaces import flat_indices

_SEPTUM = 0.16  # half width of a fat septum in standard deviations of the coarse texture, about 1 mm
_SEPTUM_DEPTH = 85.0  # HU a septum takes off: fat fills half the voxel
_PLANE_MM = 1.2  # fat between neighbouring muscles
#: mm per standard deviation of the coarse texture where it passes through zero: the mean slope of a Gaussian field of
#: correlation length L in three dimensions is sqrt(8 / pi) / L.
_MM_PER_SD = BANDS["coarse"] / float(np.sqrt(8.0 / np.pi))
_STRAND_MM = (0.7, 1.6)  # radius far from and beside the bowel: vessels of the mesentery are 1-3 mm wide
_STRAND_FIELDS = (3, 7, 11, 15)  # correlation lengths apart
_NEAR_BOWEL_MM = 12.0
_LATTICE_MM = 8.0
_BOWEL = ("bowel_wall", "bowel_content", "colon_wall", "stool", "pancreas")


def voxels_of(context: RenderContext, *names: str) -> torch.Tensor:
    """Flat indices of the voxels of these tissues."""
    ids = sorted(tissue_id(name) for name in names)
    if ids[-1] - ids[0] == len(ids) - 1:
        return flat_indices((context.tissues - ids[0]) < len(ids))  # uint8: smaller ids wrap round to large numbers
    chosen = context.tissues == ids[0]
    for tissue in ids[1:]:
        chosen |= context.tissues == tissue
    return flat_indices(chosen)


def add_fat_septa(hu: torch.Tensor, context: RenderContext, texture: float) -> None:
    """Broken sheets of fat between the fascicles of muscle: where the coarse texture passes through zero; in place."""
    muscle = voxels_of(context, "muscle")
    if not len(muscle):
        return
    fat = _elsewhere(context, muscle, 0).abs_().mul_(-1.0 / _SEPTUM).add_(1.0).clamp_(min=0.0)
    fat.mul_(_elsewhere(context, muscle, 4).add_(0.2).clamp_(0.0, 1.0))
    hu.view(-1).index_add_(0, muscle, fat, alpha=-_SEPTUM_DEPTH * texture)


def add_fat_planes(hu: torch.Tensor, context: RenderContext, fat_hu: float) -> None:
    """Thin, broken planes of fat where two muscles with different labels meet; in place.

    Only planes seen in axial slices: muscles of the trunk and the hips run along z.
    """
    labels, muscle = context.labels, context.tissues == tissue_id("muscle")
    meeting = torch.zeros_like(muscle)
    for axis, n in enumerate(labels.shape[:2]):
        if n > 1:
            change = labels.narrow(axis, 0, n - 1) != labels.narrow(axis, 1, n - 1)
            change.logical_and_(muscle.narrow(axis, 0, n - 1)).logical_and_(muscle.narrow(axis, 1, n - 1))
            meeting.narrow(axis, 0, n - 1).logical_or_(change)
    place = flat_indices(meeting)
    if not len(place):
        return
    share = _elsewhere(context, place, 4).mul_(0.5).add_(0.6).clamp_(0.0, 1.0)
    share.mul_(min(1.0, _PLANE_MM / float(np.cbrt(np.prod(context.spacing)))))
    flat = hu.view(-1)
    flat[place] = torch.lerp(flat[place], torch.full_like(share, fat_hu), share)


def add_strands(hu: torch.Tensor, context: RenderContext, vessel_hu: float) -> None:
    """Small vessels and strands through the fat between the organs, thicker beside the bowel; in place.

    A strand is the line along which two independent smooth fields are both zero; every field belongs to two pairs, so
    that strands branch.
    """
    fat = voxels_of(context, "visceral_fat")
    if not len(fat):
        return
    thin, thick = _STRAND_MM
    radius = _bowel_nearby(context, fat).mul_(thick - thin).add_(thin)
    voxel = float(np.cbrt(np.prod(context.spacing)))
    fields = [_elsewhere(context, fat, lengths).square_() for lengths in _STRAND_FIELDS]
    nearest = torch.full_like(radius, torch.inf)
    for one, other in zip(fields, [*fields[1:], fields[0]], strict=True):
        torch.minimum(nearest, one + other, out=nearest)
    share = nearest.sqrt_().mul_(-_MM_PER_SD).add_(radius).div_(voxel).add_(0.5).clamp_(0.0, 1.0)
    share.mul_((2.0 * radius / voxel).clamp_(max=1.0))
    flat = hu.view(-1)
    flat[fat] = torch.lerp(flat[fat], torch.full_like(share, vessel_hu), share)


def _bowel_nearby(context: RenderContext, place: torch.Tensor) -> torch.Tensor:
    """How much bowel lies around the voxels ``place``, 0..1."""
    nx, ny, nz = context.size
    x, y, z = (max(1, round(_LATTICE_MM / mm)) for mm in context.spacing)
    tissues = context.tissues[::x, ::y, ::z]
    bowel = torch.zeros(tissues.shape, dtype=torch.float32, device=place.device)
    for name in _BOWEL:
        bowel += tissues == tissue_id(name)
    reach = [_NEAR_BOWEL_MM / step / mm for step, mm in zip((x, y, z), context.spacing, strict=True)]
    nearby = blur(bowel, (reach[0], reach[1], reach[2])).mul_(4.0).clamp_(max=1.0)
    column = place.div(nz, rounding_mode="floor")
    slices = torch.arange(nz, device=place.device).div(z, rounding_mode="floor")
    across = [torch.arange(n, device=place.device).div(step, rounding_mode="floor") for n, step in ((nx, x), (ny, y))]
    columns = (across[0][:, None] * nearby.shape[1] + across[1][None, :]).mul_(nearby.shape[2]).view(-1)
    node = columns.index_select(0, column).add_(slices.index_select(0, column.mul_(-nz).add_(place)))
    return nearby.view(-1).index_select(0, node)


def _elsewhere(context: RenderContext, place: torch.Tensor, lengths: int) -> torch.Tensor:
    """The coarse texture ``lengths`` correlation lengths along x from ``place``: as good as an independent field.

    place: ascending flat indices. Returns a new tensor.
    """
    field = context.band("coarse").view(-1)
    away = round(lengths * BANDS["coarse"] / context.spacing[0]) * context.size[1] * context.size[2] % len(field)
    wrapped = int(torch.searchsorted(place, len(field) - away))
    ahead = field[away:].index_select(0, place[:wrapped])
    return torch.cat([ahead, field.index_select(0, place[wrapped:] - (len(field) - away))])
