"""Dilation, closing and connected components of label maps, on the boxes of the structures they concern.

All neighbourhoods are 26-connected (a cube of 3 x 3 x 3 voxels). Masks are bool [x, y, z].
"""

from __future__ import annotations

from collections.abc import Iterable

import cc3d
import numpy as np
from scipy import ndimage

Box = tuple[slice, slice, slice]


def grow(mask: np.ndarray, times: int = 1) -> np.ndarray:
    """The mask dilated by ``times`` voxels in every direction; nothing comes in from outside of the volume."""
    grown = mask.copy()
    for axis in range(mask.ndim):
        for _ in range(times):
            before = np.moveaxis(grown.copy(), axis, 0)
            after = np.moveaxis(grown, axis, 0)
            after[1:] |= before[:-1]
            after[:-1] |= before[1:]
    return grown


def shrink(mask: np.ndarray, times: int = 1, *, outside: bool) -> np.ndarray:
    """The mask eroded by ``times`` voxels; ``outside``: whether voxels beyond the volume count as filled."""
    shrunk = ~grow(~mask, times)
    if not outside:
        for axis in range(mask.ndim):
            faces = np.moveaxis(shrunk, axis, 0)
            faces[:times] = False
            faces[max(0, len(faces) - times) :] = False
    return shrunk


def closed(mask: np.ndarray, times: int = 1, *, outside: bool) -> np.ndarray:
    """Dilated, then eroded: gaps narrower than ``2 * times + 1`` voxels are filled."""
    return shrink(grow(mask, times), times, outside=outside)


def boxes_of(labels: np.ndarray) -> dict[int, Box]:
    """Label -> the smallest box that holds it, for every label > 0 in the map."""
    return {label: box for label, box in enumerate(ndimage.find_objects(labels), start=1) if box is not None}


def widened(box: Box, by: int, size: tuple[int, ...]) -> Box:
    """The box with ``by`` more voxels on every side, cut to the volume."""
    x, y, z = (slice(max(0, side.start - by), min(n, side.stop + by)) for side, n in zip(box, size, strict=True))
    return (x, y, z)


def closed_label(labels: np.ndarray, label: int, box: Box, *, outside: bool) -> tuple[Box, np.ndarray]:
    """One structure with gaps of up to 2 voxels filled: the box to write into, and its mask there.

    box: holds the structure. outside: whether voxels beyond the volume count as filled (see ``shrink``).
    """
    view = widened(box, 2, labels.shape)
    filled = shrink(grow(labels[view] == label), outside=True)
    if not outside:
        for axis, (side, n) in enumerate(zip(view, labels.shape, strict=True)):
            faces = np.moveaxis(filled, axis, 0)
            if side.start == 0:
                faces[0] = False
            if side.stop == n:
                faces[-1] = False
    inner = tuple(slice(own.start - wide.start, own.stop - wide.start) for own, wide in zip(box, view, strict=True))
    return box, filled[inner]


def strays(labels: np.ndarray, wanted: Iterable[int], *, unstable_ties: bool = False) -> np.ndarray:
    """Bool mask of everything but the largest connected piece of each ``wanted`` structure (uint8 label map).

    Of equally large pieces the first in C order is kept; with ``unstable_ties`` the one that ``numpy.argsort`` puts last.
    """
    table = np.zeros(256, np.uint8)
    kept = sorted(set(wanted))
    table[kept] = kept
    chosen = table[labels]
    pieces, count = cc3d.connected_components(chosen, connectivity=26, return_N=True)
    if not count:
        return np.zeros(labels.shape, bool)
    sizes = cc3d.statistics(pieces, no_slice_conversion=True)["voxel_counts"].astype(np.int64)
    owner = np.zeros(count + 1, np.uint8)
    owner[pieces.ravel()] = chosen.ravel()
    stray = np.ones(count + 1, bool)
    stray[0] = False
    for label in kept:
        own = np.flatnonzero(owner == label)
        own = own[own > 0]
        if own.size == 0:
            continue
        if unstable_ties:
            everything = np.concatenate([[labels.size - sizes[own].sum()], sizes[own]])
            stray[own[[index - 1 for index in np.argsort(everything)[-2:] if index]]] = False
        else:
            stray[own[np.argmax(sizes[own])]] = False
    return stray[pieces]
