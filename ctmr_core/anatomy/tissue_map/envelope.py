"""Inside the body envelope (label 200): skin, subcutaneous fat, muscle and the fat between organs.

The envelope is what no organ label covers. Two smooth surfaces split it: the *cavity*, the closed hull of the organs of
chest and abdomen, whose gaps hold fat; and the *muscle wall* around cavity, skeleton and labelled muscles. What lies
outside the wall is subcutaneous fat, and the outermost 2 mm are skin.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ctmr_core.anatomy.tissue_map.canvas import (
    Canvas,
    CoarseGrid,
    distance_inside,
    distance_outside,
    expand,
    smooth_noise,
    voxel_offsets,
)
from ctmr_core.anatomy.tissues import tissue_id

BODY = 200
SKIN_MM = 2.0  # epidermis and dermis of the trunk, 1-3 mm (ICRP 89, 2002)
_SKIN_SPACING_LIMIT_MM = 2.5  # on coarser grids one voxel of skin would be far too thick
_COARSE_MM = 5.0
_MARGIN_MM = 50.0
_SLAB = 1 << 22

LUNGS = (28, 29, 30, 31, 32, 23)
_CHEST = (*LUNGS, 115, 108, 119, 109, 110, 111, 125, 57, 132, 6)
_ABDOMEN = (1, 3, 4, 5, 7, 8, 9, 10, 12, 13, 14, 15, 17, 19, 24, 25, 26, 27, 62, 116, 117, 118, 58, 59, 60, 61)
_UPPER_ABDOMEN = (1, 3, 12, 10, 26)
_RIBS = (*range(63, 87), 114, 122)
_UPPER_RIBS = (*range(63, 68), *range(75, 80))
_MIDDLE_RIBS = (*range(68, 72), *range(80, 84))
_GIRDLE = (87, 88, 89, 90, 91, 92)
_AXILLA_MM = 30.0  # what lies further than this from every bone of the shoulder is the fat of the armpit
_BRAIN, _SKULL, _NECK = (22,), (120,), (*range(50, 57), 121)
_FACE_MM = 45.0  # how far muscle reaches from skull and cervical spine, if the skin is not nearer
_FACE_FAT_MM = 8.0  # skin and fat of cheeks and neck
_SCALP_MM = 10.0  # nearer to the brain than this, outside the skull, there is scalp: fat and galea
_SPINE = (*range(33, 57), 127, 97)
_PELVIS = (95, 96)
_SACRUM = (97, 127)
_MUSCLES = tuple(range(98, 108))

#: mm of muscle around bones, per group: (labels, thickness). Rounded from the muscle layers of the ICRP 110 reference
#: phantoms: intercostals, pectoral and thin trunk muscles over the ribs, shoulder girdle, thigh, neck.
_MUSCLE_AROUND: tuple[tuple[tuple[int, ...], float], ...] = (
    (_UPPER_RIBS, 12.0),
    (_MIDDLE_RIBS, 10.0),
    (_RIBS, 5.0),
    ((57, 112, 113, 126), 9.0),
    (tuple(range(33, 49)), 7.0),
    (tuple(range(49, 57)), 32.0),
    (_SACRUM, 5.0),
    (_PELVIS, 9.0),
    ((89, 90), 17.0),
    ((91, 92), 10.0),
    ((87, 88), 26.0),
    ((93, 94), 38.0),
    (_MUSCLES, 1.5),
)

_FAT, _MEDIASTINUM, _EPICARDIUM, _DIAPHRAGM, _CSF = 0, 1, 2, 3, 4
_CAVITY_TISSUES = ("visceral_fat", "thymus_fat", "epicardial_fat", "muscle", "csf_subarachnoid")


def paint(canvas: Canvas) -> None:
    """Give every voxel of label 200 its tissue."""
    if not canvas.present((BODY,)):
        return
    coarse = CoarseGrid(canvas, _COARSE_MM, _MARGIN_MM)
    cavity, wall = _cavity_and_wall(coarse)
    contents = _cavity_contents(coarse)
    tissues = np.array([tissue_id(name) for name in _CAVITY_TISSUES], np.uint8)
    muscle, fat, between = tissue_id("muscle"), tissue_id("subcutaneous_fat"), tissue_id("visceral_fat")
    rng = canvas.rng("intermuscular fat")
    streaks = smooth_noise(coarse.voxels.shape, coarse.spacing, 11.0, rng)
    patches = smooth_noise(coarse.voxels.shape, coarse.spacing, 45.0, rng)
    y, z = coarse.matrix(1), coarse.matrix(2)
    planes = max(1, _SLAB // (canvas.size[1] * canvas.size[2]))
    for begin in range(0, canvas.size[0], planes):
        part = slice(begin, begin + planes)
        inside = canvas.voxels[part] == BODY
        if not inside.any():
            continue
        x = coarse.matrix(0, part)

        def fine(values: np.ndarray, x: np.ndarray = x, inside: np.ndarray = inside) -> np.ndarray:
            return expand(values, x, y, z)[inside]

        in_cavity, in_wall = fine(cavity) > 0, fine(wall)
        kind = contents[np.ix_(coarse.nearest(0, part), coarse.nearest(1), coarse.nearest(2))][inside]
        painted = np.where(in_wall > 0, np.uint8(muscle), np.uint8(fat))
        # sheets of fat between muscles: the zero surface of smooth noise, wide where the slower noise is high
        sheet = np.abs(fine(streaks)) < np.maximum(fine(patches), 0) * np.float32(0.2)
        painted[sheet & (in_wall > 4)] = between
        painted = np.where(in_cavity, tissues[kind], painted)
        canvas.tissues[part][inside] = painted
    _paint_skin(canvas)


def _closing(mask: np.ndarray, radius_mm: float, spacing: np.ndarray) -> np.ndarray:
    """Signed distance in mm (> 0 inside, float32) of the closing of ``mask`` with a ball."""
    return distance_inside(distance_outside(mask, spacing) <= radius_mm, spacing) - np.float32(radius_mm)


def _cavity_and_wall(coarse: CoarseGrid) -> tuple[np.ndarray, np.ndarray]:
    """Signed fields on the coarse grid, mm, > 0 inside: the cavity of the trunk, and the muscle wall around everything."""
    spacing = coarse.spacing
    body = coarse.voxels != 0
    depth = distance_inside(body, spacing)
    sigma = 4.0 / spacing
    chest, abdomen = coarse.mask(_CHEST), coarse.mask(_ABDOMEN)
    spine = coarse.mask(_SPINE)
    cavity = np.full(body.shape, -60, np.float32)
    wall = np.full(body.shape, -60, np.float32)
    if chest.any() or abdomen.any():
        cavity = np.maximum(cavity, _closing(chest | abdomen, 22.0, spacing) + 1.0)
    if abdomen.any():
        angle, midline = _around_each_slice(coarse, body)
        # fat between peritoneum and wall: little in front, more at the flanks and behind the kidneys
        fat = 1.5 + 5.0 * np.clip(angle - 0.6, 0, 1)
        # under the ribs liver, spleen and stomach lie against diaphragm and wall
        fat = fat * np.clip((distance_outside(coarse.mask(_RIBS), spacing) - 10) / 20, 0, 1)
        hull = _closing(abdomen | coarse.mask(_SACRUM), 42.0, spacing)
        cavity = np.maximum(cavity, np.minimum(hull + fat, distance_outside(coarse.mask(_PELVIS), spacing) - 7.0))
        ring = np.maximum(_closing(abdomen | spine, 42.0, spacing), -60)
        wall = np.maximum(wall, ring + fat + _abdominal_wall_mm(angle, midline))
    if spine.any():
        cavity = np.minimum(cavity, distance_outside(spine, spacing) - 2.5)
    trunk = coarse.mask((*_RIBS, *LUNGS, *_SPINE))
    if trunk.any():
        wall = np.maximum(wall, np.maximum(_closing(trunk, 30.0, spacing), -60) + 2.0)
    skull, brain = coarse.mask(_SKULL), coarse.mask(_BRAIN)
    if skull.any():
        face = _FACE_MM - distance_outside(skull | coarse.mask(_NECK), spacing)
        face = np.minimum(face, np.minimum(distance_outside(brain, spacing) - _SCALP_MM, depth - _FACE_FAT_MM))
        wall = np.maximum(wall, face)
    if brain.any():
        cavity = np.maximum(cavity, _closing(brain, 12.0, spacing) + 1.5)
    girdle = coarse.mask(_GIRDLE)
    if girdle.any():
        bones = girdle | coarse.mask((*_UPPER_RIBS, *_MIDDLE_RIBS, *range(43, 50)))
        hull = np.maximum(_closing(bones, 60.0, spacing), -60) + 4.0
        wall = np.maximum(wall, np.minimum(hull, _AXILLA_MM - distance_outside(bones, spacing)))
    for labels, thickness in _MUSCLE_AROUND:
        mask = coarse.mask(labels)
        if mask.any():
            wall = np.maximum(wall, np.float32(thickness) - distance_outside(mask, spacing))
    wall = ndimage.gaussian_filter(wall, sigma)
    # even lean people have a few mm of fat under the skin
    return ndimage.gaussian_filter(cavity, sigma * 0.5), np.minimum(wall, depth - np.float32(SKIN_MM + 3.0))


def _around_each_slice(coarse: CoarseGrid, body: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Angle around the middle of each slice (0 in front, pi/2 at the flanks, pi behind) and 0..1 near the midline in front."""
    x = np.arange(body.shape[0])[:, None] * coarse.spacing[0]
    y = np.arange(body.shape[1])[:, None] * coarse.spacing[1]
    count = np.maximum(body.sum(axis=(0, 1)), 1)
    x = (x - (body.sum(axis=1) * x).sum(axis=0) / count)[:, None, :].astype(np.float32)
    y = (y - (body.sum(axis=0) * y).sum(axis=0) / count)[None, :, :].astype(np.float32)
    return np.arctan2(np.abs(x), y), np.exp(-((x / 6) ** 2)) * (y > 0)


