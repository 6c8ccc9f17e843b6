"""What the measures of a set cost: processor time and peak memory of each, at several numbers of volumes.

``python benchmarks/set_measures.py volumes [--cases 1000 10000]``  every measure over small volumes (32^3, CT and label map)
``python benchmarks/set_measures.py volumes --measures command --cases 100 1000 10000``  ``ctmr quality set`` itself, all measures
``python benchmarks/set_measures.py rows [--cases 100000 1000000]``  profile and drift of the catalog alone

Volumes are written and committed as a run writes them. Each measure runs in a process of its own; "over start" is its peak memory
less that of a process that has only imported and opened the dataset.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from scipy import ndimage

SIZE = (32, 32, 32)
UNIT = 1000
SCORES, LABELS = 60, 40


def table(header: list[str], rows: list[list[object]]) -> None:
    lines = [header, ["---"] * len(header), *rows]
    print("\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines), flush=True)


def make_volumes(folder: str, cases: int) -> None:
    """A sealed dataset of blobs; nothing needs to survive a power cut here."""
    from ctmr_core.anatomy.label_census import take_census
    from ctmr_core.anatomy.label_map import LabelMap
    from ctmr_core.anatomy.vocabulary import load_vocabulary
    from ctmr_core.cases.case import Case
    from ctmr_core.store import CommitRecord, Dataset, build_row, commit, new_attempt_id, seal, volume_path, write_volume

    os.fsync = lambda _: None  # type: ignore[assignment]
    vocabulary = load_vocabulary("maisi")
    ids = np.array(sorted(vocabulary.by_id), vocabulary.dtype)
    rng = np.random.default_rng(0)
    whole = ndimage.gaussian_filter(rng.standard_normal((96, 96, 96)), 3)
    dataset = Dataset.create(folder)
    refs = []
    for number in range(cases):
        case = Case.model_validate(
            {
                "case_id": f"case-{number:07d}",
                "body": "parametric:torso",
                "body_seed": number,
                "sequences": ("ct",),
                "size": SIZE,
                "spacing": (4.0, 4.0, 4.0),
            }
        )
        corner = rng.integers(0, 64, 3)
        field = whole[tuple(slice(c, c + 32) for c in corner)] * rng.choice([-1, 1])
        field = field + ndimage.zoom(rng.standard_normal((8, 8, 8)), 4, order=1) * whole.std()
        voxels = ids[np.clip((field / field.std() * 6 + 12).astype(int), 0, 30)]
        label_map = LabelMap(voxels, np.diag([4.0, 4.0, 4.0, 1.0]), vocabulary)
        images = {"ct": (field / field.std() * 100).astype(np.int16)}
        attempt = new_attempt_id()
        stored = write_volume(
            dataset.storage,
            volume_path(case.case_id, attempt),
            images=images,
            label_map=label_map,
            attributes={"case_id": case.case_id, "case_key": case.key},
        )
        row = build_row(case, label_map=label_map, census=take_census(label_map))
        commit(
            dataset.storage,
            CommitRecord.accepted(case.case_id, case.key, attempt=0, attempt_id=attempt, stored=stored, row=row),
        )
        refs.append((case.case_id, case.key))
        if len(refs) == UNIT or number == cases - 1:
            seal(dataset.storage, f"unit-{number}", refs)
            refs = []


def make_rows(folder: str, cases: int) -> None:
    """A dataset of catalog rows alone: 60 scores and 40 label volumes each."""
    from ctmr_core.store import Dataset
    from ctmr_core.store.catalog import SCHEMA, write_part

    rng = np.random.default_rng(0)
    dataset = Dataset.create(folder)
    for start in range(0, cases, 50_000):
        count = min(50_000, cases - start)
        numbers = range(start, start + count)
        ids = [f"case-{number:07d}" for number in numbers]
        scores = pa.MapArray.from_arrays(
            np.arange(0, count * SCORES + 1, SCORES, dtype=np.int32),
            pa.array([f"check/score_{i:02d}" for i in range(SCORES)]).take(pa.array(np.tile(np.arange(SCORES), count))),
            pa.array(rng.normal(50, 10, count * SCORES).round(3)),
        )
        offsets = pa.array(np.arange(0, count * LABELS + 1, LABELS, dtype=np.int32))
        columns: dict[str, Any] = {
            "case_id": ids,
            "case_key": [hashlib.sha256(name.encode()).hexdigest() for name in ids],
            "status": ["accepted"] * count,
            "body": ["parametric:torso"] * count,
            "body_identity": [f"parametric:torso:{number}" for number in numbers],
            "split": ["train"] * count,
            "engine": ["tissue"] * count,
            "center": ["abdomen"] * count,
            "vocabulary": ["maisi"] * count,
            "sequences": [["ct"]] * count,
            "spacing": [[1.5, 1.5, 3.0]] * count,
            "lesions": [[]] * count,
            "content_digest": ids,
            "scores": scores,
            "label_ids": pa.ListArray.from_arrays(offsets, pa.array(np.tile(np.arange(1, LABELS + 1, dtype=np.int32), count))),
            "label_volumes_ml": pa.ListArray.from_arrays(offsets, pa.array(rng.gamma(9, 20, count * LABELS).round(3))),
        }
        arrays = [
            columns[field.name]
            if isinstance(columns.get(field.name), pa.Array)
            else pa.array(columns.get(field.name, [None] * count), field.type)
            for field in SCHEMA
        ]
        write_part(dataset.storage, f"unit-{start}", pa.table(arrays, schema=SCHEMA))


def measured(task: Callable[[str, str], None], folder: str, other: str) -> tuple[float, float, float]:
    """Processor seconds, seconds and peak MB of ``task`` in a process of its own."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_child, args=(task, folder, other, there))
    process.start()
    found = here.recv()
    process.join()
    return tuple(found)  # type: ignore[return-value]


