"""Bones: cortical shells around trabecular cores, tables and diploe of the skull, discs between vertebrae."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from ctmr_core.anatomy.tissue_map.canvas import Canvas, distance_inside, distance_outside, voxel_offsets
from ctmr_core.anatomy.tissues import tissue_id

BONE_LESION = 128
_SPINAL_CORD = 121
_BODY = 200

#: mm of cortical bone per group of labels, as CT shows it. Vertebral shell: Silva et al., Bone 1994; ribs: Mohr et al.,
#: J Biomech 2007; proximal femur: Treece et al., Med Image Anal 2010; tables of the skull: Lynnerup et al., Forensic Sci
#: Int 2005; the others between these.
CORTEX_MM: tuple[tuple[tuple[int, ...], float], ...] = (
    ((*range(33, 57), 127), 0.9),
    ((97,), 1.0),
    (tuple(range(63, 87)), 1.0),
    ((122,), 1.0),
    ((89, 90), 1.2),
    ((91, 92), 1.5),
    ((95, 96), 1.4),
    ((87, 88), 2.0),
    ((93, 94), 2.2),
    ((120,), 1.8),
)

#: the spine from the sacrum up, in the order in which discs separate its bones
SPINE = (127, *range(33, 56))
_DISC_GAP_MM = 16.0  # lumbar discs are 8-14 mm high; the sum of distances is larger beside a tilted end plate


def paint(canvas: Canvas) -> None:
    """Cortical shells, one table look-up per bone voxel and neighbour."""
    thickness = np.zeros(256, np.float32)
    for labels, mm in CORTEX_MM:
        thickness[list(labels)] = mm
    half = canvas.spacing.min() / 2
    reach = thickness.max() + half
    present = canvas.present(np.flatnonzero(thickness).tolist())
    if not present or thickness[present].max() <= half:
        return
    offsets = voxel_offsets(canvas.spacing, float(reach))
    if len(offsets) > 64:
        _paint_by_distance(canvas, thickness, present)
        return
    pad = [int(abs(offsets[:, axis]).max()) for axis in range(3)]
    same = np.arange(256, dtype=np.uint8)
    same[127] = 97  # the first sacral segment and the sacrum are one bone
    voxels = np.pad(same[canvas.voxels], [(n, n) for n in pad], mode="edge")
    strides = np.array([voxels.shape[1] * voxels.shape[2], voxels.shape[2], 1])
    bone = canvas.members(present)[canvas.voxels]
    places = np.nonzero(bone)
    flat = sum((place + n) * stride for place, n, stride in zip(places, pad, strides, strict=True))
    voxels = voxels.ravel()
    label = voxels.take(flat)
    deepest = thickness[label] + half
    shell = np.zeros(label.size, bool)
    for offset in offsets:
        neighbour = voxels.take(flat + int(offset @ strides))
        distance = float(np.linalg.norm(offset * canvas.spacing))
        shell |= (neighbour != label) & (neighbour != BONE_LESION) & (deepest > distance)
    canvas.tissues[tuple(place[shell] for place in places)] = tissue_id("cortical_bone")


def _paint_by_distance(canvas: Canvas, thickness: np.ndarray, present: list[int]) -> None:
    """The same shells from distance transforms, for grids so fine that neighbours are too many to list."""
    for structure in canvas.structures(present):
        solid = structure.mask | (canvas.voxels[structure.box] == BONE_LESION)
        depth = distance_inside(solid, canvas.spacing) - canvas.spacing.min() / 2
        structure.paint(depth < thickness[structure.label], "cortical_bone")


def paint_discs(canvas: Canvas) -> None:
    """Discs: the gap in front of the canal between neighbouring vertebrae."""
    for lower, upper in pairwise(SPINE):
        if len(canvas.present((lower, upper))) < 2:
            continue
        box = _gap_box(canvas, lower, upper)
        if box is None:
            continue
        labels = canvas.voxels[box]
        below, above = labels == lower, labels == upper
        gap = distance_outside(below, canvas.spacing) + distance_outside(above, canvas.spacing)
        front = _canal_front_mm(canvas, labels, below | above)
        y = np.arange(labels.shape[1])[None, :, None] * canvas.spacing[1]
        limit = _DISC_GAP_MM + canvas.spacing.max()
        disc = (labels == _BODY) & (gap < limit) & (y > front) & _between(below, above)
        canvas.tissues[box][disc] = tissue_id("intervertebral_disc")


def _gap_box(canvas: Canvas, lower: int, upper: int) -> tuple[slice, slice, slice] | None:
    one, two = canvas.box((lower,)), canvas.box((upper,))
    if one is None or two is None:
        return None
    box = [slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(one, two, strict=True)]
    return box[0], box[1], box[2]


def _canal_front_mm(canvas: Canvas, labels: np.ndarray, bones: np.ndarray) -> np.ndarray:
    """mm along y, per slice [1, 1, z], of the wall between canal and vertebral bodies."""
    y = np.arange(labels.shape[1]) * canvas.spacing[1]
    cord = (labels == _SPINAL_CORD).sum(axis=0)
    if cord.any():
        seen = cord.sum(axis=0)
        middle = (cord * y[:, None]).sum(axis=0) / np.maximum(seen, 1)
        middle[seen == 0] = middle[seen > 0].mean()
        return (middle + 8.0)[None, None, :]
    profile = bones.sum(axis=(0, 2))
    return np.full((1, 1, labels.shape[2]), (profile * y).sum() / profile.sum() + 2.0)


def _between(below: np.ndarray, above: np.ndarray) -> np.ndarray:
    """Voxels with the lower vertebra somewhere beneath and the upper one somewhere on top, along z."""
    from_below = np.maximum.accumulate(below, axis=2)
    from_above = np.maximum.accumulate(above[:, :, ::-1], axis=2)[:, :, ::-1]
    return from_below & from_above
