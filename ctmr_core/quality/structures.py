"""Structures of one attempt as checks see them: where they are, how large, whether the field of view cuts them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ctmr_core.anatomy.pose import Pose
from ctmr_core.anatomy.sequences import SKULL_STRIPPED
from ctmr_core.cases.case import IMPORTED, Case

if TYPE_CHECKING:
    from ctmr_core.quality.base import Candidate

_CUT_MM = 12.0  # from the end of a template: tilts and deformations move its last slice by some millimetres, poses more
#: Bodies that are no anatomy: boxes for measuring the factory.
_NOT_ANATOMY = frozenset({"generated:blocks"})
_AROUND_SHARE = 0.1  # of the labelled voxels: label 200 alone is a third of a trunk and more


@dataclass(frozen=True)
class Structure:
    """One labelled structure in view.

    center: mm from the volume's first voxel along [x, y, z] (RAS+: right, front, head). low, high: its box in mm likewise.
    whole: its box reaches neither a face of the volume nor, in a template, the template's own lower or upper end.
    """

    id: int
    name: str
    voxels: int
    ml: float
    center: tuple[float, float, float]
    low: tuple[float, float, float]
    high: tuple[float, float, float]
    whole: bool


def shows_anatomy(case: Case) -> bool:
    """Whether the case has a labelled body that is meant to be a human one."""
    return case.unlabelled_region is None and case.body not in _NOT_ANATOMY


def is_surrounded(candidate: Candidate) -> bool:
    """Whether the label map holds the whole body, so that its background is what lies outside.

    Scans are imported with label maps of organs alone too: their background is fat, muscle and whatever nobody labelled. All
    that is made here has a body.
    """
    case, vocabulary = candidate.case, candidate.label_map.vocabulary
    if case.engine != IMPORTED:
        return True
    groups = {"head", "brain"} if all(name.endswith(SKULL_STRIPPED) for name in case.sequences) else {"head"}
    known = [entry for entry in candidate.census.entries.values() if entry.id in vocabulary]
    around = [e for e in known if vocabulary.label(e.id).group in groups or vocabulary.label(e.id).name == "body"]
    return sum(e.voxels for e in around) >= _AROUND_SHARE * max(sum(e.voxels for e in known), 1)


def structures_of(candidate: Candidate) -> dict[str, Structure]:
    """name -> structure of every label of the vocabulary that is in view, from the census alone."""
    label_map, vocabulary = candidate.label_map, candidate.label_map.vocabulary
    spacing = np.asarray(label_map.spacing)
    inner = _uncut(candidate)
    found = {}
    for entry in candidate.census.entries.values():
        if entry.id not in vocabulary:
            continue
        start, stop = np.asarray(entry.box[:3]), np.asarray(entry.box[3:])
        x, y, z = (float(value) for value in np.asarray(entry.centroid) * spacing)
        name = vocabulary.label(entry.id).name
        found[name] = Structure(
            id=entry.id,
            name=name,
            voxels=entry.voxels,
            ml=entry.volume_ml,
            center=(x, y, z),
            low=_mm(start * spacing),
            high=_mm(stop * spacing),
            whole=bool((start > inner[0]).all() and (stop < inner[1]).all()),
        )
    return found


def ends_in_view(candidate: Candidate) -> bool:
    """Whether a template ends inside the volume along z: its last slice lies open, whatever it cuts."""
    boxes = np.array([entry.box for entry in candidate.census.entries.values()])
    if candidate.case.template_id is None or not len(boxes):
        return False
    return bool(boxes[:, 2].min() > 0 or boxes[:, 5].max() < candidate.label_map.size[2])


def _uncut(candidate: Candidate) -> tuple[np.ndarray, np.ndarray]:
    """Voxel indices between which a structure is whole: the volume, and of a template what it holds along z.

    A template was cut from a scan: what reaches its first or last slice goes on outside it, wherever that slice lies now.
    """
    low, high = np.zeros(3), np.asarray(candidate.label_map.size, float)
    boxes = np.array([entry.box for entry in candidate.census.entries.values()])
    if candidate.case.template_id is not None and len(boxes):
        width = float(np.max((boxes[:, 3:5].max(0) - boxes[:, :2].min(0)) * candidate.label_map.spacing[:2]))
        slope = np.sin(np.deg2rad(Pose(*candidate.case.pose).angle)) if candidate.case.pose else 0.0
        margin = (_CUT_MM + slope * width) / candidate.label_map.spacing[2]
        low[2] = max(low[2], boxes[:, 2].min() + margin)
        high[2] = min(high[2], boxes[:, 5].max() - margin)
    return low, high


def pairs_of(structures: dict[str, Structure]) -> list[tuple[Structure, Structure]]:
    """(left, right) of every paired structure of which both sides are in view."""
    pairs = []
    for name, left in structures.items():
        right = structures.get(name.replace("left", "right", 1))
        if name.startswith("left ") and right is not None:
            pairs.append((left, right))
    return pairs


def box_gap(a: Structure, b: Structure) -> float:
    """mm between the boxes of two structures, 0 where they overlap: they can't be nearer than that."""
    gap = np.maximum(np.maximum(np.subtract(a.low, b.high), np.subtract(b.low, a.high)), 0.0)
    return float(np.linalg.norm(gap))


def _mm(values: np.ndarray) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in values)
    return x, y, z
