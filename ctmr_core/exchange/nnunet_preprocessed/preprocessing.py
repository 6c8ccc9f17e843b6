"""What nnU-Net v2's ``DefaultPreprocessor`` does to a case: empty border cut off, normalised, resampled.

Arrays are [channel, z, y, x] and [z, y, x], axes already in the order of the plans.
"""

from __future__ import annotations

from collections.abc import Sequence

import cc3d
import numpy as np
from scipy import ndimage

from ctmr_core.exchange.nnunet_preprocessed.plans import ANISOTROPIC, Configuration, Intensities

OUTSIDE = -1  # label of unlabelled voxels in the empty border that the patient's outline leaves
_SMALLEST_STD = 1e-8
_TIE = 1e-6  # interpolated indicators this close are equal


def nonzero_region(images: np.ndarray) -> np.ndarray:
    """bool [z, y, x]: voxels that are not zero in some channel, holes filled (as seen through the six faces of a voxel)."""
    empty = np.ascontiguousarray(~images.any(axis=0))
    if not any(empty.take(face, axis=axis).any() for axis in range(3) for face in (0, -1)):
        return np.ones(empty.shape, bool)  # CT, or noise in the air: quickly seen
    parts, count = cc3d.connected_components(empty, connectivity=6, return_N=True)
    reaches_border = np.zeros(count + 1, bool)
    for axis in range(3):
        for face in (0, -1):
            reaches_border[np.unique(parts.take(face, axis=axis))] = True
    reaches_border[0] = False  # the image itself
    region: np.ndarray = ~reaches_border[parts]
    return region


def bounding_box(region: np.ndarray) -> tuple[slice, slice, slice]:
    """The smallest box around the region; everything where it is empty."""
    found = ndimage.find_objects(region.view(np.uint8))
    if not found:
        z, y, x = (slice(0, size) for size in region.shape)
        return z, y, x
    z, y, x = found[0]
    return z, y, x


def normalised(image: np.ndarray, scheme: str, inside: np.ndarray | None, known: Intensities) -> np.ndarray:
    """float32, one channel. inside: where a z-score is taken and applied; None: everywhere. known: of the labelled voxels."""
    image = image.astype(np.float32)
    if scheme == "CTNormalization":
        np.clip(image, known.percentile_00_5, known.percentile_99_5, out=image)
        image -= np.float32(known.mean)
        image /= np.float32(max(known.std, _SMALLEST_STD))
    elif scheme == "ZScoreNormalization":
        values = image if inside is None else image[inside]
        scored = (values - values.mean()) / max(float(values.std()), _SMALLEST_STD)
        if inside is None:
            return scored
        image[inside] = scored
    elif scheme == "RescaleTo01Normalization":
        image -= image.min()
        image /= max(float(image.max()), _SMALLEST_STD)
    return image


def new_shape(shape: Sequence[int], spacing: Sequence[float], target: Sequence[float]) -> tuple[int, int, int]:
    """Voxels at the spacing ``target`` (mm)."""
    z, y, x = (round(mm / wanted * size) for size, mm, wanted in zip(shape, spacing, target, strict=True))
    return z, y, x


def thick_axis(spacing: Sequence[float], target: Sequence[float]) -> int | None:
    """The axis along which slices are so thick, before or after, that they are resampled one by one; None: all axes alike."""
    for one in (spacing, target):
        if max(one) / min(one) > ANISOTROPIC:
            thick = [axis for axis, mm in enumerate(one) if mm == max(one)]
            return thick[0] if len(thick) == 1 else None
    return None


def resample_image(image: np.ndarray, shape: tuple[int, int, int], order: int, thick: int | None) -> np.ndarray:
    """One channel, float32: splines of ``order`` within the range of the values; along ``thick``, the nearest slice."""
    if image.shape == shape:
        return image
    if thick is None:
        return _zoomed(image, shape, order)
    slices = np.moveaxis(image, thick, 0)
    within = tuple(size for axis, size in enumerate(shape) if axis != thick)
    nearest = _nearest(slices.shape[0], shape[thick])
    used = {int(place): _zoomed(slices[place], within, order) for place in np.unique(nearest)}
    return np.ascontiguousarray(np.moveaxis(np.stack([used[int(place)] for place in nearest]), 0, thick))


def _zoomed(image: np.ndarray, shape: tuple[int, ...], order: int) -> np.ndarray:
    if image.shape == shape:
        return image
    factors = [new / old for new, old in zip(shape, image.shape, strict=True)]
    zoomed: np.ndarray = ndimage.zoom(image, factors, order=order, mode="nearest", grid_mode=True)
    return np.clip(zoomed, image.min(), image.max(), out=zoomed)