def _child(task: Callable[[str, str], None], folder: str, other: str, answers: Any) -> None:
    clock = time.perf_counter()
    task(folder, other)
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu = sum(usage.ru_utime + usage.ru_stime for usage in used)
    answers.send((cpu, time.perf_counter() - clock, max(usage.ru_maxrss for usage in used) / 1024))


def nothing(folder: str, _: str) -> None:
    import monai.metrics  # noqa: F401
    import scipy.stats  # noqa: F401

    import ctmr_core.assessment.set_measures  # noqa: F401
    from ctmr_core.store import Dataset

    len(Dataset.open(folder))


def _measure(folder: str, measure: str, reference: str = "") -> None:
    from ctmr_core.assessment.set_measures import SetOptions, measure_set
    from ctmr_core.store import Dataset

    nothing(folder, "")
    measure_set(Dataset.open(folder), SetOptions((measure,), None, reference, pairs=200))


def profile(folder: str, _: str) -> None:
    _measure(folder, "profile")


def duplicates(folder: str, _: str) -> None:
    _measure(folder, "duplicates")


def frechet(folder: str, other: str) -> None:
    _measure(folder, "frechet", other)


def diversity(folder: str, _: str) -> None:
    _measure(folder, "diversity")


def command(folder: str, other: str) -> None:
    """The command as a person runs it, over all volumes."""
    asked = ["quality", "set", folder, "--reference", other, "--sample", "0", "--workers", "1", "--json"]
    program = [sys.executable, "-c", "from pipelines.cli.main import main; main()"]
    done = subprocess.run([*program, *asked], stdout=subprocess.PIPE, check=False)
    found = json.loads(done.stdout)  # its exit code tells of duplicates, not of errors
    if found["measures"]["duplicates"]["cases"] != found["cases"]:
        raise RuntimeError("not every volume was read")


def drift(folder: str, other: str) -> None:
    from ctmr_core.assessment.drift import drift as compare
    from ctmr_core.store import Dataset

    nothing(folder, "")
    compare(Dataset.open(folder), Dataset.open(other))


def run(make: Callable[[str, int], None], tasks: list[Callable[[str, str], None]], sizes: list[int]) -> None:
    rows: list[list[object]] = []
    with tempfile.TemporaryDirectory() as root:
        other = str(Path(root) / "reference")
        make(other, min(200, *sizes))
        for cases in sizes:
            folder = str(Path(root) / f"set-{cases}")
            make(folder, cases)
            start = measured(nothing, folder, other)
            for task in tasks:
                cpu, clock, peak = measured(task, folder, other)
                cpu -= start[0]
                cells = (f"{cpu:.1f}", f"{1000 * cpu / cases:.2f}", f"{clock:.0f}", f"{peak - start[2]:.0f}", f"{peak:.0f}")
                rows.append([task.__name__, f"{cases:,}", *cells])
                print(*rows[-1], sep=" | ", flush=True)
    print()
    table(["measure", "cases", "cpu s", "cpu ms a case", "s", "MB over start", "peak MB"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["volumes", "rows"])
    parser.add_argument("--cases", type=int, nargs="+")
    tasks = {task.__name__: task for task in (profile, duplicates, frechet, diversity, drift, command)}
    parser.add_argument("--measures", nargs="+", choices=list(tasks))
    given = parser.parse_args()
    usual = ["profile", "duplicates", "frechet", "diversity"] if given.what == "volumes" else ["profile", "drift"]
    chosen = [tasks[name] for name in given.measures or usual]
    if given.what == "volumes":
        run(make_volumes, chosen, given.cases or [1000, 10_000])
    else:
        run(make_rows, chosen, given.cases or [100_000, 1_000_000])


if __name__ == "__main__":
    main()