def _abdominal_wall_mm(angle: np.ndarray, midline: np.ndarray) -> np.ndarray:
    """Thickness of the abdominal wall, float32 mm.

    About 10 mm of rectus in front, thin in the midline (linea alba), up to 17 mm of obliques at the flanks (Rankin et
    al., Muscle Nerve 2006, ultrasound of 123 people), more behind where quadratus lumborum joins.
    """
    return 9 + 6 * np.exp(-(((angle - 1.5) / 0.5) ** 2)) + 4 * np.clip(angle - 2, 0, 1) - 6 * midline


def _cavity_contents(coarse: CoarseGrid) -> np.ndarray:
    """uint8 [x, y, z]: which of ``_CAVITY_TISSUES`` fills the gaps of the cavity here."""
    spacing = coarse.spacing
    contents = np.full(coarse.voxels.shape, _FAT, np.uint8)
    brain = coarse.mask(_BRAIN)
    if brain.any():
        contents[distance_outside(brain, spacing) < 12] = _CSF
    lungs = coarse.mask(LUNGS)
    if not lungs.any():
        return contents
    to_lung = distance_outside(lungs, spacing)
    sternum = coarse.mask((122, 114))
    if sternum.any():
        contents[(distance_outside(sternum, spacing) < 30) & (to_lung < 25)] = _MEDIASTINUM
    heart = coarse.mask((115,))
    if heart.any():
        contents[distance_outside(heart, spacing) < 8] = _EPICARDIUM
    below = coarse.mask(_UPPER_ABDOMEN)
    if below.any():
        contents[to_lung + distance_outside(below, spacing) < 10] = _DIAPHRAGM
    return contents