def _positions(size: int, wanted: int) -> np.ndarray:
    """Where the centres of ``wanted`` voxels lie in an axis of ``size`` voxels of the same length."""
    return np.clip((np.arange(wanted) + 0.5) * size / wanted - 0.5, 0, size - 1)


def _nearest(size: int, wanted: int) -> np.ndarray:
    return np.floor(_positions(size, wanted) + 0.5).astype(np.intp)


def resample_labels(labels: np.ndarray, shape: tuple[int, int, int], order: int, thick: int | None) -> np.ndarray:
    """Every voxel gets the label whose indicator, linearly interpolated, is greatest; of equal ones the nearest voxel's.

    order 0: the nearest voxel's label. Along ``thick``, the nearest slice. Each label is looked at in its own box only.
    """
    if labels.shape == shape:
        return labels
    axes = [
        _weights(size, wanted, order == 0 or axis == thick)
        for axis, (size, wanted) in enumerate(zip(labels.shape, shape, strict=True))
    ]
    nearest = labels[np.ix_(*(_nearest(size, wanted) for size, wanted in zip(labels.shape, shape, strict=True)))]
    if order == 0:
        return nearest
    lowest = int(labels.min())
    best = np.zeros(shape, np.float32)
    winner = nearest.copy()
    for place, box in enumerate(ndimage.find_objects(labels.astype(np.int32) - lowest + 1)):
        if box is None:
            continue
        label = place + lowest
        reach = [_reached(side, lower, upper) for side, (lower, upper, _) in zip(box, axes, strict=True)]
        score = _interpolated(labels == label, axes, reach)
        window = tuple(reach)
        rival = best[window]
        better = (score > rival + _TIE) | ((score > rival - _TIE) & (nearest[window] == label))
        rival[better] = score[better]
        winner[window][better] = label
    return winner


Weights = tuple[np.ndarray, np.ndarray, np.ndarray]


def _weights(size: int, wanted: int, whole: bool) -> Weights:
    """(lower voxel, upper voxel, weight of the upper one) of every new voxel; ``whole``: all weight on the nearest."""
    if whole:
        nearest = _nearest(size, wanted)
        return nearest, nearest, np.zeros(wanted, np.float32)
    positions = _positions(size, wanted)
    lower = np.floor(positions).astype(np.intp)
    return lower, np.minimum(lower + 1, size - 1), (positions - lower).astype(np.float32)


def _reached(side: slice, lower: np.ndarray, upper: np.ndarray) -> slice:
    """The new voxels that a side of a label's box has a part in."""
    touched = np.flatnonzero((upper >= side.start) & (lower < side.stop))
    return slice(int(touched[0]), int(touched[-1]) + 1) if touched.size else slice(0, 0)


def _interpolated(mask: np.ndarray, axes: Sequence[Weights], reach: Sequence[slice]) -> np.ndarray:
    """The indicator of a label in the new voxels of ``reach``, float32."""
    found: np.ndarray = mask
    for axis, ((lower, upper, weight), part) in enumerate(zip(axes, reach, strict=True)):
        shape = [1, 1, 1]
        shape[axis] = -1
        share = weight[part].reshape(shape)
        found = found.take(lower[part], axis=axis) * (1 - share) + found.take(upper[part], axis=axis) * share
    return found


def preprocessed(
    images: np.ndarray, labels: np.ndarray, spacing: Sequence[float], configuration: Configuration, known: Sequence[Intensities]
) -> tuple[np.ndarray, np.ndarray, tuple[slice, slice, slice]]:
    """(float32 [c, z, y, x], int16 [z, y, x], the box that was cut out) for images and labels with voxels of ``spacing`` mm."""
    region = nonzero_region(images)
    box = bounding_box(region)
    region, labels = region[box], labels[box].astype(np.int16)
    labels[(labels == 0) & ~region] = OUTSIDE
    shape = new_shape(labels.shape, spacing, configuration.spacing)
    thick = thick_axis(spacing, configuration.spacing)
    inside = labels >= 0
    stored = np.empty((len(images), *shape), np.float32)
    for channel, image in enumerate(images):
        masked = inside if configuration.use_mask_for_norm[channel] else None
        scored = normalised(image[box], configuration.normalization_schemes[channel], masked, known[channel])
        stored[channel] = resample_image(scored, shape, configuration.resampling_fn_data_kwargs.order, thick)
    return stored, resample_labels(labels, shape, configuration.resampling_fn_seg_kwargs.order, thick), box
