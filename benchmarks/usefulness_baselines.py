"""Segmentations that learn nothing, for ``usefulness.py``: thresholds, and the label maps of the training set laid over the scan.

``atlas``: every label map is laid over the scan, and the most frequent class of a voxel wins. Brains get the centre and the
volume of the scan's and are nodded to where the images correlate best; trunks get its breadth and depth and are shifted along z
to where the bones are alike, or in MR the images. ``threshold`` (not in MR): brains are divided into three intensities
by k-means (dark, middle: cortex, bright: white matter); in the trunk air inside the body is lung, and everything above 200 HU
is the bone that is nearest in the atlas. ``ceiling``: the scan's own labels at the spacing of the training and back, about what a
network trained there can reach.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from ctmr_core.learning.datasets import VolumeDataset
from ctmr_core.learning.segmentation.config import SegmentationConfig
from ctmr_core.learning.segmentation.resampling import resampled_labels
from ctmr_core.learning.segmentation.scan_patches import at_spacing
from ctmr_core.learning.segmentation.scans import LabelledVolume
from ctmr_core.learning.segmentation.scores import score_case
from ctmr_core.learning.segmentation.validation import validation_sets

_ATLASES = 16
_COARSE = 4  # every so manieth voxel is compared
_BONE_HU, _BODY_HU = 200.0, -300.0
_MR_BODY = 0.15  # of the 99th percentile: more than noise, less than the fat under the skin
_BONES = ("vertebrae", "sacrum", "ribs", "hips", "femurs")


def baselines(proof: str, config: SegmentationConfig, maps: Path) -> dict[str, Any]:
    """Baseline -> {"mean", "classes": class -> {"dice", "hd95"}} on the real scan, on its own grid."""
    volume = validation_sets(config)[0].volume(0)
    names = config.class_table.names
    found = {"atlas": atlas(proof, volume, config, maps)}
    if proof != "torso-mr":
        found["threshold"] = thresholds(proof, volume, names, found["atlas"])
    if config.spacing != volume.spacing:
        coarse = at_spacing(volume, config.spacing or volume.spacing).labels
        found["ceiling"] = resampled_labels(coarse, volume.labels.shape)
    return {name: scored(volume, labels, names) for name, labels in found.items()}


def scored(volume: LabelledVolume, labels: np.ndarray, names: tuple[str, ...]) -> dict[str, Any]:
    wanted = {number: names[number] for number in volume.scored if (volume.labels == number).any()}
    rows = score_case(volume.labels, labels, volume.spacing, wanted)
    classes = {row.label: {"dice": row.dice, "hd95": row.hd95} for row in rows}
    return {"mean": float(np.mean([row.dice for row in rows])), "classes": classes}


def atlas(proof: str, volume: LabelledVolume, config: SegmentationConfig, maps: Path) -> np.ndarray:
    """uint8 [x, y, z] on the scan's grid."""
    image, spacing = volume.images[0][1], np.asarray(volume.spacing)
    volumes = VolumeDataset(maps, config.sequences, labels=config.class_table, splits=None)
    votes = np.zeros((len(config.class_table) + 1, *image.shape), np.uint8)
    place = {"brain": place_of_brain, "torso": place_of_trunk, "torso-mr": place_of_slab}[proof]
    for number in range(min(_ATLASES, len(volumes))):
        item = volumes[number]
        theirs, labels = item["image"].numpy()[0], item["label"].numpy()[0]
        matrix, offset = place(theirs, np.linalg.norm(np.asarray(item["image"].affine)[:3, :3], axis=0), image, spacing)
        moved = ndimage.affine_transform(labels, matrix, offset, image.shape, order=0, output=np.uint8)
        for one in np.unique(moved):
            votes[one] += moved == one
    return votes.argmax(0).astype(np.uint8)


