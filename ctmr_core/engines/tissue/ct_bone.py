"""The dense shells of bones: continuous at every voxel size, each voxel by the share of it that is cortical bone."""

from __future__ import annotations

import numpy as np
import torch

from ctmr_core.anatomy.tissues import tissue_id
from ctmr_core.engines.tissue.context import RenderContext
from ctmr_core.engines.tissue.ct_fat import voxels_of
from ctmr_core.engines.tissue.psf import blur
from ctmr_core.engines.tissue.surfaces import neighbours_of

#: Thickness of the cortical shell in mm by the beginning of the label's name; ``_OTHER_BONES`` for the rest. Thinner than
#: anatomy has it: the shell is a little porous towards the marrow (Silva et al., Bone 1994: vertebral shell 0.4 mm). Set so
#: that whole and eroded bones of a 3 mm scan have the medians of a real one.
_SHELL_MM = {
    "vertebrae": 1.5,  # arch and processes; the bodies have _VERTEBRAL_BODY
    "sacrum": 0.4,
    "sternum": 0.6,
    "left rib": 0.7,
    "right rib": 0.7,
    "left hip": 0.7,
    "right hip": 0.7,
    "left femur": 1.2,
    "right femur": 1.2,
    "left humerus": 1.6,
    "right humerus": 1.6,
    "skull": 2.6,
    "cortical bone": 2.6,
}
_OTHER_BONES = 0.9
_VERTEBRAL_BODY = 0.3
_LONG_BONES = ("left femur", "right femur", "left humerus", "right humerus")
_UNEVEN = 0.3  # standard deviation of the logarithm of the shell's thickness, over centimetres
_LAYERS = 2  # layers of voxels whose share is worked out; below them the tissue map is fine enough
_LATTICE_MM = 4.0
_BULK_MM = 5.0  # a body of a vertebra is what fills most of a ball of about this radius; arch and processes don't
_BULKY = (0.52, 0.66)
_BODY_REACH = 2  # lattice steps from the bulk of a vertebral body to its walls
_FIRST_SACRAL, _SACRUM = "vertebrae S1", "sacrum"  # one bone
_LESION = "bone lesion"


def add_shells(hu: torch.Tensor, context: RenderContext, cortical_hu: np.ndarray) -> None:
    """Set the cortical shells of all bones by the share of the voxel they fill, in place.

    A voxel at the surface of a bone holds thickness x its area of surface / volume of cortical bone and for the rest what
    ``hu`` holds, wherever the tissue map happened to meet the shell. Heads (vocabulary ``brain``) keep the tables of the
    skull where the tissue map has them. cortical_hu: float32, HU of cortical bone per label id.
    """
    if context.label_map.vocabulary.name != "maisi":
        shell = voxels_of(context, "cortical_bone")
        owner = context.labels.view(-1)[shell].to(torch.int64)
        share = _thickness(context).to(hu.device)[owner].div_(_voxel(context)).clamp_(max=1.0)
        _mix(hu, shell, share, owner, cortical_hu)
        return
    bone = voxels_of(context, "cortical_bone", "trabecular_bone", "skull_diploe")
    if not len(bone):
        return
    owner = context.labels.view(-1)[bone].to(torch.int64)
    faces = _faces(context, bone, owner)
    thickness = _thickness(context).to(hu.device)[owner]
    _thin_bodies(thickness, context, bone, owner)
    thickness.mul_(context.band("coarse").view(-1)[bone].mul_(_UNEVEN).exp_())
    # n open faces: the surface is tilted, and its area in the voxel about sqrt(n) times a face's.
    share = torch.zeros_like(thickness)
    for layer, count in enumerate(faces):
        filled = count.sqrt().mul_(thickness).div_(_voxel(context)).sub_(float(layer)).clamp_(0.0, 1.0)
        share = torch.where(count > 0, filled, share)
    deep = (context.tissues.view(-1)[bone] == tissue_id("cortical_bone")) & (faces[0] == 0)
    deep &= (faces[1] == 0) | _named(context, _LONG_BONES).to(hu.device)[owner]
    share.masked_fill_(deep, 1.0)
    chosen = torch.nonzero(share).view(-1)
    _mix(hu, bone[chosen], share[chosen], owner[chosen], cortical_hu)


def _mix(hu: torch.Tensor, place: torch.Tensor, share: torch.Tensor, owner: torch.Tensor, cortical_hu: np.ndarray) -> None:
    flat = hu.view(-1)
    flat[place] = torch.lerp(flat[place], torch.from_numpy(cortical_hu).to(hu.device)[owner], share)


