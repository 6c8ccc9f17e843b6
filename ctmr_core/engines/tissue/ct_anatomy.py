"""Painting HU into the voxels: tissue means, texture inside tissues, vessels, gas in stool, the weight of the lung."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ctmr_core.anatomy.tissues import tissue_id
from ctmr_core.engines.tissue.context import RenderContext
from ctmr_core.engines.tissue.ct_bone import add_shells
from ctmr_core.engines.tissue.ct_couch import add_couch
from ctmr_core.engines.tissue.ct_fat import add_fat_planes, add_fat_septa, add_strands, voxels_of
from ctmr_core.engines.tissue.ct_table import HuDraw
from ctmr_core.engines.tissue.surfaces import flat_indices, neighbours_of, voxels_beside
from ctmr_core.engines.tissue.vessels import VoxelShares

_GAS = -880.0  # HU of a bubble smaller than a few voxels
_BUBBLE_LEVEL = 1.15  # texture below minus this is gas: about one eighth of the stool
_DENSEST_FOOD = 80.0  # HU above the mean of the contents
_SKIN_MM = 1.8  # at the trunk (ICRP 110: 1.6-2.1 mm)
_SKIN_VOXEL = 2.5  # mm: tissue maps of smaller voxels hold the skin
_LUNG_GRADIENT = 70.0  # HU from front to back of a supine patient's lung in inspiration
_LUNG_DEPTH = 180.0  # mm from front to back of an adult's lung


@dataclass(frozen=True, eq=False)
class HuTables:
    """HU by label and tissue, float32 [labels, tissues]: ``mean``, and standard deviation of the ``fine`` and ``coarse`` texture.

    cortical: HU of solid cortical bone per label; the ``mean`` of that tissue is the spongy bone beneath it, see
    ``add_shells``. lung_vessel, hepatic_vessel: HU of the blood in the vessels grown into these organs.
    skin, fat, mesenteric_vessel: HU of the layers and strands the tissue map is too coarse for.
    """

    mean: np.ndarray
    fine: np.ndarray
    coarse: np.ndarray
    cortical: np.ndarray
    lung_vessel: float
    hepatic_vessel: float
    skin: float
    fat: float
    mesenteric_vessel: float


def population_tables(context: RenderContext, draw: HuDraw) -> HuTables:
    """One scan's draw from the population, the same for all labels a tissue belongs to."""
    code = context.code
    cortical, spongy = tissue_id("cortical_bone"), tissue_id("trabecular_bone")
    mean = code.table(draw.mean)
    mean[:, cortical] = mean[:, spongy]
    return HuTables(
        mean=mean,
        fine=code.table(draw.fine),
        coarse=code.table(draw.coarse),
        cortical=np.full(code.rows, draw.mean[cortical], np.float32),
        lung_vessel=float(draw.mean[tissue_id("lung_vessel")]),
        hepatic_vessel=float(draw.mean[tissue_id("hepatic_vessel")]),
        skin=float(draw.mean[tissue_id("skin")]),
        fat=float(draw.mean[tissue_id("subcutaneous_fat")]),
        mesenteric_vessel=float(draw.mean[tissue_id("portal_blood")]),
    )


def paint(context: RenderContext, tables: HuTables) -> torch.Tensor:
    """HU of every voxel before the scanner: float32 [x, y, z] on the device."""
    texture = context.parameters.ct.texture
    hu = context.code.gather(tables.mean)
    add_shells(hu, context, tables.cortical)
    add_skin(hu, context, tables.skin)
    if texture > 0:
        add_texture(hu, context, tables.fine * np.float32(texture), tables.coarse * np.float32(texture))
        add_fat_septa(hu, context, texture)
        add_fat_planes(hu, context, tables.fat)
        add_strands(hu, context, tables.mesenteric_vessel)
        add_gas_bubbles(hu, context, tables.mean)
        add_lung_gradient(hu, context, texture)
        add_vessels(hu, context.lung_vessels, tables.lung_vessel)
        add_vessels(hu, context.liver_vessels, tables.hepatic_vessel)
    if context.parameters.ct.couch:
        add_couch(hu, context)
    return hu


