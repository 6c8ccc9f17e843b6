"""The sides of ``benchmarks/loader.py``: ways to get random 96^3 patches of image and label map out of stored volumes."""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent.parent)]

from ctmr_core.anatomy.label_census import take_census  # noqa: E402
from ctmr_core.anatomy.label_map import LabelMap  # noqa: E402
from ctmr_core.cases.case import Case  # noqa: E402
from ctmr_core.exchange.nnunet_preprocessed.files import write_array  # noqa: E402
from ctmr_core.learning.datasets import PatchDataset, loader  # noqa: E402
from ctmr_core.learning.datasets.patches import Patch, place_patch  # noqa: E402
from ctmr_core.learning.datasets.sampling import Centre  # noqa: E402
from ctmr_core.store import (  # noqa: E402
    CommitRecord,
    Dataset,
    build_row,
    commit,
    new_attempt_id,
    open_storage,
    seal,
    volume_path,
    write_volume,
)

PATCH = 96
OURS = "this loader"
MANY = 1_000_000


def corner_of(item: int, size: tuple[int, ...]) -> tuple[slice, ...]:
    """Where the patch of an item is, on every side but those that draw for themselves."""
    starts = [int(n) for n in np.random.default_rng(item).integers(0, np.asarray(size) - PATCH + 1)]
    return tuple(slice(start, start + PATCH) for start in starts)


class Side(torch.utils.data.Dataset[Any], ABC):
    """One way to get patches: item i is a random patch of volume i modulo volumes."""

    name = ""

    def __init__(self, folder: Path, volumes: int) -> None:
        self.folder, self.volumes = folder / "".join(letter if letter.isalnum() else "-" for letter in self.name), volumes
        self.folder.mkdir(parents=True, exist_ok=True)

    @abstractmethod
    def write(self, number: int, image: np.ndarray, label_map: LabelMap) -> None:
        """Store a volume."""

    def written(self) -> None:
        """All volumes are stored."""

    def __len__(self) -> int:
        return MANY

    @abstractmethod
    def __getitem__(self, item: int) -> Any: ...

    def files(self) -> list[Path]:
        return [path for path in self.folder.rglob("*") if path.is_file()]

    def batches(self, workers: int) -> Iterator[Any]:
        return iter(torch.utils.data.DataLoader(self, 1, num_workers=workers, multiprocessing_context="spawn"))

    def first(self, count: int, workers: int) -> Iterator[Any]:
        """The first items and no more, by workers."""
        few = torch.utils.data.Subset(self, range(count))
        return iter(torch.utils.data.DataLoader(few, 1, num_workers=workers, multiprocessing_context="spawn"))


