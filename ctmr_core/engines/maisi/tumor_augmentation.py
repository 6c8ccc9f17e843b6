"""New label maps out of known ones: tumours moved within their hosts, healthy bodies zoomed by up to 1 %."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

from ctmr_core.anatomy.field_of_view import bounding_box
from ctmr_core.engines.maisi.mask_behaviour import MaskBehaviour, mask_behaviour
from ctmr_core.engines.maisi.mask_morphology import closed, grow, shrink, widened
from ctmr_core.engines.maisi.mask_postprocessing import BONE_LESION, COLON_TUMOR, LOBES, LUNG_TUMOR, nearest_labels
from ctmr_core.engines.maisi.tumor_movements import BRAIN_MOVEMENTS, MOVEMENTS, Movement, local_mover, monai_mover
from ctmr_core.errors import EngineError

ATTEMPTS = 100
_PATIENCE = {BONE_LESION: (40, 0.75), COLON_TUMOR: (20, 0.75)}  # after so many tries the reference is content with less
_ZOOM = 0.01
_CLOSING = 2  # voxels: a kernel of 5 x 5 x 5
_HOLE_MARGIN = 8  # voxels around a tumour in which its host is looked for


@dataclass(frozen=True)
class Augmentation:
    """What was done to a label map.

    what: name of the tumour that was moved, or ``"body"`` for a zoom. tries: moves drawn until one was accepted.
    shift: voxels [x, y, z] from the old to the new centre of mass (0 for a zoom). inside: share of the tumour's voxels
    found in the host after the move. zoom: scale about the middle of the volume.
    """

    what: str
    tries: int = 1
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0)
    inside: float = 1.0
    zoom: float = 1.0

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def augment_mask(
    mask: np.ndarray,
    seed: int | np.random.Generator,
    *,
    attempts: int = ATTEMPTS,
    compat: bool = False,
    vocabulary: Literal["maisi", "brain"] = "maisi",
) -> tuple[np.ndarray, list[Augmentation]]:
    """A varied copy of a label map [x, y, z] (uint8 maisi ids or uint16 brain ids), and what was done.

    seed: integer or generator. attempts: most moves tried per kind of tumour; in the fixed mode the moves get smaller over
    the second half. compat: the reference's transforms, and only the first kind of tumour (bone, liver, lung, pancreas,
    colon) is moved. vocabulary: of the ids; in the brain one the three parts of a brain tumour (401, 402, 403) move as
    one. Raises ``EngineError``, naming the tumour, when no move keeps it in its host.
    """
    dtype, movements = (np.uint16, BRAIN_MOVEMENTS) if vocabulary == "brain" else (np.uint8, MOVEMENTS)
    if mask.dtype != dtype or mask.ndim != 3:
        raise EngineError(f"{vocabulary} label maps are {np.dtype(dtype)} [x, y, z]", found=(str(mask.dtype), mask.shape))
    rules = mask_behaviour(compat)
    rng = np.random.default_rng(seed)
    number = int(seed) if isinstance(seed, int) else int(rng.integers(2**32))
    present = np.zeros(_ids(mask), bool)
    for plane in mask:
        present[plane.ravel()] = True
    chosen = [movement for movement in movements if present[list(movement.labels)].any()]
    if not chosen:
        return _zoomed(mask, rng, number, rules)
    labels = mask.copy()
    chosen = chosen[:1] if rules.one_tumour_kind else chosen
    return labels, [_move(labels, movement, rng, number, attempts, rules) for movement in chosen]


def _move(
    labels: np.ndarray, movement: Movement, rng: np.random.Generator, seed: int, attempts: int, rules: MaskBehaviour
) -> Augmentation:
    """Move one kind of tumour, in place."""
    whole = rules.monai_augmentation
    parts = np.where(np.isin(labels, movement.labels), labels, 0).astype(labels.dtype)
    tumour = parts > 0
    count = int(tumour.sum())
    members = np.zeros(_ids(labels), bool)
    members[[*movement.hosts, *movement.labels]] = True
    host = labels > 0 if whole and movement in BRAIN_MOVEMENTS else members[labels]
    if movement.closed_host:
        host = _closed(host, rules)
    _fill_hole(labels, tumour, movement, rules)
    mover = monai_mover(movement, parts, seed) if whole else local_mover(movement, parts, rng)
    patience, content = _PATIENCE.get(movement.label, (attempts, movement.inside))
    for attempt in range(attempts):
        if rules.monai_augmentation and movement.label == COLON_TUMOR and attempt >= patience:
            arrived = parts
        else:
            arrived = mover(min(1.0, 4 * (1 - attempt / attempts) ** 2))
        moved = (arrived > 0) & host
        enough = movement.inside if attempt < patience else content
        found = int(moved.sum())
        if found and found >= count * enough:
            final = moved if len(movement.labels) > 1 else _closed(moved, rules)
            if not whole:
                final &= host
            labels[final] = arrived[final] if len(movement.labels) > 1 else movement.label
            before, after = (np.array(np.nonzero(piece)).mean(axis=1) for piece in (tumour, final))
            x, y, z = (round(float(step), 2) for step in after - before)
            return Augmentation(movement.name, attempt + 1, (x, y, z), round(found / count, 4))
    raise EngineError(
        f"the {movement.name} could not be moved within its host",
        found=f"{attempts} tries, {count} voxels",
        allowed=f"{movement.inside:.0%} of it inside",
        fix="use another label map, or more attempts",
    )


def _ids(labels: np.ndarray) -> int:
    """How many ids the map's dtype can tell apart."""
    return int(np.iinfo(labels.dtype).max) + 1


