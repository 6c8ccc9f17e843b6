"""Does a segmentation network find in the image what the label map says: Dice per structure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import TypeAdapter, ValidationError

from ctmr_core.cases.case import Case
from ctmr_core.errors import CheckError
from ctmr_core.quality.base import Candidate, ScoredCheck
from ctmr_core.quality.segmenters import Segmenter, segment
from ctmr_core.quality.structures import shows_anatomy

__all__ = ["AgreementCheck", "Segmenter", "read_segmenters", "written_segmenters"]
_SEGMENTERS = TypeAdapter(tuple[Segmenter, ...])


class AgreementCheck(ScoredCheck):
    """Runs the segmenters of a policy; part of a policy that names some, of no other.

    Scores are named ``<segmenter>/<sequence>/<label>``: Dice of the network's segmentation with the label map. Structures below
    the segmenter's ``smallest_ml`` are passed over. The version covers whatever the scores depend on (network, mapping, spacing),
    so that changed limits of Dice are applied without running a network again.
    """

    name = "agreement"

    def __init__(self, segmenters: Sequence[Segmenter]) -> None:
        self.segmenters = {segmenter.name: segmenter for segmenter in segmenters}
        identity = json.dumps([segmenter.identity for segmenter in segmenters], sort_keys=True)
        #: SHA-256 hex over networks and limits. A case made under these segmenters has it as its setting of this check.
        self.digest = hashlib.sha256(identity.encode()).hexdigest()
        measured = json.dumps([segmenter.measured for segmenter in segmenters], sort_keys=True)
        self.version = f"1.{hashlib.sha256(measured.encode()).hexdigest()[:12]}"  # type: ignore[misc]

    def open(self) -> None:
        """Load every network now; ``CheckError`` for one that can't be, or that is another one than the policy names."""
        for segmenter in self.segmenters.values():
            segmenter.open()

    def applies(self, case: Case) -> bool:
        asked = {sequence for segmenter in self.segmenters.values() for sequence in segmenter.sequences}
        return shows_anatomy(case) and not asked.isdisjoint(case.sequences)

    def measure(self, candidate: Candidate) -> dict[str, float]:
        scores = {}
        for segmenter in self.segmenters.values():
            for sequence in segmenter.sequences:
                if sequence in candidate.images:
                    for label, dice in _dice(candidate, segmenter, sequence).items():
                        scores[f"{segmenter.name}/{sequence}/{label}"] = dice
        return scores

    def decide(self, case: Case, scores: Mapping[str, float], limits: Mapping[str, float]) -> list[str]:
        del case, limits
        reasons = []
        for score, dice in scores.items():
            name, sequence, label = score.split("/", 2)
            least = self.segmenters[name].least_dice(label)
            if not dice >= least:
                reasons.append(f"{name} finds {label} in {sequence} with a Dice of {dice:.2f}; allowed: {least:g} or more")
        return reasons


def written_segmenters(segmenters: Sequence[Segmenter]) -> str:
    """The segmenters as JSON, each pinned to the file it is now; see :func:`read_segmenters`."""
    return json.dumps([segmenter.pinned().model_dump(mode="json") for segmenter in segmenters], sort_keys=True)


def read_segmenters(text: str) -> AgreementCheck:
    """The check that runs the segmenters of :func:`written_segmenters`. ``CheckError`` when the text is none of its."""
    try:
        return AgreementCheck(_SEGMENTERS.validate_json(text))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise CheckError("these are no segmenters", where=f"field {place}", found=first["msg"]) from error


def _dice(candidate: Candidate, segmenter: Segmenter, sequence: str) -> dict[str, float]:
    label_map = candidate.label_map
    voxel_ml = float(np.prod(label_map.spacing)) / 1000.0
    targets = {
        label: ids
        for label, ids in segmenter.targets(label_map.vocabulary).items()
        if voxel_ml * sum(candidate.census.voxels(identifier) for identifier in ids[1]) >= max(segmenter.smallest_ml, voxel_ml)
    }
    if not targets:
        return {}
    classes = segment(segmenter, candidate.images[sequence], label_map.spacing)
    # (class, label) pairs counted in one pass; every Dice follows from the table
    height, width = int(classes.max()) + 1, int(label_map.voxels.max()) + 1
    pairs = np.zeros((height, width), np.int64)
    for found, drawn in zip(classes, label_map.voxels, strict=True):
        index = found.astype(np.intp) * width + drawn
        pairs += np.bincount(index.ravel(), minlength=height * width).reshape(height, width)
    scores = {}
    for label, (numbers, ids) in targets.items():
        rows = [number for number in numbers if number < height]
        columns = [identifier for identifier in ids if identifier < width]
        total = pairs[rows].sum() + pairs[:, columns].sum()
        scores[label] = float(2 * pairs[np.ix_(rows, columns)].sum() / total)
    return scores
