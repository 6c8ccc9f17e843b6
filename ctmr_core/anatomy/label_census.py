"""Counting what is in a label map: voxels, volume, bounding box and a few coordinates of every label."""

from __future__ import annotations

from dataclasses import dataclass

import cc3d
import numpy as np

from ctmr_core.anatomy.label_map import LabelMap

SAMPLED_COORDINATES = 8


@dataclass(frozen=True)
class LabelEntry:
    """One label of a label map.

    box: (x0, y0, z0, x1, y1, z1) voxel indices, upper bounds exclusive. centroid: mean voxel index [x, y, z].
    samples: up to 8 voxel indices [x, y, z] evenly spread through the label in C order, for balanced cropping.
    """

    id: int
    voxels: int
    volume_ml: float
    box: tuple[int, int, int, int, int, int]
    centroid: tuple[float, float, float]
    samples: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class LabelCensus:
    """Every non-background label of a label map, by id."""

    entries: dict[int, LabelEntry]
    total_voxels: int

    def voxels(self, label: int) -> int:
        entry = self.entries.get(label)
        return entry.voxels if entry else 0

    @property
    def labels(self) -> tuple[int, ...]:
        return tuple(self.entries)


def take_census(label_map: LabelMap) -> LabelCensus:
    """One pass of counting over ``label_map`` (cc3d.statistics) and one small crop per label for the samples."""
    voxels = label_map.voxels
    statistics = cc3d.statistics(voxels)
    ml_per_voxel = float(np.prod(label_map.spacing)) / 1000.0
    entries: dict[int, LabelEntry] = {}
    for label in np.flatnonzero(statistics["voxel_counts"]):
        if label == 0:
            continue
        count = int(statistics["voxel_counts"][label])
        box = statistics["bounding_boxes"][label]
        x, y, z = (float(c) for c in statistics["centroids"][label])
        entries[int(label)] = LabelEntry(
            id=int(label),
            voxels=count,
            volume_ml=round(count * ml_per_voxel, 4),
            box=(box[0].start, box[1].start, box[2].start, box[0].stop, box[1].stop, box[2].stop),
            centroid=(x, y, z),
            samples=_sample(voxels[box] == label, tuple(side.start for side in box), count),
        )
    return LabelCensus(entries, int(voxels.size))


def _sample(mask: np.ndarray, origin: tuple[int, ...], count: int) -> tuple[tuple[int, int, int], ...]:
    flat = np.flatnonzero(mask)
    chosen = flat[np.linspace(0, count - 1, min(SAMPLED_COORDINATES, count)).round().astype(np.int64)]
    places = np.stack(np.unravel_index(chosen, mask.shape), axis=1) + np.asarray(origin)
    return tuple((int(x), int(y), int(z)) for x, y, z in places)
