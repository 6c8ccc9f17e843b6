"""Random patches of scans from files, resampled to the spacing of the training."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ctmr_core.learning.datasets.draws import item_rng
from ctmr_core.learning.datasets.epochs import EpochDataset, Item
from ctmr_core.learning.datasets.items import background_of, make_item
from ctmr_core.learning.datasets.patches import place_patch
from ctmr_core.learning.segmentation.config import ScanSettings
from ctmr_core.learning.segmentation.resampling import resampled_image, resampled_labels, size_at
from ctmr_core.learning.segmentation.scans import LabelledVolume, LabelMeanings, read_volume

_KEPT = 64  # resampled scans a process keeps in memory


class ScanPatches(EpochDataset):
    """Item i of an epoch is a patch drawn by (seed, epoch, i) from any of ``scans``; keys and types as in ``PatchDataset``.

    spacing: mm the scans are resampled to. foreground: share of patches centred on a labelled voxel, of which every class a
    scan has gets its share of ``weights`` (training id -> weight). Scans are read when first asked for, and kept in memory.
    """

    def __init__(
        self,
        scans: Sequence[ScanSettings],
        sequences: Sequence[str],
        meanings: LabelMeanings,
        patch: tuple[int, int, int],
        spacing: tuple[float, float, float],
        *,
        items: int,
        seed: int,
        foreground: float,
        weights: Mapping[int, float] | None,
    ) -> None:
        super().__init__(items, seed, None)
        self.scans, self.sequences, self.patch, self.spacing = tuple(scans), tuple(sequences), patch, spacing
        self._meanings = meanings
        self._foreground = foreground
        self._weights = weights
        self._read: dict[int, LabelledVolume] = {}

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_read": {}}

    @property
    def identity(self) -> str:
        sha = hashlib.sha256()
        for scan in self.scans:
            for path in (*scan.images, scan.label):
                sha.update(f"{path.name} {path.stat().st_size}\n".encode())
        settings = (self.sequences, self.patch, self.spacing, self._foreground, self._weights)
        return f"patches of scans {sha.hexdigest()[:16]}, seed {self.seed}, {self.items} items, {settings}"

    def volume_key(self, epoch: int, item: int) -> int:
        """Equal for items of the same scan."""
        return int(item_rng(self.seed, epoch, item).integers(len(self.scans)))

    def whole_image(self, epoch: int, item: int, sequence: str) -> np.ndarray:
        """The image [x, y, z] that an item is cut from, whole, at the spacing of the training."""
        return dict(self._volume(self.volume_key(epoch, item)).images)[sequence]

    def begin(self, epoch: int, item: int) -> Callable[[], Item]:
        return lambda: self._cut(epoch, item)

    def _cut(self, epoch: int, item: int) -> Item:
        rng = item_rng(self.seed, epoch, item)
        volume = self._volume(int(rng.integers(len(self.scans))))
        voxel, number = self._centre(volume.labels, rng)
        size = volume.labels.shape
        patch = place_patch(voxel, self.patch, (size[0], size[1], size[2]), "shift")
        return make_item(
            [patch.padded(voxels[patch.inside], background_of(name)) for name, voxels in volume.images],
            patch.padded(volume.labels[patch.inside], 0),
            patch.affine(volume.affine),
            None,
            {"case_id": volume.name, "corner": list(patch.corner), "class_id": number},
        )

    def _volume(self, number: int) -> LabelledVolume:
        if number not in self._read:
            if len(self._read) >= _KEPT:
                self._read.pop(next(iter(self._read)))
            self._read[number] = at_spacing(read_volume(self.scans[number], self.sequences, self._meanings), self.spacing)
        return self._read[number]

    def _centre(self, labels: np.ndarray, rng: np.random.Generator) -> tuple[tuple[float, float, float], int]:
        if rng.random() < self._foreground:
            counts = np.bincount(labels.ravel(order="K"))
            present = [int(number) for number in np.flatnonzero(counts) if number]
            shares = np.array([1.0 if self._weights is None else self._weights.get(number, 0.0) for number in present])
            if shares.sum() > 0:
                number = present[int(rng.choice(len(present), p=shares / shares.sum()))]
                place = np.flatnonzero(labels == number)[int(rng.integers(counts[number]))]
                x, y, z = (float(index) for index in np.unravel_index(place, labels.shape))
                return (x, y, z), number
        x, y, z = (float(rng.integers(n)) for n in labels.shape)
        return (x, y, z), 0


def at_spacing(volume: LabelledVolume, spacing: tuple[float, float, float]) -> LabelledVolume:
    """The volume with voxels of ``spacing`` mm, its outer borders where they were."""
    size = size_at(volume.labels.shape, volume.spacing, spacing)
    if size == volume.labels.shape:
        return volume
    ratio = np.asarray(volume.labels.shape) / np.asarray(size)
    affine = volume.affine.copy()
    affine[:3, :3] = volume.affine[:3, :3] * ratio
    affine[:3, 3] += volume.affine[:3, :3] @ ((ratio - 1) / 2)
    images = tuple((name, resampled_image(voxels, size)) for name, voxels in volume.images)
    return LabelledVolume(volume.name, images, resampled_labels(volume.labels, size), affine, volume.scored)
