"""Datasets of the factory in MONAI's ``LoadImage``: ``LoadImaged(keys, reader=CtmrReader)``."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from monai.data.image_reader import ImageReader

from ctmr_core.errors import LearningError
from ctmr_core.store.dataset import Dataset
from ctmr_core.store.layout import VOLUME_SUFFIX
from ctmr_core.store.lazy import LazyArray, Volume
from ctmr_core.store.storage import open_storage

LABELS = "labels"
_KEPT_OPEN = 8  # datasets: their catalogs take up to tens of MB


class CtmrReader(ImageReader):
    """Reads images and label maps of a dataset or of single volumes, whole.

    Names are ``<dataset path or URI>#<case id>/<sequence>`` or ``<path>.ome.zarr/<sequence>``; ``labels`` as the sequence gives
    the label map, and without one the first sequence is read. Several names are stacked as channels.
    snapshot: name of the snapshot to look cases up in.
    """

    def __init__(self, snapshot: str | None = None) -> None:
        super().__init__()
        self.snapshot = snapshot

    def verify_suffix(self, filename: Sequence[os.PathLike[str] | str] | os.PathLike[str] | str) -> bool:
        return all("#" in name or VOLUME_SUFFIX in name for name in _names(filename))

    def read(
        self,
        data: Sequence[os.PathLike[str] | str] | os.PathLike[str] | str,
        **kwargs: Any,  # noqa: ARG002 - of MONAI's interface
    ) -> list[tuple[Volume, str]]:
        """The volumes and sequences that are meant; no voxels yet."""
        return [self._found(name) for name in _names(data)]

    def get_data(self, img: list[tuple[Volume, str]]) -> tuple[np.ndarray, dict[str, Any]]:
        """Voxels [x, y, z] (several: [channel, x, y, z]) and what MONAI wants to know of them; affine in RAS+ mm."""
        waiting = [_array(volume, sequence).begin() for volume, sequence in img]
        voxels = [wait() for wait in waiting]
        first, _ = img[0]
        for volume, sequence in img[1:]:
            if volume.labels.shape != first.labels.shape or not np.array_equal(volume.affine, first.affine):
                raise LearningError("images on different grids can not be channels of one", where=volume.case_id, found=sequence)
        meta = {
            "affine": first.affine,
            "original_affine": first.affine,
            "spatial_shape": np.asarray(voxels[0].shape),
            "space": "RAS",
            "original_channel_dim": "no_channel" if len(voxels) == 1 else 0,
            "case_id": first.case_id,
            "sequence": "+".join(sequence for _, sequence in img),
        }
        return (voxels[0] if len(voxels) == 1 else np.stack(voxels)), meta

    def _found(self, name: str) -> tuple[Volume, str]:
        if "#" in name:
            uri, _, within = name.rpartition("#")
            case_id, _, sequence = within.partition("/")
            dataset = _dataset(uri, self.snapshot)
            if case_id not in dataset:
                raise LearningError("the dataset has no such accepted case", where=uri, found=case_id)
            volume = dataset[case_id]
        else:
            path, _, sequence = name.rpartition(VOLUME_SUFFIX)
            folder, _, stem = path.rpartition("/")
            volume = Volume(open_storage(folder or "."), stem, f"{stem}{VOLUME_SUFFIX}")
            volume.case_id = str(volume.attributes.get("case_id", stem))
        sequence = sequence.strip("/").partition("/")[0] or volume.sequences[0]
        if sequence != LABELS and sequence not in volume.sequences:
            raise LearningError(
                "the volume has no such sequence", where=name, found=sequence, allowed=[*volume.sequences, LABELS]
            )
        return volume, sequence


def _array(volume: Volume, sequence: str) -> LazyArray:
    return volume.labels if sequence == LABELS else volume.images[sequence]


@lru_cache(maxsize=_KEPT_OPEN)
def _dataset(uri: str, snapshot: str | None) -> Dataset:
    return Dataset.open(uri, snapshot=snapshot)


def _names(data: Sequence[os.PathLike[str] | str] | os.PathLike[str] | str) -> list[str]:
    names = [data] if isinstance(data, str | os.PathLike) else list(data)
    # MONAI passes names through pathlib, which takes one of the slashes of s3:// away
    return [re.sub(r"^(s3|file):/+", r"\1://", os.fspath(name)).replace("file://", "file:///") for name in names]