class UniformPatches(PatchDataset):
    """Patches anywhere in the volume, air included, as the peers cut them: in training half are around labelled voxels."""

    def where(self, epoch: int, item: int) -> tuple[Centre, Patch]:  # noqa: ARG002
        case = item % len(self.table)
        cut = corner_of(item, self.table.size(case))
        center = [side.start + PATCH // 2 for side in cut]
        patch = place_patch(center, self.patch, self.table.size(case), self.border, self.align)
        return Centre(case, (0, 0, 0), 0), patch


class Ours(Side):
    """A dataset, through ``PatchDataset`` and ``loader``, with corners at multiples of 32 as by default."""

    name = OURS
    align = 32

    def __init__(self, folder: Path, volumes: int, uri: str | None = None) -> None:
        super().__init__(folder, volumes)
        self.dataset = Dataset.create(uri or self.folder)
        self._cases: list[tuple[str, str]] = []

    def write(self, number: int, image: np.ndarray, label_map: LabelMap) -> None:
        case = Case(
            case_id=f"case-{number}", body="parametric:torso", sequences=("ct",), size=label_map.size, spacing=label_map.spacing
        )
        attempt_id = new_attempt_id()
        path = volume_path(case.case_id, attempt_id)
        stored = write_volume(self.dataset.storage, path, images={"ct": image}, label_map=label_map, attributes={})
        row = build_row(case, label_map=label_map, census=take_census(label_map))
        commit(
            self.dataset.storage,
            CommitRecord.accepted(case.case_id, case.key, attempt=0, attempt_id=attempt_id, stored=stored, row=row),
        )
        self._cases.append((case.case_id, case.key))

    def written(self) -> None:
        if self._cases:
            seal(self.dataset.storage, "unit-0", self._cases)
            self.dataset.refresh()
        self.patches = UniformPatches(self.dataset, PATCH, items=MANY, align=self.align)

    def __getitem__(self, item: int) -> Any:
        return self.patches[item]

    def batches(self, workers: int) -> Iterator[Any]:
        return iter(loader(self.patches, 1, workers))

    def first(self, count: int, workers: int) -> Iterator[Any]:
        return iter(loader(UniformPatches(self.dataset, PATCH, items=count, align=self.align), 1, workers))


class OursAnywhere(Ours):
    """The same with ``align=1``."""

    name = f"{OURS}, align=1"
    align = 1


class Nifti(Side):
    """``.nii.gz`` pairs."""

    def write(self, number: int, image: np.ndarray, label_map: LabelMap) -> None:
        for array, path in zip((image, label_map.voxels), self.pair(number), strict=True):
            nib.save(nib.Nifti1Image(np.asfortranarray(array), label_map.affine), path)

    def pair(self, number: int) -> tuple[Path, Path]:
        return self.folder / f"{number}-image.nii.gz", self.folder / f"{number}-label.nii.gz"


class Monai(Nifti):
    """MONAI's dictionary transforms."""

    name = "MONAI .nii.gz"

    def __getitem__(self, item: int) -> Any:
        return self.transform(dict(zip(("image", "label"), self.pair(item % self.volumes), strict=True)))

    @cached_property
    def transform(self) -> Any:
        from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, RandSpatialCropd

        both = ["image", "label"]
        crop = RandSpatialCropd(both, (PATCH,) * 3, random_size=False)
        return Compose([LoadImaged(both, reader="NibabelReader"), EnsureChannelFirstd(both), crop])

    def batches(self, workers: int) -> Iterator[Any]:
        from monai.data import DataLoader

        return iter(DataLoader(self, batch_size=1, num_workers=workers, multiprocessing_context="spawn"))


class TorchIO(Nifti):
    """TorchIO's subjects and sampler."""

    name = "TorchIO .nii.gz"

    def __init__(self, folder: Path, volumes: int) -> None:
        import torchio

        del torchio
        super().__init__(folder, volumes)

    def __getitem__(self, item: int) -> Any:
        import torchio

        image, label = self.pair(item % self.volumes)
        subject = torchio.Subject(image=torchio.ScalarImage(image), label=torchio.LabelMap(label))
        patch = next(iter(torchio.UniformSampler(PATCH)(subject, 1)))
        return {"image": patch["image"].data.float(), "label": patch["label"].data}


class NnUnet(Side):
    """nnU-Net v2's preprocessed cases, read as ``nnUNetDatasetBlosc2`` does, without the pickle of properties."""

    name = "nnU-Net v2 .b2nd"

    def __init__(self, folder: Path, volumes: int) -> None:
        import blosc2

        del blosc2
        super().__init__(folder, volumes)

    def paths(self, number: int) -> tuple[Path, Path]:
        return self.folder / f"{number}.b2nd", self.folder / f"{number}_seg.b2nd"

    def write(self, number: int, image: np.ndarray, label_map: LabelMap) -> None:
        normalised = (np.clip(image.T, -1000, 1000).astype(np.float32) - 40) / 200
        arrays = (normalised, label_map.voxels.T.astype(np.int16))
        for array, path in zip(arrays, self.paths(number), strict=True):
            write_array(path, array[None], (PATCH,) * 3)

    def __getitem__(self, item: int) -> Any:
        import blosc2

        blosc2.set_nthreads(1)
        image, label = (
            blosc2.open(str(path), mode="r", mmap_mode="r", dparams={"nthreads": 1}) for path in self.paths(item % self.volumes)
        )
        cut = (slice(0, 1), *corner_of(item, image.shape[1:]))
        return {"image": torch.from_numpy(image[cut]), "label": torch.from_numpy(label[cut])}


class Npy(Side):
    """Uncompressed memory maps."""

    name = ".npy memory map"

    def write(self, number: int, image: np.ndarray, label_map: LabelMap) -> None:
        np.save(self.folder / f"{number}-image.npy", image)
        np.save(self.folder / f"{number}-label.npy", np.ascontiguousarray(label_map.voxels))

    def __getitem__(self, item: int) -> Any:
        number = item % self.volumes
        image, label = (np.load(self.folder / f"{number}-{name}.npy", mmap_mode="r") for name in ("image", "label"))
        cut = corner_of(item, image.shape)
        return {
            "image": torch.from_numpy(image[cut].astype(np.float32))[None],
            "label": torch.from_numpy(label[cut].copy())[None],
        }


class OursRemote(Ours):
    """The same dataset in an object store."""

    name = f"{OURS}, S3"


class MonaiRemote(Monai):
    """The pair of files is fetched for every patch."""

    name = "MONAI .nii.gz fetched, S3"

    def __init__(self, folder: Path, volumes: int, uri: str) -> None:
        super().__init__(folder, volumes)
        self.storage = open_storage(uri, make=True)

    def write(self, number: int, image: np.ndarray, label_map: LabelMap) -> None:
        super().write(number, image, label_map)
        for path in self.pair(number):
            self.storage.write(path.name, path.read_bytes())
            path.unlink()

    def __getitem__(self, item: int) -> Any:
        place = self.folder / str(os.getpid())  # workers fetch for themselves
        place.mkdir(exist_ok=True)
        files = {}
        for key, path in zip(("image", "label"), self.pair(item % self.volumes), strict=True):
            files[key] = place / path.name
            files[key].write_bytes(self.storage.read(path.name))
        return self.transform(files)


LOCAL = (Ours, OursAnywhere, Monai, TorchIO, NnUnet, Npy)