def add_texture(hu: torch.Tensor, context: RenderContext, fine: np.ndarray, coarse: np.ndarray) -> None:
    """Add the body's texture in place; ``fine`` and ``coarse``: standard deviation per label and tissue, HU."""
    for name, amplitude in (("fine", fine), ("coarse", coarse)):
        hu.addcmul_(context.code.gather(amplitude), context.band(name))


def add_skin(hu: torch.Tensor, context: RenderContext, skin_hu: float) -> None:
    """Skin where the voxels are too coarse for the tissue map to hold any: a share of the outermost fat; in place."""
    if max(context.spacing) <= _SKIN_VOXEL or bool((context.tissues == tissue_id("skin")).any()):
        return
    air = context.tissues == 0
    place = flat_indices(voxels_beside(air) & (context.tissues == tissue_id("subcutaneous_fat")))
    if not len(place):
        return
    faces = sum(air.view(-1).index_select(0, neighbour).to(torch.float32) for neighbour in neighbours_of(place, context.size))
    voxel = float(np.cbrt(np.prod(context.spacing)))
    share = torch.as_tensor(faces).sqrt().mul_(_SKIN_MM / voxel).clamp_(max=1.0)
    flat = hu.view(-1)
    flat[place] = torch.lerp(flat[place], torch.full_like(share, skin_hu), share)


def add_gas_bubbles(hu: torch.Tensor, context: RenderContext, mean: np.ndarray) -> None:
    """Bubbles of gas in the stool, where its texture is thinnest; in place.

    What is denser than ``mean`` (HU by label and tissue) is held within the range of food without contrast medium.
    """
    stool = voxels_of(context, "stool")
    flat = hu.view(-1)
    if len(stool):
        field = context.band("coarse").view(-1)[stool].mul_(0.75).add_(context.band("fine").view(-1)[stool], alpha=0.66)
        gas = field.neg_().sub_(_BUBBLE_LEVEL).mul_(4.0).clamp_(0.0, 1.0)
        flat[stool] = torch.lerp(flat[stool], torch.full_like(gas, _GAS), gas)
    contents = voxels_of(context, "stool", "bowel_content", "stomach_content")
    if len(contents):
        ceiling = torch.from_numpy(mean.reshape(-1) + np.float32(_DENSEST_FOOD)).to(hu.device)
        flat[contents] = torch.minimum(flat[contents], ceiling[context.code.index.view(-1)[contents]])


def add_lung_gradient(hu: torch.Tensor, context: RenderContext, texture: float) -> None:
    """The dependent (posterior) lung is denser: a linear gradient along y over the lungs' extent, mean 0; in place."""
    lung = context.tissues == tissue_id("lung_parenchyma")
    slabs = torch.nonzero(lung.any(dim=2).any(dim=0)).view(-1)
    if len(slabs) < 2:
        return
    first, last = int(slabs[0]), int(slabs[-1]) + 1
    extent = (last - first) * context.spacing[1]
    steepness = _LUNG_GRADIENT * texture * min(1.0, extent / _LUNG_DEPTH)
    ramp = torch.linspace(0.5 * steepness, -0.5 * steepness, last - first, dtype=torch.float32, device=hu.device)
    hu[:, first:last].addcmul_(lung[:, first:last].to(torch.float32), ramp[None, :, None])


def add_vessels(hu: torch.Tensor, vessels: VoxelShares, vessel_hu: float) -> None:
    """Mix blood of ``vessel_hu`` into the voxels that hold vessels, by their share; in place."""
    if not vessels.index.size:
        return
    index = torch.from_numpy(vessels.index).to(hu.device)
    share = torch.from_numpy(vessels.share).to(hu.device)
    flat = hu.view(-1)
    flat[index] = torch.lerp(flat[index], torch.full_like(share, vessel_hu), share)
