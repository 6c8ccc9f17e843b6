"""Pieces of a class that are too small to be true: a few voxels far away, called liver."""

from __future__ import annotations

import cc3d
import numpy as np


def without_small_pieces(labels: np.ndarray, smallest: float) -> np.ndarray:
    """``labels`` (uint8 [x, y, z]), in place, with pieces below the share ``smallest`` of the largest of their class made 0.

    A piece is a set of voxels of one class that hang together by faces. Both kidneys stay, as do ribs, with a share well below 1.
    """
    pieces, count = cc3d.connected_components(labels, connectivity=6, return_N=True)
    if count == 0:
        return labels
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)
    class_of = np.zeros(count + 1, labels.dtype)
    class_of[pieces] = labels
    largest = np.zeros(256, np.int64)
    np.maximum.at(largest, class_of[1:], sizes[1:])
    gone = sizes < smallest * largest[class_of]
    gone[0] = False
    labels[gone[pieces]] = 0
    return labels
