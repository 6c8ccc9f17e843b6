"""Latents and what the networks are told about them, as items of batches."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import ndimage

from ctmr_core.engines.maisi.conditioning import INPUT_SCALE
from ctmr_core.engines.maisi.tumors import remove_tumors
from ctmr_core.errors import LearningError
from ctmr_core.learning.maisi.batches import Items, Key
from ctmr_core.learning.maisi.latent_files import LatentItem, LatentSet, read_labels, read_latent

_CUBE = np.ones((3, 3, 3), bool)


class LatentItems(Items):
    """case_id, latent float32 [4, x, y, z], modality (code), spacing float32 [3] and regions float32 [4], both x 100.

    labelled: the label map as well, uint8 [1, X, Y, Z]. tumour_free: that map without tumours, where it changed (``changed``) and
    the surroundings left out of the comparison (``apart``), bool [1, X, Y, Z]; None for none of it, else ``compat``.
    """

    def __init__(
        self, root_and_items: Sequence[tuple[Path, LatentItem]], *, labelled: bool = False, tumour_free: bool | None = None
    ) -> None:
        self._items = list(root_and_items)
        self._labelled = labelled
        self._compat = tumour_free
        self.sizes: Sequence[Hashable] = [item.dim for _, item in self._items]

    def __getitem__(self, key: Key) -> dict[str, Any]:
        root, item = self._items[key[1]]
        found: dict[str, Any] = {
            "case_id": item.image,
            "latent": torch.from_numpy(read_latent(root / item.image)),
            "modality": torch.tensor(item.code),
            "spacing": torch.tensor(item.spacing) * INPUT_SCALE,
        }
        for name, one_hot in (("top_region", item.top_region_index), ("bottom_region", item.bottom_region_index)):
            if one_hot is not None:
                found[name] = torch.tensor(one_hot, dtype=torch.float32) * INPUT_SCALE
        if self._labelled and item.label is not None:
            found |= self._labels(root / item.label, item)
        return found

    def _labels(self, path: Path, item: LatentItem) -> dict[str, Any]:
        labels = read_labels(path)
        if labels.shape != tuple(4 * n for n in item.dim):
            raise LearningError(
                "a label map is on another grid than its image", where=str(path), found=labels.shape, allowed=f"4 x {item.dim}"
            )
        found = {"labels": torch.from_numpy(labels)[None]}
        if self._compat is not None:
            free = remove_tumors(labels, compat=self._compat)
            changed = free != labels
            # the reference's dilation pads with ones: voxels along the border of the volume count as near a tumour
            apart = ndimage.binary_dilation(changed, _CUBE, border_value=int(self._compat))
            found |= {"tumour_free": torch.from_numpy(free)[None], "changed": torch.from_numpy(changed)[None]}
            found["apart"] = torch.from_numpy(apart)[None]
        return found


def divided(sets: Sequence[LatentSet], fold: int | None) -> tuple[list[tuple[Path, LatentItem]], list[tuple[Path, LatentItem]]]:
    """Items to train on and items held out (those of ``fold``); ``LearningError`` where one of them would be empty."""
    every = [(one.root, item) for one in sets for item in one.items]
    held_out = [entry for entry in every if fold is not None and entry[1].fold == fold]
    rest = [entry for entry in every if fold is None or entry[1].fold != fold]
    if not rest or (fold is not None and not held_out):
        raise LearningError(
            "no latents to train on" if not rest else "no latents are held out",
            where="field validation_fold",
            found=fold,
            allowed=sorted({item.fold for _, item in every}),
            fix="name a fold that some latents are in, or none (`validation_fold: null`)",
        )
    return rest, held_out
