"""Real scans that a finished network of ``usefulness.py`` is scored on besides the one of its proof."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from ctmr_core.learning.segmentation.pictures import overlay
from ctmr_core.learning.segmentation.predict import TrainedSegmenter
from ctmr_core.learning.segmentation.scores import ClassScore, score_case
from ctmr_core.learning.segmentation.validation import ScanVolumes, StoredVolumes


def scored_further(
    segmenter: TrainedSegmenter, sets: Sequence[StoredVolumes | ScanVolumes], pictures: Path
) -> dict[str, dict[str, dict[str, float]]]:
    """Set -> class -> {"dice", "hd95", "ml", "recall"}; a picture of each set's first scan below ``pictures``.

    recall: share of the label map's class that was found; of a mask that holds a part of a class it alone means something.
    """
    pictures.mkdir(parents=True, exist_ok=True)
    found: dict[str, dict[str, dict[str, float]]] = {}
    for one in sets:
        volume = one.volume(0)
        (name, voxels), *_ = volume.images
        labels = segmenter.segment([voxels], volume.spacing, [name])
        wanted = {number: segmenter.classes[number] for number in sorted(volume.scored)}
        rows = score_case(volume.labels, labels, volume.spacing, wanted)
        found[one.name] = {row.label: _figures(row) for row in rows if row.truth_ml > 0}
        pixels = overlay(name, voxels, volume.labels, labels, volume.spacing, segmenter.config.intensity)
        Image.fromarray(pixels).save(pictures / f"{one.name}.png")
    return found


def _figures(row: ClassScore) -> dict[str, float]:
    both = row.dice * (row.truth_ml + row.found_ml) / 2
    return {"dice": row.dice, "hd95": row.hd95, "ml": row.truth_ml, "recall": both / row.truth_ml}
