"""Items as MONAI's dictionary transforms take them: ``image`` and ``label``, each a ``MetaTensor``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ctmr_core.anatomy.sequences import is_ct
from ctmr_core.store.axes import turned
from ctmr_core.store.volumes import CT_FILL


def background_of(sequence: str) -> int:
    """What is outside of an image: air in HU, nothing in MR."""
    return CT_FILL if is_ct(sequence) else 0


def make_item(
    images: Sequence[np.ndarray],
    labels: np.ndarray,
    affine: np.ndarray,
    table: np.ndarray | None,
    facts: dict[str, Any],
) -> dict[str, Any]:
    """{"image": float32 [channels, x, y, z], "label": integers [1, x, y, z]}, C order, both with ``affine`` (RAS+ mm).

    images: int16 [x, y, z] each; labels: [x, y, z]. table: label id -> training id; None leaves the ids. facts: JSON-able,
    kept as ``meta`` of both.
    """
    shape = labels.shape
    image = np.empty((len(images), *shape), np.float32)
    for channel, voxels in enumerate(images):
        image[channel] = voxels
    return item_of(image, training_ids(_c_order(labels), table), affine, facts)


def item_of(image: np.ndarray, label: np.ndarray, affine: np.ndarray, facts: dict[str, Any]) -> dict[str, Any]:
    """The item of an image [channels, x, y, z] and a label map [x, y, z] that are as they should be; the memory is theirs."""
    return {"image": _meta_tensor(image, affine, facts), "label": _meta_tensor(label[None], affine, facts)}


def training_ids(labels: np.ndarray, table: np.ndarray | None) -> np.ndarray:
    """``table[labels]``, or ``labels`` without a table, for labels [x, y, z] in C order; integers that PyTorch computes with."""
    if table is None:
        mapped = labels
    elif labels.dtype == np.uint8 and len(table) == 256:  # a quarter of the time
        mapped = np.frombuffer(bytearray(labels.data).translate(table.tobytes()), np.uint8).reshape(labels.shape)
    else:
        mapped = table[labels]
    return mapped.astype(np.int32) if mapped.dtype == np.uint16 else mapped


def _c_order(voxels: np.ndarray) -> np.ndarray:
    if voxels.flags.c_contiguous:
        return voxels if voxels.flags.writeable else voxels.copy()
    return turned(voxels.T)


def _meta_tensor(voxels: np.ndarray, affine: np.ndarray, facts: dict[str, Any]) -> torch.Tensor:
    from monai.data import MetaTensor

    place = torch.from_numpy(np.array(affine, np.float64))
    return MetaTensor(torch.from_numpy(voxels), affine=place, meta={**facts, "original_affine": place.clone(), "space": "RAS"})