def _voxel(context: RenderContext) -> float:
    return float(np.cbrt(np.prod(context.spacing)))


def _faces(context: RenderContext, bone: torch.Tensor, owner: torch.Tensor) -> list[torch.Tensor]:
    """Per layer from the surface inwards: how many faces of each voxel of ``bone`` look out of the layer; float32, 0: none.

    Faces towards another bone look out, towards a lesion, the other half of the sacrum or out of the volume don't.
    """
    names = context.label_map.vocabulary.by_name
    lesion, halves = names[_LESION].id, (names[_FIRST_SACRAL].id, names[_SACRUM].id)
    labels = context.labels.view(-1)
    own = owner.to(labels.dtype)
    split = bool((own == halves[0]).any()) and bool((own == halves[1]).any())
    if split:
        own = own.masked_fill(own == halves[0], halves[1])
    neighbours, faces = neighbours_of(bone, context.size), torch.zeros(len(bone), device=bone.device)
    for neighbour in neighbours:
        label = labels.index_select(0, neighbour)
        if split:
            label.masked_fill_(label == halves[0], halves[1])
        faces += (label != own).logical_and_(label != lesion)
    layers = [faces]
    surface = torch.zeros(len(labels), dtype=torch.uint8, device=bone.device)
    taken = faces > 0
    for _ in range(1, _LAYERS):
        surface[bone[taken]] = 1
        faces = torch.zeros(len(bone), device=bone.device)
        for neighbour in neighbours:
            faces += surface.index_select(0, neighbour)
        layers.append(faces.masked_fill_(taken, 0.0))
        taken = taken | (faces > 0)
    return layers


def _thin_bodies(thickness: torch.Tensor, context: RenderContext, bone: torch.Tensor, owner: torch.Tensor) -> None:
    """Lower ``thickness`` (mm, per voxel of ``bone``) to that of the vertebral bodies where the vertebrae are bulky."""
    vertebral = torch.nonzero(_named(context, ("vertebrae",)).to(bone.device)[owner]).view(-1)
    if not len(vertebral):
        return
    _, ny, nz = context.size
    place = bone[vertebral]
    steps = [max(1, round(_LATTICE_MM / mm)) for mm in context.spacing]
    nodes = [-(-n // step) for n, step in zip(context.size, steps, strict=True)]
    at = [place // (ny * nz) // steps[0], place // nz % ny // steps[1], place % nz // steps[2]]
    first = [max(int(i.min()) - _BODY_REACH, 0) for i in at]
    box = [min(int(i.max()) + _BODY_REACH + 1, n) - low for i, n, low in zip(at, nodes, first, strict=True)]
    node = ((at[0] - first[0]) * box[1] + (at[1] - first[1])) * box[2] + (at[2] - first[2])
    filled = torch.bincount(node, minlength=int(np.prod(box))).to(torch.float32).view(*box).div_(float(np.prod(steps)))
    x, y, z = (_BULK_MM / step / mm for step, mm in zip(steps, context.spacing, strict=True))
    low, high = _BULKY
    body = blur(filled, (x, y, z)).sub_(low).div_(high - low).clamp_(0.0, 1.0)
    for axis in range(3):
        kernel = [2 * _BODY_REACH + 1 if a == axis else 1 for a in range(3)]
        padding = [_BODY_REACH if a == axis else 0 for a in range(3)]
        body = torch.nn.functional.max_pool3d(body[None, None], kernel, 1, padding)[0, 0]
    share = blur(body, (0.7, 0.7, 0.7)).view(-1)[node]
    thickness[vertebral] = torch.lerp(thickness[vertebral], torch.full_like(share, _VERTEBRAL_BODY), share)


def _thickness(context: RenderContext) -> torch.Tensor:
    """Shell thickness in mm per label id, float32."""
    names = {label.id: label.name for label in context.label_map.vocabulary}
    thickness = np.full(max(names) + 1, _OTHER_BONES, np.float32)
    for label, name in names.items():
        for beginning, mm in _SHELL_MM.items():
            if name.startswith(beginning):
                thickness[label] = mm
    return torch.from_numpy(thickness)


def _named(context: RenderContext, beginnings: tuple[str, ...]) -> torch.Tensor:
    """Per label id whether its name begins with one of ``beginnings``, bool."""
    names = {label.id: label.name for label in context.label_map.vocabulary}
    return torch.tensor([names.get(label, "").startswith(beginnings) for label in range(max(names) + 1)])
