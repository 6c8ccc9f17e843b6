"""Is each solid structure in one piece, and the body without holes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import cc3d
import numpy as np

from ctmr_core.cases.case import Case
from ctmr_core.quality.base import Candidate, ScoredCheck
from ctmr_core.quality.settings import Thresholds
from ctmr_core.quality.structures import is_surrounded, shows_anatomy

#: Structures that are one piece in everybody. Thin ones (ribs, vessels, ducts) break at coarse voxels and are left out.
SOLID: dict[str, frozenset[str]] = {
    "maisi": frozenset(
        {
            "liver",
            "spleen",
            "right kidney",
            "left kidney",
            "gallbladder",
            "bladder",
            "heart",
            "brain",
            "stomach",
            "left lung upper lobe",
            "left lung lower lobe",
            "right lung upper lobe",
            "right lung middle lobe",
            "right lung lower lobe",
            "left hip",
            "right hip",
            "sacrum",
            *(f"vertebrae L{level}" for level in range(1, 6)),
            *(f"vertebrae T{level}" for level in range(1, 13)),
            "body",
        }
    ),
    "brain": frozenset(
        f"{side} {name}"
        for side in ("left", "right")
        for name in ("thalamus", "caudate", "putamen", "pallidum", "cerebral white matter", "cerebral cortex", "hippocampus")
    )
    | {"brain stem"},
}
#: Structures without processes, so that what a face cuts off from them reaches that face itself.
_CUT_GROUPS = frozenset({"organ", "heart", "lung", "brain"})
_SMALLEST = 200  # voxels: a smaller structure breaks at its own resolution


class ComponentsCheck(ScoredCheck):
    """The largest piece of each solid structure holds nearly all of it; background inside the body is rare.

    Pieces hang together over 26 neighbours, and across lesions. The field of view may cut a structure into pieces: of an organ
    it cuts, all that reach a face of the volume count as one. Cut bones, and cut structures of templates, are passed over.
    """

    name = "components"
    version = "4"
    #: Real brain structures hold 99.7 % in their largest piece, segmentations by networks 98 % and more. Holes: background voxels
    #: that can't reach the edge of the volume, as a share of the body; real label maps of heads have up to 1 %, thick slices of
    #: them 2 %.
    thresholds: ClassVar[Thresholds] = {"largest_share": 0.9, "hole_share": 0.025}

    def applies(self, case: Case) -> bool:
        return shows_anatomy(case)

    def measure(self, candidate: Candidate) -> dict[str, float]:
        voxels, vocabulary = candidate.label_map.voxels, candidate.label_map.vocabulary.name
        solid = SOLID.get(vocabulary, frozenset())
        structures = candidate.structures
        groups = _CUT_GROUPS if candidate.case.template_id is None else ()  # a template's own ends lie anywhere
        asked = [
            s
            for name, s in structures.items()
            if name in solid and s.voxels >= _SMALLEST and (s.whole or candidate.label_map.vocabulary.label(s.id).group in groups)
        ]
        scores: dict[str, float] = {}
        lesions = [s.id for s in structures.values() if candidate.label_map.vocabulary.label(s.id).group == "lesion"]
        for structure in asked:
            box = candidate.census.entries[structure.id].box
            crop = voxels[box[0] : box[3], box[1] : box[4], box[2] : box[5]]
            scores[structure.name] = _largest_share(crop, structure.id, lesions, _faces_of(box, voxels.shape))
        if ("body" in structures or vocabulary == "brain") and is_surrounded(candidate):
            scores["hole_share"] = _hole_share(voxels, candidate.census.total_voxels)
        return scores

    def decide(self, case: Case, scores: Mapping[str, float], limits: Mapping[str, float]) -> list[str]:
        del case
        reasons = []
        for name, share in scores.items():
            if name == "hole_share":
                if share > limits["hole_share"]:
                    reasons.append(f"background inside the body: {share:.2%}; allowed: {limits['hole_share']:.2%}")
            elif share < limits["largest_share"]:
                allowed = f"{limits['largest_share']:.0%} or more"
                reasons.append(f"{name} is in pieces: the largest holds {share:.0%}; allowed: {allowed}")
        return reasons


def _largest_share(labels: np.ndarray, own: int, lesions: list[int], faces: list[tuple[Any, ...]]) -> float:
    """Share of the largest piece of label ``own`` in a crop; pieces on ``faces`` count as one, lesions connect."""
    structure = labels == own
    pieces = cc3d.connected_components(structure | np.isin(labels, lesions) if lesions else structure, connectivity=26)
    sizes = np.bincount(pieces[structure])[1:]
    open_pieces = np.unique(np.concatenate([np.unique(pieces[face]) for face in faces])) if faces else np.empty(0, np.intp)
    open_pieces = open_pieces[open_pieces <= len(sizes)]  # the others are lesions alone
    joined = sizes[open_pieces[open_pieces > 0] - 1].sum()
    return float(max(sizes.max(), joined) / sizes.sum())


def _faces_of(box: tuple[int, ...], size: tuple[int, ...]) -> list[tuple[Any, ...]]:
    """Indices of the slices of a crop to ``box`` that are faces of the volume."""
    everything = slice(None)
    faces: list[tuple[Any, ...]] = []
    for axis in range(3):
        for at_face, place in ((box[axis] == 0, 0), (box[axis + 3] == size[axis], -1)):
            if at_face:
                faces.append(tuple(place if a == axis else everything for a in range(3)))
    return faces


def _hole_share(voxels: np.ndarray, total: int) -> float:
    """Background that does not hang together with the volume's faces, relative to labelled voxels."""
    background = voxels == 0
    outside = int(np.count_nonzero(background))
    if outside in (0, total):
        return 0.0
    pieces = cc3d.connected_components(background, connectivity=6)
    faces = [pieces[(0, -1), :, :], pieces[:, (0, -1), :], pieces[:, :, (0, -1)]]
    open_pieces = np.unique(np.concatenate([np.unique(face) for face in faces]))
    counts = cc3d.statistics(pieces)["voxel_counts"]
    reached = int(counts[open_pieces[open_pieces > 0]].sum())
    return (outside - reached) / (total - outside)
