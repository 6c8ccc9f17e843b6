"""Random patches of a dataset or snapshot, read from the chunks they touch."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow.dataset as pads

from ctmr_core.anatomy.vocabulary import DTYPES
from ctmr_core.errors import LearningError
from ctmr_core.learning.datasets.case_table import CaseTable, read_case_table
from ctmr_core.learning.datasets.classes import AllLabels, Classes
from ctmr_core.learning.datasets.draws import item_rng
from ctmr_core.learning.datasets.epochs import EpochDataset, Item
from ctmr_core.learning.datasets.items import background_of, item_of, training_ids
from ctmr_core.learning.datasets.patches import Border, Patch, place_patch
from ctmr_core.learning.datasets.sampling import Centre, Centres
from ctmr_core.store.axes import turn_into
from ctmr_core.store.boxes import BoxReader
from ctmr_core.store.dataset import Dataset
from ctmr_core.store.lazy import LazyArray
from ctmr_core.store.volumes import CHUNK

Size = tuple[int, int, int]
_ALIGN = CHUNK // 2


class PatchDataset(EpochDataset):
    """Item i of an epoch is a patch drawn by (seed, epoch, i): ``{"image": [channels, x, y, z], "label": [1, x, y, z]}``.

    dataset: a ``Dataset`` (also of a snapshot) or its path or URI. patch: voxels, one number or [x, y, z]. sequences: the
    channels; cases that lack one are left out. labels: what to train on (see :class:`Classes`); None keeps the vocabulary's ids.
    items: patches an epoch, default ``patches_per_case`` for every case. splits: of ``train``, ``val``, ``test``; None for all.
    filter: on columns of the catalog. foreground, class_weights (class name or id -> weight), jitter (default an eighth of the
    patch): see :class:`~ctmr_core.learning.datasets.sampling.Centres`. min_voxels: of a label to be worth a centre.
    border: see :func:`~ctmr_core.learning.datasets.patches.place_patch`. align: corners are multiples of so many voxels, default
    32 for patches of 96 and more: a patch of 96 then touches 8 chunks of 64 instead of 15 on average, and is read in little more
    than half the time; 1 for any corner. cache_bytes: decoded chunks kept per process; worth it when the dataset is small enough
    to fit. Raises ``LearningError`` for what can't be drawn.

    Images are float32 as stored (HU, arbitrary units for MR), labels uint8 training ids. ``meta`` of both: affine of the patch,
    ``case_id``, ``corner`` (voxel index in the volume), ``class_id`` it was centred on (0: none).
    """

    def __init__(
        self,
        dataset: Dataset | str | os.PathLike[str],
        patch: int | Sequence[int],
        sequences: Sequence[str] = ("ct",),
        labels: Classes | Mapping[str, str | Sequence[str]] | Sequence[str] | None = None,
        *,
        items: int | None = None,
        patches_per_case: int = 1,
        seed: int = 0,
        splits: Sequence[str] | None = ("train",),
        filter: pads.Expression | None = None,  # noqa: A002
        foreground: float = 0.5,
        class_weights: Mapping[str | int, float] | None = None,
        jitter: int | Sequence[int] | None = None,
        min_voxels: int = 1,
        border: Border = "shift",
        align: int | None = None,
        cache_bytes: int = 0,
        transform: Callable[[Item], Any] | None = None,
    ) -> None:
        if isinstance(sequences, str):
            sequences = (sequences,)
        dataset = dataset if isinstance(dataset, Dataset) else Dataset.open(dataset)
        self.patch = triple_of(patch)
        self.sequences = tuple(sequences)
        self.classes = classes_of(labels)
        self.border: Border = border
        self.uri = dataset.uri
        self.table: CaseTable = read_case_table(
            dataset, self.sequences, self.classes, splits=splits, filter=filter, min_voxels=min_voxels
        )
        self.jitter = triple_of(jitter, least=0) if jitter is not None else _eighth(self.patch)
        self.align = align if align is not None else _ALIGN if min(self.patch) >= 3 * _ALIGN else 1
        if self.align < 1 or any(2 * moved + self.align > n for moved, n in zip(self.jitter, self.patch, strict=True)):
            raise LearningError(
                "jitter and align would move what a patch was chosen for out of the patch",
                found=(self.jitter, self.align),
                allowed=f"twice the jitter and align together at most {self.patch} voxels",
            )
        self.centres = Centres(self.table, foreground, class_ids(class_weights, self.classes), self.jitter)
        self._settings = (foreground, sorted((class_weights or {}).items(), key=str), min_voxels)
        self._storage = dataset.storage
        self._cache_bytes = cache_bytes
        super().__init__(items if items is not None else len(self.table) * patches_per_case, seed, transform)

    def __repr__(self) -> str:
        return f"PatchDataset({self.uri!r}, {len(self.table)} cases, {self.items} patches an epoch)"

    @property
    def identity(self) -> str:
        cases = hashlib.sha256(self.table.texts.numpy().tobytes()).hexdigest()[:16]
        settings = (self.sequences, self.patch, self.jitter, self.border, self.align, dict(self.classes.members), self._settings)
        return f"patches of {cases}, seed {self.seed}, {self.items} items, {settings}"

    def where(self, epoch: int, item: int) -> tuple[Centre, Patch]:
        """Where an item is cut, without reading it."""
        centre = self.centres.draw(item_rng(self.seed, epoch, item))
        return centre, place_patch(centre.voxel, self.patch, self.table.size(centre.case), self.border, self.align)

    def volume_key(self, epoch: int, item: int) -> int:
        """Equal for items of the same volume."""
        return self.where(epoch, item)[0].case

    def whole_image(self, epoch: int, item: int, sequence: str) -> np.ndarray:
        """The image [x, y, z] that an item is cut from, whole, as stored."""
        _, path = self.table.name(self.volume_key(epoch, item))
        return LazyArray(self._storage, f"{path}/{sequence}/0").read()

    def begin(self, epoch: int, item: int) -> Callable[[], Item]:
        centre, patch = self.where(epoch, item)
        case_id, path = self.table.name(centre.case)
        vocabulary = self.table.vocabulary(centre.case)
        labels = self._begin(f"{path}/labels/{vocabulary}/0", patch.inside)
        images = [self._begin(f"{path}/{sequence}/0", patch.inside) for sequence in self.sequences]

        def finished() -> Item:
            fresh = np.empty if patch.is_whole else np.zeros
            image = fresh((len(images), *patch.size), np.float32)
            for channel, (sequence, read) in enumerate(zip(self.sequences, images, strict=True)):
                if not patch.is_whole:
                    image[channel] = background_of(sequence)
                read(image[channel][patch.target])
            label = fresh(patch.size, DTYPES[vocabulary])
            labels(label[patch.target])
            return item_of(
                image,
                training_ids(label, self.classes.table(vocabulary)),
                patch.affine(self.table.affine(centre.case)),
                {"case_id": case_id, "corner": list(patch.corner), "class_id": centre.number},
            )

        return finished

    def _begin(self, path: str, box: tuple[slice, slice, slice]) -> Callable[[np.ndarray], None]:
        """Start reading a box of an array; what is returned writes it into an array [x, y, z]."""
        reader = None if self._cache_bytes else BoxReader.of(self._storage, path)
        if reader is not None:
            return reader.begin(box)
        wait = LazyArray(self._storage, path, self._cache_bytes).begin(box)
        return lambda out: turn_into(out, wait().T)


def classes_of(labels: Classes | Mapping[str, str | Sequence[str]] | Sequence[str] | None) -> Classes | AllLabels:
    """The classes that ``labels`` says."""
    if isinstance(labels, Classes):
        return labels
    return AllLabels() if labels is None else Classes(labels)


def class_ids(weights: Mapping[str | int, float] | None, classes: Classes | AllLabels) -> dict[int, float] | None:
    """Training id -> weight, from class names or ids; ``LearningError`` for names that are no class."""
    if weights is None:
        return None
    numbers = {name: number for number, name in enumerate(classes.members, start=1)}
    unknown = [name for name in weights if isinstance(name, str) and name not in numbers]
    if unknown:
        raise LearningError(
            "there is no such class", where="class_weights", found=unknown[0], allowed=list(numbers) or "label ids"
        )
    return {numbers[name] if isinstance(name, str) else name: weight for name, weight in weights.items()}


def triple_of(size: int | Sequence[int], least: int = 1) -> Size:
    """[x, y, z] from one number or three."""
    values = (size,) * 3 if isinstance(size, int) else tuple(int(n) for n in size)
    if len(values) != 3 or min(values) < least:
        raise LearningError("a size is one number or three", found=size, allowed=f"{least} or more voxels along [x, y, z]")
    return (values[0], values[1], values[2])


def _eighth(patch: Size) -> Size:
    x, y, z = (int(np.floor(n / 8)) for n in patch)
    return (x, y, z)
