"""Label maps made from the real scans, for the tests of operations on label maps."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import nibabel
import numpy as np
from scipy import ndimage

from ctmr_core.anatomy.label_map import LabelMap
from ctmr_core.anatomy.vocabulary import load_vocabulary


@cache
def abdomen(real_data: Path) -> LabelMap:
    """A real abdomen, 122 x 101 x 112 voxels of 3 mm, with everything inside the skin labelled (body = 200)."""
    image = nibabel.load(real_data / "ct_abdomen" / "ct.nii.gz")
    labels = np.asarray(nibabel.load(real_data / "ct_abdomen" / "labels_totalsegmentator_v2.nii.gz").dataobj)
    mapping = json.loads((real_data / "mapping" / "totalsegmentator_total_v2_to_maisi132.json").read_text())
    table = np.zeros(256, np.uint8)
    for source, target in mapping.items():
        table[int(source)] = target
    voxels = table[labels.astype(int)]
    body = ndimage.binary_opening(np.asarray(image.dataobj) > -500, iterations=2)
    parts, _ = ndimage.label(body)
    body = parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])
    for z in range(body.shape[2]):
        body[:, :, z] = ndimage.binary_fill_holes(body[:, :, z])
    voxels[(voxels == 0) & body] = 200
    return LabelMap(np.ascontiguousarray(voxels), image.affine, load_vocabulary("maisi"))


@cache
def head(real_data: Path, number: int = 1) -> LabelMap:
    """A real head, 256^3 voxels of 1 mm."""
    image = nibabel.as_closest_canonical(nibabel.load(real_data / "brain_label_maps" / f"training_seg_{number:02d}.nii.gz"))
    voxels = np.ascontiguousarray(np.asarray(image.dataobj).astype(np.uint16))
    return LabelMap(voxels, image.affine, load_vocabulary("brain"))


@cache
def lone_brain(real_data: Path) -> LabelMap:
    """The brain of :func:`head` alone, as FreeSurfer's aseg has it: the fluid around it and the head are unlabelled; 2 mm."""
    whole = head(real_data)
    voxels = whole.voxels[::2, ::2, ::2].copy()
    voxels[(voxels >= 500) | (voxels == 24) | (voxels == 258) | (voxels == 165)] = 0
    return LabelMap(voxels, whole.affine @ np.diag([2.0, 2.0, 2.0, 1.0]), whole.vocabulary)


def volumes_ml(label_map: LabelMap) -> np.ndarray:
    """mL per label id."""
    return np.bincount(label_map.voxels.ravel(), minlength=600) * np.prod(label_map.spacing) / 1000
