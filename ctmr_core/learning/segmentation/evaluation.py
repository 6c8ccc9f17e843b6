"""Scoring a trained network on whole volumes, after the training."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ctmr_core.learning.segmentation.predict import TrainedSegmenter
from ctmr_core.learning.segmentation.scores import ClassScore, score_case
from ctmr_core.learning.segmentation.validation import ScanVolumes, StoredVolumes


def score_volumes(
    segmenter: TrainedSegmenter, sets: Iterable[StoredVolumes | ScanVolumes], on_volume: Callable[[str, str], None] | None = None
) -> list[ClassScore]:
    """Scores of every class in every volume of the sets, as a validation of the training has them.

    sets: of ``validation_sets``, with the segmenter's classes. on_volume: told the set and the name of a volume before it is
    segmented.
    """
    rows: list[ClassScore] = []
    for one in sets:
        for number in range(len(one)):
            volume = one.volume(number)
            if on_volume:
                on_volume(one.name, volume.name)
            found = segmenter.segment(
                [voxels for _, voxels in volume.images], volume.spacing, [name for name, _ in volume.images]
            )
            rows += score_case(
                volume.labels,
                found,
                volume.spacing,
                {number: segmenter.classes[number] for number in sorted(volume.scored)},
                dataset=one.name,
                case=volume.name,
                with_distances=segmenter.config.inference.hd95,
            )
    return rows
