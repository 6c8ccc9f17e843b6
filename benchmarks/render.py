"""Seconds and peak memory to render one label map: the tissue engine beside TorchIO and cornucopia.

    python benchmarks/render.py --size 256 --peers tissue
    python benchmarks/render.py --size 256 --peers tissue torchio cornucopia --json

Every generator runs in a process of its own with the same label map and the same number of threads; the time is the
median of ``--repeats`` renderings after one to warm up, the memory the peak resident set of that process. The peers are
not installed with the project: ``pip install torchio cornucopia`` (best into an environment of their own).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

GENERATORS = {
    "tissue": ("tissue ct", "tissue mri_t1"),
    "torchio": ("torchio labels", "torchio chain"),
    "cornucopia": ("cornucopia",),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=256, help="voxels along each axis")
    parser.add_argument("--spacing", type=float, default=1.5, help="mm per voxel")
    parser.add_argument("--body", default="parametric:torso", help="parametric:torso or parametric:head")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peers", nargs="*", default=["tissue"], choices=list(GENERATORS))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--map", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(measure(options.worker, Path(options.map), options.threads, options.repeats)))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "label_map.npz"
        save_label_map(path, options.body, options.size, options.spacing)
        rows = [run(name, path, options) for peer in options.peers for name in GENERATORS[peer]]
    if options.json:
        print(json.dumps({"size": options.size, "body": options.body, "threads": options.threads, "rows": rows}, indent=2))
    else:
        print(table(rows))


def save_label_map(path: Path, body: str, size: int, spacing: float) -> None:
    """A parametric body, labels and tissues, made once for all generators."""
    from ctmr_core.cases.label_maps import build_label_map

    label_map, _ = build_label_map(make_case(body, size, spacing, ("ct",)), None, 0)
    np.savez(
        path,
        voxels=label_map.voxels,
        tissues=label_map.tissues,
        affine=label_map.affine,
        vocabulary=label_map.vocabulary.name,
        body=body,
    )


def make_case(body: str, size: int, spacing: float, sequences: tuple[str, ...], seed: int = 0):
    from ctmr_core.cases.case import Case

    shape, mm = (size,) * 3, (spacing,) * 3
    return Case(case_id="benchmark", body=body, sequences=sequences, size=shape, spacing=mm, seed=seed)


def run(name: str, path: Path, options: argparse.Namespace) -> dict:
    """One generator in a process of its own; a peer that isn't installed becomes a row that says so."""
    module = name.split(maxsplit=1)[0]
    if module != "tissue" and importlib.util.find_spec(module) is None:
        return {"generator": name, "error": f"not installed: pip install {module}"}
    command = [sys.executable, __file__, "--worker", name, "--map", str(path)]
    command += ["--threads", str(options.threads), "--repeats", str(options.repeats)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        return {"generator": name, "error": (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]}
    return {"generator": name, **json.loads(done.stdout.strip().splitlines()[-1])}


def measure(name: str, path: Path, threads: int, repeats: int) -> dict:
    """Median wall-clock and processor seconds of one rendering, and peak resident memory of this process in GB."""
    import torch

    torch.set_num_threads(threads)
    stored = np.load(path)
    render = {"tissue": tissue, "torchio": torchio, "cornucopia": cornucopia}[name.split(maxsplit=1)[0]](name, stored, threads)
    render(0)
    walls, processors = [], []
    for turn in range(1, repeats + 1):
        wall, processor = time.perf_counter(), time.process_time()
        render(turn)
        walls.append(time.perf_counter() - wall)
        processors.append(time.process_time() - processor)
    return {
        "seconds": round(statistics.median(walls), 3),
        "processor_seconds": round(statistics.median(processors), 3),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
        "labels": len(np.unique(stored["voxels"])),
    }


def tissue(name: str, stored: np.lib.npyio.NpzFile, threads: int) -> Callable[[int], object]:
    """The whole engine: texture, vessels, blur, coloured noise, int16."""
    from ctmr_core.anatomy.label_map import LabelMap
    from ctmr_core.anatomy.vocabulary import load_vocabulary
    from ctmr_core.engines import load_engine

    label_map = LabelMap(stored["voxels"], stored["affine"], load_vocabulary(str(stored["vocabulary"])), stored["tissues"])
    engine = load_engine("tissue", threads=threads)
    sequence, body = name.split()[1], str(stored["body"])
    size, spacing = label_map.size[0], label_map.spacing[0]
    return lambda turn: engine.render(make_case(body, size, spacing, (sequence,), turn), label_map, 0)


def torchio(name: str, stored: np.lib.npyio.NpzFile, threads: int) -> Callable[[int], object]:  # noqa: ARG001
    """RandomLabelsToImage alone ("labels"), or with the blur, bias field and noise its documentation advises ("chain")."""
    import torch
    import torchio as tio

    labels = consecutive(stored["voxels"])
    subject = tio.Subject(label=tio.LabelMap(tensor=torch.from_numpy(labels)[None], affine=stored["affine"]))
    steps = [tio.RandomLabelsToImage(label_key="label", image_key="image")]
    if name.endswith("chain"):
        steps += [tio.RandomBlur(std=(0.6, 1.2)), tio.RandomBiasField(), tio.RandomNoise(std=(0, 0.1))]
    return lambda turn: tio.Compose(steps)(subject)  # noqa: ARG005


def cornucopia(name: str, stored: np.lib.npyio.NpzFile, threads: int) -> Callable[[int], object]:  # noqa: ARG001
    """SynthFromLabelTransform as it comes, interpolation of order 1."""
    import cornucopia as cc
    import torch

    labels = torch.from_numpy(consecutive(stored["voxels"]).astype(np.int64))[None]
    transform = cc.SynthFromLabelTransform(order=1)
    return lambda turn: transform(labels)  # noqa: ARG005


def consecutive(voxels: np.ndarray) -> np.ndarray:
    """Ids counted up without gaps, int32."""
    ids, index = np.unique(voxels, return_inverse=True)
    del ids
    return index.reshape(voxels.shape).astype(np.int32)


def table(rows: list[dict]) -> str:
    """Plain text: seconds, processor seconds, memory, and the ratio to the first row."""
    lines = [f"{'generator':18s} {'seconds':>9s} {'cpu s':>9s} {'peak GB':>8s} {'x first':>8s}"]
    first = next((row["seconds"] for row in rows if "seconds" in row), None)
    for row in rows:
        if "error" in row:
            lines.append(f"{row['generator']:18s} {row['error']}")
            continue
        ratio = row["seconds"] / first if first else float("nan")
        lines.append(
            f"{row['generator']:18s} {row['seconds']:9.2f} {row['processor_seconds']:9.2f} {row['peak_gb']:8.2f} {ratio:8.1f}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