def _closed(mask: np.ndarray, rules: MaskBehaviour) -> np.ndarray:
    """Gaps of up to 4 voxels filled. In the reference the volume's border counts as filled while dilating, too."""
    box = bounding_box(mask)
    if box is None:
        return mask
    if rules.open_border:
        grown = grow(mask, _CLOSING)
        for axis in range(3):
            faces = np.moveaxis(grown, axis, 0)
            faces[:_CLOSING] = True
            faces[-_CLOSING:] = True
        return shrink(grown, _CLOSING, outside=True)
    view = widened(box, _CLOSING + 1, mask.shape)
    result = np.zeros_like(mask)
    result[view] = closed(mask[view], _CLOSING, outside=True)
    return result


def _fill_hole(labels: np.ndarray, tumour: np.ndarray, movement: Movement, rules: MaskBehaviour) -> None:
    """Give the place of the tumour back to its host, in place."""
    if movement.label == LUNG_TUMOR and rules.monai_augmentation:
        labels[tumour] = _lobe_around(labels, tumour)
        return
    if rules.soft_holes:
        labels[tumour] = movement.fallback
        return
    box = bounding_box(tumour)
    if box is None:
        return
    view = widened(box, _HOLE_MARGIN, labels.shape)
    part, hole = labels[view], tumour[view]
    members = np.zeros(_ids(labels), bool)
    members[list(movement.hosts)] = True
    members[list(movement.labels)] = False
    hosts = members[part]
    if hosts.any():
        part[hole] = nearest_labels(part, hosts)[hole]
    elif movement.label == LUNG_TUMOR:
        raise EngineError("the lung tumor touches no lobe of a lung", found=f"{int(hole.sum())} voxels", allowed=LOBES)
    else:
        part[hole] = movement.fallback


def _lobe_around(labels: np.ndarray, tumour: np.ndarray) -> int:
    """The lobe most voxels next to the tumour belong to; those along the volume's border count as next to it."""
    ring = grow(tumour)
    for axis in range(3):
        faces = np.moveaxis(ring, axis, 0)
        faces[[0, -1]] = True
    votes = np.bincount(labels[ring & ~tumour], minlength=256)[list(LOBES)]
    if not votes.any():
        raise EngineError("the lung tumor touches no lobe of a lung", found=f"{int(tumour.sum())} voxels", allowed=LOBES)
    return LOBES[int(votes.argmax())]


def _zoomed(mask: np.ndarray, rng: np.random.Generator, seed: int, rules: MaskBehaviour) -> tuple[np.ndarray, list[Augmentation]]:
    """The label map zoomed about its middle on the same grid; edges are repeated."""
    if rules.monai_augmentation:
        import torch
        from monai.transforms import RandZoom

        zoom = RandZoom(prob=1.0, min_zoom=1 - _ZOOM, max_zoom=1 + _ZOOM, mode="nearest", align_corners=None)
        zoom.set_random_state(seed=seed)
        moved = np.asarray(zoom(torch.from_numpy(mask[None].astype(np.float32))))[0]
        return np.ascontiguousarray(moved.astype(mask.dtype)), [Augmentation("body", zoom=float(zoom._zoom[0]))]
    factor = float(rng.uniform(1 - _ZOOM, 1 + _ZOOM))
    places = []
    for n in mask.shape:
        middle = (n - 1) / 2
        places.append(np.clip(np.rint((np.arange(n) - middle) / factor + middle), 0, n - 1).astype(np.intp))
    return np.ascontiguousarray(mask[np.ix_(*places)]), [Augmentation("body", zoom=factor)]