def place_of_brain(
    theirs: np.ndarray, their_spacing: np.ndarray, image: np.ndarray, spacing: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Matrix and offset, voxel of ``image`` -> voxel of ``theirs``: centre on centre, equal volumes, the best of many nods."""
    masks = theirs > 0, image > 0
    centres = [np.argwhere(mask).mean(0) for mask in masks]
    size = np.cbrt(masks[0].sum() * np.prod(their_spacing) / (masks[1].sum() * np.prod(spacing)))
    coarse = image[::_COARSE, ::_COARSE, ::_COARSE]
    best, found = -np.inf, (np.eye(3), np.zeros(3))
    for degrees in range(-40, 41, 4):
        nod = np.diag(1 / their_spacing) @ turned(degrees) @ np.diag(spacing * size)
        offset = centres[0] - nod @ centres[1]
        seen = ndimage.affine_transform(theirs, nod * _COARSE, offset, coarse.shape, order=1)
        alike = float(np.corrcoef(seen.ravel(), coarse.ravel())[0, 1])
        if alike > best:
            best, found = alike, (nod, offset)
    return found


def turned(degrees: float) -> np.ndarray:
    """Rotation about the axis from left to right."""
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.array([[1.0, 0.0, 0.0], [0.0, c, -s], [0.0, s, c]])


def place_of_trunk(
    theirs: np.ndarray, their_spacing: np.ndarray, image: np.ndarray, spacing: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Matrix and offset, voxel of ``image`` -> voxel of ``theirs``: box on box across, bones on bones along z."""
    boxes = [extent(body_of(one)) for one in (theirs, image)]
    scale = [(a[1] - a[0]) / (b[1] - b[0]) for a, b in zip(*boxes, strict=True)]
    offset = [a[0] - b[0] * factor for a, b, factor in zip(*boxes, scale, strict=True)]
    scale[2], offset[2] = float(spacing[2] / their_spacing[2]), 0.0
    seen = ndimage.affine_transform(theirs, scale, offset, (*image.shape[:2], theirs.shape[2]), order=0)
    offset[2] = best_shift(bones_from_the_front(seen), bones_from_the_front(image), scale[2])
    return np.diag(scale), np.asarray(offset)


def place_of_slab(
    theirs: np.ndarray, their_spacing: np.ndarray, image: np.ndarray, spacing: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Matrix and offset, voxel of ``image`` -> voxel of ``theirs``: box on box across, the best correlation along z."""
    boxes = [extent(one > _MR_BODY * np.percentile(one, 99)) for one in (theirs, image)]
    scale = [(a[1] - a[0]) / (b[1] - b[0]) for a, b in zip(*boxes, strict=True)]
    offset = [a[0] - b[0] * factor for a, b, factor in zip(*boxes, scale, strict=True)]
    scale[2] = float(spacing[2] / their_spacing[2])
    best = -np.inf
    for shift in range(theirs.shape[2] - int(image.shape[2] * scale[2]) + 1):
        seen = ndimage.affine_transform(theirs, scale, [*offset[:2], shift], image.shape, order=0)
        alike = float(np.corrcoef(seen.ravel(), image.ravel())[0, 1])
        if alike > best:
            best, offset[2] = alike, float(shift)
    return np.diag(scale), np.asarray(offset)


def extent(mask: np.ndarray) -> list[tuple[float, float]]:
    """Voxel indices per axis between which 98 % of a mask lie: what sticks out of a body does not count."""
    ends = np.percentile(np.argwhere(mask), [1, 99], axis=0)
    return [(float(low), float(high)) for low, high in ends.T]


def body_of(image: np.ndarray) -> np.ndarray:
    """Bool: the largest piece above the HU of fat."""
    pieces, _ = ndimage.label(ndimage.binary_opening(image > _BODY_HU, iterations=2))
    return pieces == np.bincount(pieces.ravel())[1:].argmax() + 1


def bones_from_the_front(image: np.ndarray) -> np.ndarray:
    """[x, z] how much bone lies behind each other, smoothed."""
    return ndimage.gaussian_filter((image > _BONE_HU).sum(1).astype(float), 1.5)


def best_shift(theirs: np.ndarray, ours: np.ndarray, scale: float) -> float:
    """Their slice that slice 0 of ours lies on, where the bones seen from the front correlate best. [x, z] each, the same x."""
    places = np.arange(ours.shape[1]) * scale
    best, found = -np.inf, 0.0
    for shift in range(-theirs.shape[1] // 2, theirs.shape[1] // 2):
        there = np.rint(places + shift).astype(int)
        inside = (there >= 0) & (there < theirs.shape[1])
        if inside.sum() > 0.7 * len(places):
            alike = float(np.corrcoef(theirs[:, there[inside]].ravel(), ours[:, inside].ravel())[0, 1])
            if alike > best:
                best, found = alike, float(shift)
    return found


def thresholds(proof: str, volume: LabelledVolume, names: tuple[str, ...], by_atlas: np.ndarray) -> np.ndarray:
    """uint8 [x, y, z] on the scan's grid."""
    image = volume.images[0][1]
    found = np.zeros(image.shape, np.uint8)
    if proof == "brain":
        level = np.abs(image[..., None] - three_levels(image[image > 0])).argmin(-1)
        found[(level == 1) & (image > 0)] = names.index("cortex")
        found[(level == 2) & (image > 0)] = names.index("white matter")
        return found
    body = body_of(image)
    body = np.stack([ndimage.binary_fill_holes(body[..., z]) for z in range(body.shape[2])], -1)
    found[ndimage.binary_opening(body & (image < -500), iterations=2)] = names.index("lungs")
    bones = [names.index(name) for name in _BONES]
    distances = np.stack([ndimage.distance_transform_edt(by_atlas != number) for number in bones])
    hard = image > _BONE_HU
    found[hard & body] = np.asarray(bones, np.uint8)[distances.argmin(0)][hard & body]
    return found


def three_levels(values: np.ndarray) -> np.ndarray:
    """float64 [3], ascending: k-means of intensities."""
    levels = np.percentile(values, [10, 45, 85])
    for _ in range(30):
        nearest = np.abs(values[:, None] - levels).argmin(1)
        levels = np.array([values[nearest == one].mean() for one in range(3)])
    return levels
