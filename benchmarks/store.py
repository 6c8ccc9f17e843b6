"""Writing and reading one CT volume with its label map: this store beside nibabel's .nii.gz (level 1).

Run ``python benchmarks/store.py [--size 256] [--repeats 7] [--json]``. Both sides handle the same voxels in the same run, in
turn; figures are medians of processor seconds of this process (``time.process_time``), so that a busy machine disturbs
little. Peer: nibabel at compression level 1 (its default), given the Fortran-ordered array it writes fastest.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy.ndimage import gaussian_filter

from ctmr_core.anatomy.label_map import LabelMap
from ctmr_core.anatomy.vocabulary import load_vocabulary
from ctmr_core.store import Volume, open_storage, write_volume
from ctmr_core.store.local import LocalStorage

PATCH = 96


def make_case(size: int, seed: int = 0) -> tuple[np.ndarray, LabelMap]:
    """A CT-like int16 image (air, fat, 30 organs, 12 HU of correlated noise) and its label map, [x, y, z]."""
    rng = np.random.default_rng(seed)
    grid = np.linspace(-1, 1, size, dtype=np.float32)
    x, y, z = np.meshgrid(grid, grid, grid, indexing="ij", sparse=True)
    body = (x / 0.85) ** 2 + (y / 0.6) ** 2 < 1
    body = np.broadcast_to(body, (size, size, size))
    labels = np.where(body, 200, 0).astype(np.uint8)
    image = np.where(body, np.float32(-90), np.float32(-1000))
    for label in rng.choice(np.arange(1, 120), 30, replace=False):
        (cx, cy, cz), radius = rng.uniform(-0.45, 0.45, 3), rng.uniform(0.08, 0.22)
        inside = (x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2 < radius**2
        labels[inside & body] = label
        image[inside & body] = rng.uniform(-20, 180)
    image = gaussian_filter(image, 0.8)
    noise = gaussian_filter(rng.standard_normal(image.shape, dtype=np.float32), 0.6)
    image += noise * (12 / noise.std())
    image[np.broadcast_to(x**2 + y**2 > 1, image.shape)] = -1024
    return image.astype(np.int16), LabelMap(labels, np.diag([1.5, 1.5, 1.5, 1.0]), load_vocabulary("maisi"))


class OurStore:
    """This store, through its public functions."""

    def __init__(self, folder: Path) -> None:
        self.storage = open_storage(folder, make=True)
        assert isinstance(self.storage, LocalStorage)  # noqa: S101
        self.folder, self.count, self.path = folder, 0, ""

    def write(self, image: np.ndarray, label_map: LabelMap) -> None:
        self.count += 1
        self.path = f"volumes/00/case.{self.count}.ome.zarr"
        write_volume(self.storage, self.path, images={"ct": image}, label_map=label_map, attributes={"case_id": "case"})

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        volume = Volume(self.storage, "case", self.path)
        return np.asarray(volume.images["ct"]), np.asarray(volume.labels)

    def patch(self, corner: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        volume = Volume(self.storage, "case", self.path)
        cut = tuple(slice(c, c + PATCH) for c in corner)
        return volume.images["ct"][cut], volume.labels[cut]

    def files(self) -> list[Path]:
        return [file for file in (self.folder / self.path).rglob("*") if file.is_file()]


class NiftiFiles:
    """Two .nii.gz files by nibabel."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.paths = [folder / "image.nii.gz", folder / "label.nii.gz"]

    def write(self, image: np.ndarray, label_map: LabelMap) -> None:
        for array, path in zip((image, label_map.voxels), self.paths, strict=True):
            nib.save(nib.Nifti1Image(array, label_map.affine), path)

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        image, labels = (np.asarray(nib.load(path).dataobj) for path in self.paths)
        return image, labels

    def patch(self, corner: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        cut = tuple(slice(c, c + PATCH) for c in corner)
        image, labels = (np.asarray(nib.load(path).dataobj)[cut] for path in self.paths)
        return image, labels

    def files(self) -> list[Path]:
        return self.paths


def measure(size: int, repeats: int) -> dict[str, dict[str, float]]:
    """{"ctmr store" | "nibabel .nii.gz": {figure: value}}."""
    image, label_map = make_case(size)
    turned = LabelMap(np.asfortranarray(label_map.voxels), label_map.affine, label_map.vocabulary)
    rng = np.random.default_rng(1)
    seconds: dict[str, dict[str, list[float]]] = {}
    figures: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="ctmr-benchmark-") as folder:
        sides = {
            "ctmr store": (OurStore(Path(folder) / "ours"), image, label_map),
            "nibabel .nii.gz": (NiftiFiles(Path(folder) / "nifti"), np.asfortranarray(image), turned),
        }
        for _ in range(repeats):
            corner = tuple(int(c) for c in rng.integers(0, max(size - PATCH, 0) + 1, 3))
            for name, (side, voxels, labels) in sides.items():
                mine = seconds.setdefault(name, {})
                mine.setdefault("write s", []).append(_cpu(lambda side=side, v=voxels, m=labels: side.write(v, m)))
                mine.setdefault("read s", []).append(_cpu(side.read))
                mine.setdefault("patch s", []).append(_cpu(lambda side=side, c=corner: side.patch(c)))
                assert all(np.array_equal(a, b) for a, b in zip(side.read(), (image, label_map.voxels), strict=True))  # noqa: S101
        for name, (side, _, _) in sides.items():
            files = side.files()
            figures[name] = {figure: statistics.median(values) for figure, values in seconds[name].items()}
            figures[name] |= {"files": len(files), "MB": sum(file.stat().st_size for file in files) / 1e6}
    return figures


def _cpu(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256, help="voxels per side")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures = measure(options.size, options.repeats)
    ours, peer = figures["ctmr store"], figures["nibabel .nii.gz"]
    ratios = {figure: peer[figure] / ours[figure] for figure in ours}
    if options.json:
        print(json.dumps({"size": options.size, "machine": platform.processor(), **figures, "peer / ours": ratios}, indent=1))
        return
    print(
        f"CT int16 + labels uint8, {options.size}^3, median of {options.repeats}, processor seconds; patch {PATCH}^3, opened anew"
    )
    print(f"{'':10}{'ctmr store':>14}{'nibabel .nii.gz':>18}{'peer / ours':>14}")
    for figure in ours:
        print(f"{figure:10}{ours[figure]:14.4g}{peer[figure]:18.4g}{ratios[figure]:14.2f}")


if __name__ == "__main__":
    main()
