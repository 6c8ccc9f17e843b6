"""Seconds and peak memory to judge one large volume, check by check, beside a loop over labels.

    python benchmarks/judge.py --size 256
    python benchmarks/judge.py --size 512 --json

The volume: a parametric torso rendered by the tissue engine on a coarse grid, upsampled, noise added in place; labels the
torso lacks are put in as small cubes, so that all 132 classes are there. Both the judge and the loop (mean, median and
spread of every label, one mask after the other, as scripts do) run in a process of their own on the same files. Seconds are
CPU seconds of the process, one thread; peak memory is its resident set, the volume and the libraries included.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

COARSE = 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=256, help=f"voxels along each axis, a multiple of {COARSE}")
    parser.add_argument("--no-loop", action="store_true", help="leave the loop over labels out")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--worker", choices=("judge", "loop"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps((judged if options.worker == "judge" else looped)(options.folder)))
        return
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), options.size)
        workers = ["judge"] if options.no_loop else ["judge", "loop"]
        result = {"size": options.size, **{worker: run(worker, folder) for worker in workers}}
    print(json.dumps(result, indent=2) if options.json else table(result))


def make(folder: Path, size: int) -> None:
    """Write labels.npy (uint8), image.npy (int16) and case.json."""
    from ctmr_core.cases.case import Case
    from ctmr_core.cases.label_maps import build_label_map
    from ctmr_core.engines import load_engine

    factor = size // COARSE
    case = Case(
        case_id="judged",
        body="parametric:torso",
        body_seed=3,
        sequences=("ct",),
        center="abdomen",
        size=(COARSE,) * 3,
        spacing=(4.0,) * 3,
    )
    label_map = build_label_map(case, None, 0)[0]
    image = load_engine("tissue").render(case, label_map, 0)["ct"]
    voxels = label_map.voxels.copy()
    lacking = sorted(set(label_map.vocabulary.by_id) - set(np.unique(voxels).tolist()))
    inside = np.argwhere(voxels == label_map.vocabulary.label("body").id)
    for label, center in zip(lacking, inside[:: max(len(inside) // max(len(lacking), 1), 1)], strict=False):
        voxels[tuple(slice(c, c + 2) for c in center)] = label
    np.save(folder / "labels.npy", _repeated(voxels, factor))
    large = _repeated(image, factor)
    rng = np.random.default_rng(1)
    for z in range(size):  # a slice at a time: no copy of the volume
        large[:, :, z] += rng.normal(0, 15, large.shape[:2]).astype(np.int16)
    np.save(folder / "image.npy", large)
    mm = 4.0 / factor
    fine = case.model_copy(update={"size": (size,) * 3, "spacing": (mm,) * 3})
    (folder / "case.json").write_text(fine.model_dump_json())


def _repeated(voxels: np.ndarray, factor: int) -> np.ndarray:
    """Nearest neighbour upsampling, a plane at a time."""
    size = tuple(n * factor for n in voxels.shape)
    out = np.empty(size, voxels.dtype)
    for i in range(size[0]):
        out[i] = voxels[i // factor].repeat(factor, 0).repeat(factor, 1)
    return out


def run(worker: str, folder: str) -> dict[str, Any]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--worker", worker, "--folder", folder]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout)


def judged(folder: Path) -> dict[str, Any]:
    """Every check in turn; what they share (census, histogram, contacts) is timed apart."""
    from ctmr_core.anatomy.grid import Grid
    from ctmr_core.anatomy.label_map import LabelMap
    from ctmr_core.anatomy.vocabulary import load_vocabulary
    from ctmr_core.cases.case import Case
    from ctmr_core.quality.base import Candidate
    from ctmr_core.quality.registry import load_checks

    case = Case.model_validate_json((folder / "case.json").read_text())
    checks = load_checks()
    libraries = _peak()
    affine = Grid.centred(case.size, case.spacing).affine
    label_map = LabelMap(np.load(folder / "labels.npy"), affine, load_vocabulary("maisi"))
    candidate = Candidate(case, label_map, {"ct": np.load(folder / "image.npy")})
    loaded = _peak()
    times, peaks, reasons = {}, {}, []
    shared = {
        "(census)": lambda: candidate.census,
        "(value table)": lambda: candidate.histogram("ct"),
        "(contacts)": lambda: candidate.contacts,
    }
    for name, work in shared.items():
        started = time.process_time()
        work()
        times[name], peaks[name] = time.process_time() - started, _peak()
    for check in checks:
        if not check.applies(case):
            continue
        started = time.process_time()
        reasons += check.run(candidate).reasons
        times[check.name], peaks[check.name] = time.process_time() - started, _peak()
    return {
        "seconds": sum(times.values()),
        "peak_mb": _peak(),
        "libraries_mb": libraries,
        "loaded_mb": loaded,
        "labels": len(candidate.census.labels),
        "checks": times,
        "peaks": peaks,
        "reasons": len(reasons),
    }


def looped(folder: Path) -> dict[str, Any]:
    """Mean, median and spread of every label, a mask each."""
    labels, image = np.load(folder / "labels.npy"), np.load(folder / "image.npy")
    started = time.process_time()
    found = {}
    for label in np.unique(labels):
        values = image[labels == label]
        found[int(label)] = (values.mean(), np.median(values), values.std())
    return {"seconds": time.process_time() - started, "peak_mb": _peak(), "labels": len(found)}


def _peak() -> float:
    """Peak resident set of this process in MB. (``ru_maxrss`` would begin with the peak of the process that started it.)"""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) / 1024


def table(result: dict[str, Any]) -> str:
    one = result["judge"]
    lines = [f"{result['size']}^3 voxels, {one['labels']} labels", "", "| | CPU s | peak MB |", "|---|---:|---:|"]
    for name, seconds in sorted(one["checks"].items(), key=lambda item: -item[1]):
        lines.append(f"| {name} | {seconds:.2f} | {one['peaks'][name]:,.0f} |")
    lines.append(f"| **all checks** | **{one['seconds']:.2f}** | **{one['peak_mb']:,.0f}** |")
    if "loop" in result:
        lines.append(
            f"| loop over labels: mean, median, spread | {result['loop']['seconds']:.2f} | {result['loop']['peak_mb']:,.0f} |"
        )
    lines.append(f"\nLibraries {one['libraries_mb']:,.0f} MB; with the volume {one['loaded_mb']:,.0f} MB.")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
