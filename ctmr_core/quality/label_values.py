"""Voxels of single labels, from crops to their bounding boxes: no pass over the volume per label."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ctmr_core.quality.base import Candidate

Box = tuple[slice, slice, slice]


def box_of(candidate: Candidate, labels: Iterable[int], margin: int = 0) -> Box | None:
    """The box around all of ``labels`` and ``margin`` voxels more, inside the volume; None if none of them is there."""
    boxes = np.array([entry.box for label in labels if (entry := candidate.census.entries.get(label))])
    if not len(boxes):
        return None
    start = np.maximum(boxes[:, :3].min(axis=0) - margin, 0)
    stop = np.minimum(boxes[:, 3:].max(axis=0) + margin, candidate.label_map.size)
    x, y, z = (slice(int(a), int(b)) for a, b in zip(start, stop, strict=True))
    return x, y, z


def values_of(candidate: Candidate, image: np.ndarray, labels: Iterable[int]) -> np.ndarray:
    """Image values (1-D, dtype of the image) of all voxels of ``labels``."""
    parts = []
    for label in labels:
        box = box_of(candidate, (label,))
        if box is not None:
            parts.append(image[box][candidate.label_map.voxels[box] == label])
    return np.concatenate(parts) if parts else np.empty(0, image.dtype)