def _paint_skin(canvas: Canvas) -> None:
    """Skin on the outermost ``SKIN_MM`` of the body, only where voxels are fine enough to show it."""
    limit = SKIN_MM + canvas.spacing.min() / 2
    if np.sort(canvas.spacing)[1] > _SKIN_SPACING_LIMIT_MM:
        return
    reach = [int(limit / mm) for mm in canvas.spacing]
    outside = np.pad(canvas.voxels == 0, [(n, n) for n in reach])
    surface = np.zeros_like(outside)
    for axis in range(3):
        low, high = [slice(None)] * 3, [slice(None)] * 3
        low[axis], high[axis] = slice(None, -1), slice(1, None)
        change = outside[tuple(low)] != outside[tuple(high)]
        surface[tuple(low)] |= change & outside[tuple(low)]
        surface[tuple(high)] |= change & outside[tuple(high)]
    places = np.flatnonzero(surface)
    near = np.zeros(outside.size, bool)
    strides = np.array([outside.shape[1] * outside.shape[2], outside.shape[2], 1])
    for offset in voxel_offsets(canvas.spacing, limit):
        near[np.clip(places + int(offset @ strides), 0, near.size - 1)] = True
    inner = tuple(slice(n, n + size) for n, size in zip(reach, canvas.size, strict=True))
    canvas.tissues[near.reshape(outside.shape)[inner] & (canvas.voxels == BODY)] = tissue_id("skin")
