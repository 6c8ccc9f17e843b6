"""What is varied in training patches. All draws are those of the item: see ``EpochDataset``.

Presets, for intensities that lie around 0..1: ``light`` varies noise, blur, gamma, brightness and contrast, and turns and scales
a patch a little; ``strong`` does more of each, and lowers the resolution and adds a bias field to MR.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from monai import transforms
from monai.transforms import Compose, RandomizableTransform

from ctmr_core.anatomy.sequences import is_ct
from ctmr_core.anatomy.vocabulary import DTYPES, load_vocabulary
from ctmr_core.errors import LearningError
from ctmr_core.learning.datasets.classes import Classes, ids_of
from ctmr_core.learning.segmentation.config import AugmentationSettings, TransformSettings
from ctmr_core.learning.segmentation.monai_names import no_such

Item = dict[str, Any]
_OTHER = {"left": "right", "right": "left"}


def make_augmentation(settings: AugmentationSettings, classes: Classes, sequences: Sequence[str]) -> Compose:
    """The transforms of one source, for items {"image": float32 [channels, x, y, z] scaled, "label": [1, x, y, z]}.

    ``LearningError`` for a flip along x of classes that have a side and no counterpart, and for transforms MONAI does not have.
    """
    mr = [channel for channel, name in enumerate(sequences) if not is_ct(name)]
    parts: list[Any] = []
    if settings.flip:
        swaps = mirrored_ids(classes) if "x" in settings.flip else np.arange(256, dtype=np.uint8)
        parts.append(RandFlip(settings.flip, swaps))
    parts += _spatial(settings.preset)
    if settings.invert and mr:
        parts.append(RandInvert(settings.invert, mr))
    parts += _intensities(settings.preset, has_bias=len(mr) == len(sequences))
    parts += [_named(one) for one in settings.transforms]
    # MONAI's transforms leave tensors of their own class, and labels as floats
    parts.append(transforms.EnsureTyped(["image", "label"], dtype=[torch.float32, torch.uint8], track_meta=False))
    return Compose(parts)


def mirrored_ids(classes: Classes) -> np.ndarray:
    """uint8 [256], training id -> training id of the same structures on the other side; itself for what has no side.

    ``LearningError`` for a class that has a side while its other side is in no class.
    """
    labels_of = {number: _labels(members) for number, members in enumerate(classes.members.values(), start=1)}
    by_labels = {labels: number for number, labels in labels_of.items()}
    table = np.arange(256, dtype=np.uint8)
    for number, labels in labels_of.items():
        mirrored = frozenset(_mirrored(*label) for label in labels)
        if mirrored not in by_labels:
            raise LearningError(
                "flipping along x would turn a class into its other side, which is in no class",
                where="field augmentation.flip",
                found=classes.names[number],
                fix="leave x out, or add the class of the other side",
            )
        table[number] = by_labels[mirrored]
    return table


def _labels(members: Sequence[str]) -> frozenset[tuple[str, str]]:
    """(vocabulary, label) of a class; of a class that has both sides without labels that exist on one side alone, such as the
    middle lobe among those of both lungs."""
    found = {
        (vocabulary.name, vocabulary.label(one).name)
        for vocabulary in (load_vocabulary(name) for name in DTYPES)
        for label in members
        for one in ids_of(vocabulary, label)
    }
    if {load_vocabulary(vocabulary).label(name).side for vocabulary, name in found} >= {"left", "right"}:
        found = {
            (vocabulary, name) for vocabulary, name in found if _mirrored(vocabulary, name)[1] in load_vocabulary(vocabulary)
        }
    return frozenset(found)


def _mirrored(vocabulary: str, name: str) -> tuple[str, str]:
    """The label on the other side: the same name with left and right exchanged."""
    language = load_vocabulary(vocabulary)
    side = language.label(name).side
    if not side:
        return vocabulary, name
    other = name.replace(side, _OTHER[side]).replace(side.capitalize(), _OTHER[side].capitalize())
    return vocabulary, other if other in language else f"{name}, mirrored"


class RandFlip(RandomizableTransform):
    """Flips image and label along each of ``axes`` in half of the cases; along x, training ids become ``swaps[id]``."""

    def __init__(self, axes: Sequence[str], swaps: np.ndarray) -> None:
        super().__init__()
        self.axes = tuple("xyz".index(axis) for axis in axes)
        self.swaps = swaps

    def __call__(self, item: Item) -> Item:
        chosen = [axis for axis in self.axes if self.R.random() < 0.5]
        if not chosen:
            return item
        image, label = (torch.flip(item[key], [axis + 1 for axis in chosen]) for key in ("image", "label"))
        if 0 in chosen:
            label = torch.from_numpy(self.swaps[label.numpy()])
        return {**item, "image": image, "label": label}


class RandInvert(RandomizableTransform):
    """Bright becomes dark within what is brighter than the darkest value of a channel: background stays background."""

    def __init__(self, prob: float, channels: Sequence[int]) -> None:
        super().__init__(prob)
        self.channels = tuple(channels)

    def __call__(self, item: Item) -> Item:
        self.randomize(None)
        if not self._do_transform:
            return item
        image = item["image"].clone()
        for channel in self.channels:
            voxels = image[channel]
            low, high = voxels.min(), voxels.max()
            image[channel] = torch.where(voxels > low + 0.02 * (high - low), low + high - voxels, voxels)
        return {**item, "image": image}


def _spatial(preset: str) -> list[Any]:
    if preset == "none":
        return []
    degrees, scale, prob = (10, 0.1, 0.2) if preset == "light" else (20, 0.2, 0.5)
    return [
        transforms.RandAffined(
            ["image", "label"],
            prob=prob,
            rotate_range=(np.deg2rad(degrees),) * 3,
            scale_range=(scale,) * 3,
            mode=("bilinear", "nearest"),
            padding_mode="border",
        )
    ]


def _intensities(preset: str, has_bias: bool) -> list[Any]:
    if preset == "none":
        return []
    if preset == "light":
        return [
            transforms.RandGaussianNoised("image", prob=0.3, std=0.05),
            transforms.RandGaussianSmoothd("image", prob=0.2, sigma_x=(0.25, 0.8), sigma_y=(0.25, 0.8), sigma_z=(0.25, 0.8)),
            transforms.RandAdjustContrastd("image", prob=0.3, gamma=(0.8, 1.25)),
            transforms.RandScaleIntensityd("image", prob=0.3, factors=0.1),
            transforms.RandShiftIntensityd("image", prob=0.3, offsets=0.05),
        ]
    bias = [transforms.RandBiasFieldd("image", prob=0.3, degree=3, coeff_range=(0.0, 0.2))] if has_bias else []
    return [
        *bias,
        transforms.RandGaussianNoised("image", prob=0.5, std=0.1),
        transforms.RandGaussianSmoothd("image", prob=0.3, sigma_x=(0.25, 1.5), sigma_y=(0.25, 1.5), sigma_z=(0.25, 1.5)),
        transforms.RandSimulateLowResolutiond("image", prob=0.25, zoom_range=(0.5, 1.0)),
        transforms.RandAdjustContrastd("image", prob=0.5, gamma=(0.6, 1.7)),
        transforms.RandScaleIntensityd("image", prob=0.5, factors=0.3),
        transforms.RandShiftIntensityd("image", prob=0.5, offsets=0.15),
    ]


def _named(settings: TransformSettings) -> Any:
    names = [name for name in dir(transforms) if name.endswith("d") and inspect.isclass(getattr(transforms, name))]
    if settings.name not in names:
        allowed = "names ending in d, such as RandGaussianNoised"
        raise no_such("MONAI has no such dictionary transform", "field augmentation.transforms", settings.name, names, allowed)
    try:
        return getattr(transforms, settings.name)(keys=list(settings.keys), **settings.options)
    except (TypeError, ValueError) as error:
        raise LearningError(
            f"{settings.name} can't be made with these options: {error}",
            where="field augmentation.transforms",
            found=settings.options,
        ) from error
