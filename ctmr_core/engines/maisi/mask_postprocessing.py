"""From the network's classes to an anatomically tidy label map.

The steps are those of the reference (``general_mask_generation_post_process`` of NVIDIA NV-Generate-CTMR, Apache-2.0): keep
one body, drop tumours that were not asked for, keep the largest piece of each organ, close gaps, regrow structures into the
removed pieces. ``MaskBehaviour`` names what is done differently in the fixed mode.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import cc3d
import edt
import numpy as np
from scipy import ndimage

from ctmr_core.anatomy.field_of_view import bounding_box
from ctmr_core.engines.maisi.mask_behaviour import MaskBehaviour, mask_behaviour
from ctmr_core.engines.maisi.mask_morphology import Box, boxes_of, closed_label, grow, shrink, strays, widened
from ctmr_core.errors import EngineError

N_CLASSES = 125
"""Output channels of the mask autoencoder."""
_UNUSED_IDS = frozenset({2, 16, 18, 20, 21, 116, 117, 130, 131})
CLASS_TO_LABEL = np.array([*(label for label in range(133) if label not in _UNUSED_IDS), 200], np.uint8)
"""uint8 [125]: class of the mask autoencoder -> id of the maisi vocabulary (configs/label_dict_124_to_132.json)."""

LIVER, SPLEEN, PANCREAS, HEPATIC_VESSEL, COLON, SMALL_BOWEL = 1, 3, 4, 25, 62, 19
LUNG_TUMOR, PANCREATIC_TUMOR, HEPATIC_TUMOR, COLON_TUMOR, BONE_LESION = 23, 24, 26, 27, 128
RIGHT_KIDNEY, LEFT_KIDNEY, LEFT_CYST, RIGHT_CYST, KIDNEY_MASS = 5, 14, 116, 117, 129
AIRWAY, BODY = 132, 200
LOBES = (28, 29, 30, 31, 32)
_INTESTINES = (12, 13, SMALL_BOWEL, COLON)
TUMOR_HOSTS = {LUNG_TUMOR: 28, PANCREATIC_TUMOR: PANCREAS, HEPATIC_TUMOR: LIVER, COLON_TUMOR: COLON, BONE_LESION: BODY}
"""Tumour -> what an unrequested one becomes in the reference."""
_ORGANS = (1, 4, 10, 12, 3, *LOBES, 5, 14, 13, 6, 7, 8, 9, 10)
"""In the order in which gaps are closed; the gallbladder comes twice because its neighbours may overwrite it."""
_SPINE_AND_NEIGHBOURS = tuple(range(33, 60))
_CYST_REACH = 12  # voxels of 1.5 mm: a mass further from any kidney is not the kidney's


def labels_of_classes(classes: np.ndarray) -> np.ndarray:
    """Classes 0-124 of the mask autoencoder as maisi ids, uint8, same shape."""
    return CLASS_TO_LABEL[classes]


@dataclass
class _Work:
    """A label map in the making. removed: pieces of organs that became body; bowel: pieces of bowel that did."""

    labels: np.ndarray
    target: int | None
    rules: MaskBehaviour
    removed: np.ndarray = field(init=False)
    bowel: np.ndarray = field(init=False)

    def box(self, *labels: int, margin: int = 0) -> Box | None:
        table = np.zeros(256, bool)
        table[list(labels)] = True
        box = bounding_box(table[self.labels])
        return None if box is None else widened(box, margin, self.labels.shape)

    def close(self, label: int, box: Box | None = None) -> None:
        """Fill the gaps of one structure."""
        box = box or self.box(label)
        if box is None:
            return
        view, filled = closed_label(self.labels, label, box, outside=not self.rules.open_border)
        part = self.labels[view]
        if not self.rules.overwriting_closing:
            filled &= (part == BODY) | (part == 0)
        part[filled] = label

    def regrow(self, label: int, into: np.ndarray, reach: int = 3) -> None:
        """Give the structure those voxels of ``into`` that lie within ``reach`` voxels of it."""
        box = self.box(label, margin=reach)
        if box is not None:
            part = self.labels[box]
            part[grow(part == label, reach) & into[box]] = label


def postprocess(labels: np.ndarray, target: int | None = None, *, absent: Iterable[int] = (), compat: bool = False) -> np.ndarray:
    """A tidy label map, uint8 [x, y, z], from one as the network draws it (maisi ids, uint8 [x, y, z]); a new array.

    target: id of the tumour that was asked for (23, 24, 26, 27, 128) or None; the others are given to their hosts.
    absent: ids that must not appear (fixed mode only).
    compat: as the reference does it, defects included.
    Raises ``EngineError`` for a target that is no tumour, or when nothing would be left.
    """
    if target is not None and target not in TUMOR_HOSTS:
        raise EngineError("no such tumour can be asked for", found=target, allowed=TUMOR_HOSTS)
    if labels.dtype != np.uint8 or labels.ndim != 3:
        raise EngineError("label maps are uint8 [x, y, z]", found=(str(labels.dtype), labels.shape))
    work = _Work(labels.copy(), target, mask_behaviour(compat))
    vessels, airway = labels == HEPATIC_VESSEL, labels == AIRWAY
    _keep_one_body(work)
    if not work.rules.merged_vessels:
        vessels &= work.labels == HEPATIC_VESSEL
        work.labels[vessels] = LIVER
    if not work.rules.kidney_mass:
        _name_kidney_masses(work)
    _settle_tumours(work)
    tumour = np.zeros(labels.shape, bool) if target is None else work.labels == target
    _keep_largest_organs(work)
    if tumour.any():
        if target == LUNG_TUMOR:
            _refine_lung_tumour(work)
        elif target == HEPATIC_TUMOR:
            tumour = _refine_hepatic_tumour(work, tumour)
        elif target == COLON_TUMOR:
            _regrow_tumour(work, COLON_TUMOR)
    _restore(work, vessels, airway, tumour)
    if not work.rules.ignored_absence:
        give_away(work.labels, [label for label in absent if label != target])
    return work.labels


def _keep_one_body(work: _Work) -> None:
    """Clear everything outside of the largest piece of the (opened) body."""
    core = shrink(work.labels > 0, outside=False).view(np.uint8)
    core[strays(core, (1,), unstable_ties=work.rules.unstable_ties)] = 0
    body = grow(core.view(bool))
    if not work.rules.unverified and not body.any():
        raise EngineError("the label map has no body", found=f"{np.count_nonzero(work.labels)} scattered voxels")
    work.labels[~body] = 0


def _settle_tumours(work: _Work) -> None:
    """Close the tumour that was asked for and keep its largest piece (bone and liver may have several); drop the others."""
    if not work.rules.ignored_absence:
        give_away(work.labels, [tumour for tumour in TUMOR_HOSTS if tumour != work.target])
    for tumour, host in TUMOR_HOSTS.items():
        if tumour != work.target:
            work.labels[work.labels == tumour] = host
        else:
            work.close(tumour)
    if work.target is not None and work.target not in (HEPATIC_TUMOR, BONE_LESION):
        work.labels[strays(work.labels, (work.target,), unstable_ties=work.rules.unstable_ties)] = BODY


def _keep_largest_organs(work: _Work) -> None:
    """Leave one piece of every organ, drop bowel that is not connected to the rest of it, and close what is left."""
    organs = _ORGANS if work.target == BONE_LESION else (*_ORGANS, *_SPINE_AND_NEIGHBOURS)
    labels, ties = work.labels, work.rules.unstable_ties
    work.removed = strays(labels, organs, unstable_ties=ties)
    labels[work.removed] = BODY
    table = np.zeros(256, np.uint8)
    table[list(_INTESTINES)] = 1
    apart = strays(table[labels], (1,), unstable_ties=ties)
    work.bowel = apart & ((labels == SMALL_BOWEL) | (labels == COLON))
    labels[work.bowel] = BODY
    boxes = boxes_of(labels)
    for organ in organs:
        if organ in boxes:
            work.close(organ, boxes[organ])


def _regrow_tumour(work: _Work, tumour: int, reach: int = 2) -> None:
    """Give the tumour the removed pieces of organs within ``reach`` voxels of it."""
    work.regrow(tumour, work.removed, reach)


def _refine_lung_tumour(work: _Work) -> None:
    """Close the lobe around the tumour up to it, regrow the tumour into removed pieces, close all lobes."""
    box = work.box(LUNG_TUMOR, margin=6)
    if box is None:
        return
    part, removed = work.labels[box], work.removed[box]
    tumour = part == LUNG_TUMOR
    near = grow(tumour)
    around = np.bincount(part[near & ~tumour], minlength=256)
    around[0] = 0
    lobe = int(around.argmax())
    if lobe in LOBES:
        near = grow(near)
        gap = near & ~tumour
        if not work.rules.overwriting_closing:
            gap &= part == BODY
        lobe_box = widened(box, 0, work.labels.shape)
        part[_grown_from(work.labels, lobe, lobe_box) & gap] = lobe
    near = grow(near)
    part[grow(part == LUNG_TUMOR, 3) & near & removed] = LUNG_TUMOR
    for label in LOBES:
        work.close(label)


def _grown_from(labels: np.ndarray, label: int, box: Box, reach: int = 3) -> np.ndarray:
    """Bool mask of ``box``: within ``reach`` voxels of the structure, wherever that lies."""
    wide = widened(box, reach, labels.shape)
    inner = tuple(slice(own.start - outer.start, own.stop - outer.start) for own, outer in zip(box, wide, strict=True))
    return grow(labels[wide] == label, reach)[inner]


def _refine_hepatic_tumour(work: _Work, tumour: np.ndarray) -> np.ndarray:
    """Regrow liver, spleen and tumour into what was removed around them; the tumour to write at the end."""
    for _ in range(2):
        work.regrow(LIVER, work.bowel)
    for _ in range(2):
        work.regrow(SPLEEN, work.removed)
    _regrow_tumour(work, HEPATIC_TUMOR)
    if work.rules.lost_hepatic_tumour:
        tumour = np.zeros_like(tumour)
    else:
        table = np.zeros(256, np.uint8)
        table[[LIVER, HEPATIC_TUMOR]] = 1
        apart = strays(table[work.labels], (1,))
        work.labels[apart] = BODY
        tumour = tumour & ~apart
    work.close(LIVER)
    return tumour


def _restore(work: _Work, vessels: np.ndarray, airway: np.ndarray, tumour: np.ndarray) -> None:
    """Bring back what is thin or small, and was overwritten on the way."""
    labels = work.labels
    if work.rules.merged_vessels:
        labels[vessels] = LIVER
        labels[airway] = AIRWAY
    else:
        labels[vessels & (labels == LIVER)] = HEPATIC_VESSEL
        labels[airway & (labels > 0)] = AIRWAY
    if work.target is not None:
        labels[tumour] = work.target


def _name_kidney_masses(work: _Work) -> None:
    """Kidney masses (129) become cysts of the kidney that is nearer, or body where no kidney is near."""
    box = work.box(KIDNEY_MASS, margin=_CYST_REACH)
    if box is None:
        return
    part = work.labels[box]
    mass = part == KIDNEY_MASS
    left, right = (_distance_to(part == kidney)[mass] for kidney in (LEFT_KIDNEY, RIGHT_KIDNEY))
    cyst = np.where(left < right, LEFT_CYST, RIGHT_CYST)
    part[mass] = np.where(np.minimum(left, right) <= _CYST_REACH, cyst, BODY)


def _distance_to(mask: np.ndarray) -> np.ndarray:
    if not mask.any():
        return np.full(mask.shape, np.inf, np.float32)
    return edt.edt(np.ascontiguousarray(~mask), parallel=1)


def give_away(labels: np.ndarray, unwanted: Iterable[int]) -> None:
    """Give every voxel of the ``unwanted`` structures to the nearest other structure, in place (uint8 [x, y, z]).

    Background counts as a neighbour only where nothing else is near.
    """
    table = np.zeros(256, bool)
    table[list(unwanted)] = True
    table[0] = False
    if not table.any():
        return
    pieces = cc3d.connected_components(table[labels], connectivity=26, binary_image=True)
    for box in cc3d.statistics(pieces)["bounding_boxes"][1:]:
        view = widened(box, 4, labels.shape)
        part = labels[view]
        gone = table[part]
        if gone.any():
            part[gone] = nearest_labels(part, ~gone & (part > 0))[gone]


def nearest_labels(labels: np.ndarray, sources: np.ndarray) -> np.ndarray:
    """The label of the nearest voxel of ``sources`` (bool) at every voxel; body 200 where there is none at all."""
    if not sources.any():
        return np.full_like(labels, BODY)
    indices = ndimage.distance_transform_edt(~sources, return_distances=False, return_indices=True)
    return labels[tuple(indices)]
