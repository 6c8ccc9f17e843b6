"""A dataset of N committed cases without voxels: how long its catalog takes to open, search, compare and resume from.

python benchmarks/catalog.py [CASES] [--folder FOLDER] [--json FILE]          default 1,000,000

Rows are as large as those of a chest: 24 labels with counts, boxes, centroids and eight coordinates each, ten stored objects with
their digests, 13 scores. They are sealed in units of 64 and compacted as during a run. A sample of cases is committed one by
one through ``commit`` and ``seal``; of the others the rows are made in batches and their commit records are empty files of the
right names, which is all that anything measured here looks at. Every measurement runs in a process of its own, with one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

UNIT = 64
SAMPLE = 1_024
BATCH = 8_192
LABELS, OBJECTS = 24, 10
RECIPE = Path(__file__).resolve().parent.parent / "manifests" / "demo.yaml"
SCORES = tuple(f"check{i}/score" for i in range(13))


def heavy_columns(rows: int, rng: np.random.Generator) -> dict[str, pa.Array]:
    """Random values of the columns that make a row large."""
    labels = rows * LABELS
    boxes = rng.integers(0, 512, (labels, 6), np.int32)
    hexes = rng.bytes(rows * OBJECTS * 32).hex()
    return {
        "affine": fixed(np.tile(np.diag([1.5, 1.5, 3.0, 1.0]).reshape(-1), rows), 16, pa.float64()),
        "label_ids": lists(np.tile(np.arange(1, 2 * LABELS, 2, dtype=np.int32), rows), LABELS),
        "label_voxels": lists(rng.integers(100, 2_000_000, labels), LABELS),
        "label_volumes_ml": lists(rng.gamma(2.0, 50.0, labels), LABELS),
        "label_boxes": lists_of(fixed(boxes.reshape(-1), 6, pa.int32()), LABELS),
        "label_centroids": lists_of(fixed(rng.uniform(-200, 200, labels * 3), 3, pa.float64()), LABELS),
        "label_samples": lists_of(lists_of(fixed(rng.integers(0, 512, labels * 24, np.int32), 3, pa.int32()), 8), LABELS),
        "image_parameters": pa.array([f'{{"ct": {{"kV": 120, "noise": {v:.6f}}}}}' for v in rng.random(rows)]),
        "scores": maps(SCORES, rng.random(rows * len(SCORES))),
        "objects": lists_of(
            pa.StructArray.from_arrays(
                [
                    pa.array([f"ct/0/c.0.0.{i}" for i in range(OBJECTS)] * rows),
                    pa.array(rng.integers(300, 9_000_000, rows * OBJECTS)),
                    pa.array([hexes[i : i + 64] for i in range(0, len(hexes), 64)]),
                ],
                names=["name", "bytes", "sha256"],
            ),
            OBJECTS,
        ),
    }


def lists(values: np.ndarray, length: int) -> pa.Array:
    return lists_of(pa.array(values), length)


def lists_of(values: pa.Array, length: int) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(np.arange(0, len(values) + 1, length, dtype=np.int32)), values)


def fixed(values: np.ndarray, length: int, kind: pa.DataType) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(values, kind), length)


def maps(names: tuple[str, ...], values: np.ndarray) -> pa.Array:
    rows = len(values) // len(names)
    offsets = pa.array(np.arange(0, len(values) + 1, len(names), dtype=np.int32))
    return pa.MapArray.from_arrays(offsets, pa.array(list(names) * rows), pa.array(values))


def hex_column(rows: int, digits: int, rng: np.random.Generator) -> pa.Array:
    text = rng.bytes(rows * digits // 2).hex()
    return pa.array([text[i : i + digits] for i in range(0, len(text), digits)])


def catalog_rows(planned: pa.Table, rng: np.random.Generator) -> pa.Table:
    """Catalog rows of planned cases: one in a hundred rejected, the others with a volume."""
    from ctmr_core.store.catalog import SCHEMA
    from ctmr_core.store.layout import volume_path

    rows = planned.num_rows
    accepted = rng.random(rows) >= 0.01
    attempts = hex_column(rows, 32, rng).to_pylist()
    paths = [volume_path(*pair) for pair in zip(planned["case_id"].to_pylist(), attempts, strict=True)]
    columns: dict[str, Any] = {
        **heavy_columns(rows, rng),
        "status": pa.array(np.where(accepted, "accepted", "rejected")),
        "attempt": pa.array((~accepted * 2).astype(np.int32)),
        "body_identity": pa.array([f"parametric:torso:{i}" for i in rng.integers(0, 1 << 40, rows)]),
        "vocabulary": pa.array(["maisi"] * rows),
        "volume": pa.array([path if ok else None for path, ok in zip(paths, accepted, strict=True)], pa.string()),
        "bytes": pa.array(np.where(accepted, rng.integers(5_000_000, 40_000_000, rows), 0)),
        "voxel_digest": hex_column(rows, 64, rng),
        "content_digest": hex_column(rows, 64, rng),
        "engine_version": pa.array(["1"] * rows),
        "host": pa.array([f"node-{i}" for i in rng.integers(0, 64, rows)]),
        "finished_at": pa.array(
            [f"2026-01-01T{i // 3600:02d}:{i // 60 % 60:02d}:{i % 60:02d}+00:00" for i in rng.integers(0, 86400, rows)]
        ),
    }
    columns["sequence_set"] = pc.binary_join(planned["sequences"], "+").combine_chunks()
    for name in planned.column_names:
        columns[name] = planned[name].combine_chunks()
    arrays = [columns[field.name].cast(field.type) if field.name in columns else pa.nulls(rows, field.type) for field in SCHEMA]
    return pa.table(arrays, schema=SCHEMA)


def make(folder: Path, cases: int) -> dict[str, Any]:
    """The dataset: manifest, commit names, sealed units, compaction whenever it is due."""
    from ctmr_core.cases.planner import plan
    from ctmr_core.cases.recipe import load_recipe
    from ctmr_core.store import Dataset, catalog, compaction
    from ctmr_core.store.layout import commit_name

    manifest = plan(load_recipe(RECIPE).scaled_to(cases))
    manifest.write(folder / "manifest.parquet")
    table = manifest.table.append_column("case_key", pa.array(manifest.case_keys()))
    begin = usage()
    dataset = Dataset.create(folder / "dataset", table)
    adopted = usage() - begin
    root, storage = folder / "dataset", dataset.storage
    for fan in range(256):
        (root / "commits" / f"{fan:02x}").mkdir(parents=True)
    rng = np.random.default_rng(0)
    spent = {"seal": 0.0, "compact": 0.0}
    most_files = 0
    commit_sample(dataset, table.slice(0, SAMPLE), rng)
    for start in range(SAMPLE, cases, BATCH):
        batch = catalog_rows(table.slice(start, BATCH), rng)
        for case_id, key in zip(batch["case_id"].to_pylist(), batch["case_key"].to_pylist(), strict=True):
            (root / commit_name(case_id, key)).touch()
        for unit in range(0, batch.num_rows, UNIT):
            begin = usage()
            catalog.write_part(storage, f"{start + unit:08d}", batch.slice(unit, UNIT).combine_chunks())
            spent["seal"] += usage() - begin
            if unit // UNIT % 32 == 0:
                begin = usage()
                compaction.compact_if_due(storage)
                spent["compact"] += usage() - begin
                most_files = max(most_files, sum(1 for _ in (root / "catalog").iterdir()))
    begin = usage()
    compaction.compact(storage)
    return {
        "adopt_cpu_s": adopted,
        "seal_cpu_s": spent["seal"],
        "compact_cpu_s": spent["compact"],
        "last_compact_cpu_s": usage() - begin,
        "most_catalog_files": most_files,
        "catalog_files": len(catalog.catalog_state(storage).parts),
        "catalog_bytes": sum(path.stat().st_size for path in (root / "catalog").glob("*.parquet")),
    }


def commit_sample(dataset: Any, planned: pa.Table, rng: np.random.Generator) -> None:
    """Commit and seal cases the way an actor does, one record each."""
    from ctmr_core.store import CommitRecord, catalog, commit
    from ctmr_core.store.commits import ObjectDigest

    filled = ("status", "attempt", "volume", "bytes", "objects", "case_id", "case_key", "voxel_digest", "content_digest")
    for row in catalog_rows(planned, rng).to_pylist(maps_as_pydicts="strict"):
        record = CommitRecord(
            attempt_id="0" * 32,
            objects=tuple(ObjectDigest(**entry) for entry in row["objects"]) if row["volume"] else (),
            row={name: value for name, value in row.items() if name not in filled},
            **{name: row[name] for name in filled if name not in ("objects", "bytes")},
        )
        commit(dataset.storage, record)
    refs = list(zip(planned["case_id"].to_pylist(), planned["case_key"].to_pylist(), strict=True))
    for start in range(0, len(refs), UNIT):
        catalog.seal(dataset.storage, f"sample-{start:05d}", refs[start : start + UNIT])


def usage() -> float:
    """Processor seconds of this process."""
    return time.process_time()


def measured(work: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """What the work returned, and its processor and clock seconds."""
    clock, cpu = time.perf_counter(), usage()
    result = work()
    return result, {"cpu_s": usage() - cpu, "wall_s": time.perf_counter() - clock}


def _open(folder: Path) -> Any:
    from ctmr_core.store import Dataset

    return Dataset.open(folder / "dataset")


def measure_open(folder: Path) -> dict[str, Any]:
    _, found = measured(lambda: len(_open(folder)))
    return found


def measure_resume(folder: Path) -> dict[str, Any]:
    from ctmr_core.store import resume

    manifest = read_plan(folder)
    found, figures = measured(lambda: resume(_open(folder), manifest))
    return {**figures, "done": found.done, "to_do": len(found.todo)}


def measure_resume_nothing_done(folder: Path) -> dict[str, Any]:
    from ctmr_core.store import Dataset, resume

    manifest = read_plan(folder)
    with tempfile.TemporaryDirectory(dir=folder) as empty:
        dataset = Dataset.create(empty)
        found, figures = measured(lambda: resume(dataset, manifest))
    return {**figures, "to_do": len(found.todo)}


def measure_adopt_second_manifest(folder: Path) -> dict[str, Any]:
    """A manifest of a tenth as many new cases, adopted by a copy of the plan."""
    from ctmr_core.store import Dataset

    manifest = read_plan(folder)
    more = manifest.slice(0, manifest.num_rows // 10)
    more = more.set_column(0, "case_id", pc.binary_join_element_wise("more", more["case_id"], "-"))
    keys = hex_column(more.num_rows, 64, np.random.default_rng(1))
    more = more.set_column(more.column_names.index("case_key"), "case_key", keys)
    with tempfile.TemporaryDirectory(dir=folder) as copy:
        dataset = Dataset.create(copy, manifest)
        del manifest
        _, figures = measured(lambda: dataset.adopt(more))
        rows = dataset.manifest.num_rows
    return {**figures, "rows": rows}


def read_plan(folder: Path) -> pa.Table:
    import pyarrow.parquet as pq

    return pq.read_table(folder / "dataset" / "manifest.parquet")


def measure_status(folder: Path) -> dict[str, Any]:
    from ctmr_core.store import status

    counts, figures = measured(lambda: status(_open(folder)))
    return {**figures, "accepted": counts["accepted"], "unsealed": counts["unsealed"]}


def measure_filter_first_rows(folder: Path) -> dict[str, Any]:
    """Ten whole rows of the cases with four MR sequences, after opening."""
    import pyarrow.dataset as pads

    dataset = _open(folder)
    len(dataset)
    expression = pads.field("sequence_set") == "mri_t1+mri_t2+mri_flair+mri_swi"
    rows, figures = measured(lambda: dataset.catalog.head(10, filter=expression, batch_readahead=1, fragment_readahead=1))
    return {**figures, "rows": rows.num_rows}


def measure_filter_case_ids(folder: Path) -> dict[str, Any]:
    """All columns of a hundred neighbouring case ids."""
    import pyarrow.dataset as pads

    dataset = _open(folder)
    ids = read_plan(folder)["case_id"]
    middle = ids.slice(len(ids) // 2, 100)
    expression = (pads.field("case_id") >= middle[0]) & (pads.field("case_id") <= middle[-1])
    rows, figures = measured(lambda: dataset.catalog.to_table(filter=expression))
    return {**figures, "rows": rows.num_rows}


def measure_look_up(folder: Path) -> dict[str, Any]:
    """Rows and volumes of cases drawn at random, after the first one."""
    dataset = _open(folder)
    ids = read_plan(folder)["case_id"]
    rng = np.random.default_rng(2)
    chosen = [str(ids[int(i)]) for i in rng.integers(0, len(ids), 400)]
    chosen = [case_id for case_id in chosen if case_id in dataset]
    _, first = measured(lambda: (dataset.row(chosen[0]), dataset[chosen[0]]))
    _, rows = measured(lambda: [dataset.row(case_id) for case_id in chosen[1:101]])
    _, volumes = measured(lambda: [dataset[case_id] for case_id in chosen[1:101]])
    return {"first_cpu_s": first["cpu_s"], "row_cpu_ms": rows["cpu_s"] * 10, "volume_cpu_ms": volumes["cpu_s"] * 10}


def measure_snapshot(folder: Path) -> dict[str, Any]:
    from ctmr_core.store import create_snapshot

    snapshot, figures = measured(lambda: create_snapshot(_open(folder), "all"))
    return {**figures, "cases": snapshot.cases, "files": len(snapshot.rows_files)}


def measure_second_snapshot(folder: Path) -> dict[str, Any]:
    """All cases but one."""
    import pyarrow.dataset as pads

    from ctmr_core.store import create_snapshot

    lost = str(read_plan(folder)["case_id"][-1])
    snapshot, figures = measured(lambda: create_snapshot(_open(folder), "all-but-one", filter=pads.field("case_id") != lost))
    return {**figures, "cases": snapshot.cases}


def measure_open_snapshot(folder: Path) -> dict[str, Any]:
    from ctmr_core.store import Dataset

    _, figures = measured(lambda: len(Dataset.open(folder / "dataset", "all")))
    return figures


def measure_diff(folder: Path) -> dict[str, Any]:
    from ctmr_core.store import diff_snapshots, read_snapshot

    storage = _open(folder).storage
    found, figures = measured(lambda: diff_snapshots(read_snapshot(storage, "all"), read_snapshot(storage, "all-but-one")))
    return {**figures, "removed": len(found.removed)}


def run_ctmr(*arguments: str) -> dict[str, Any]:
    begin, clock = os.times(), time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", "from pipelines.cli.main import main; main()", *arguments], check=True, stdout=subprocess.DEVNULL
    )
    end = os.times()
    cpu = end.children_user + end.children_system - begin.children_user - begin.children_system
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    return {"cpu_s": cpu, "wall_s": time.perf_counter() - clock, "command_peak_gb": peak}


def measure_ctmr_plan(folder: Path) -> dict[str, Any]:
    from ctmr_core.cases.recipe import load_recipe

    recipe = load_recipe(RECIPE).scaled_to(read_plan(folder).num_rows)
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(recipe.model_dump(mode="json", exclude_none=True)))
    return run_ctmr("plan", str(path), "--out", str(folder / "planned.parquet"))


def measure_ctmr_validate(folder: Path) -> dict[str, Any]:
    return run_ctmr("validate", str(folder / "manifest.parquet"))


def measure_ctmr_status(folder: Path) -> dict[str, Any]:
    return run_ctmr("status", str(folder / "dataset"), "--json")


MEASUREMENTS = {name.removeprefix("measure_"): work for name, work in list(globals().items()) if name.startswith("measure_")}


def in_own_process(folder: Path, name: str, cases: int) -> dict[str, Any]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_THREAD_LIMIT": "1"}
    command = [sys.executable, __file__, str(cases), "--folder", str(folder), "--step", name]
    answer = subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(answer.stdout))


def step(folder: Path, name: str, cases: int) -> dict[str, Any]:
    pa.set_cpu_count(1)
    work: Callable[..., dict[str, Any]] = MEASUREMENTS.get(name, make)
    figures = work(folder, cases) if name == "make" else work(folder)
    return {**figures, "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6}


def lines(name: str, figures: dict[str, Any]) -> Iterator[str]:
    shown = (f"{what} {value:.3g}" if isinstance(value, float) else f"{what} {value:,}" for what, value in figures.items())
    yield f"{name:<24}" + "   ".join(shown)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="?", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="keep the dataset here, or measure the one that is here")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    parser.add_argument("--step", help="one measurement, as JSON on stdout")
    parser.add_argument("--only", help="measurements whose name contains this")
    given = parser.parse_args()
    if given.step:
        print(json.dumps(step(given.folder, given.step, given.cases)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        names = [name for name in MEASUREMENTS if not given.only or given.only in name]
        if not (folder / "dataset").exists():
            names.insert(0, "make")
        figures = {}
        for name in names:
            figures[name] = in_own_process(folder, name, given.cases)
            for line in lines(name, figures[name]):
                print(line, flush=True)
    if given.json:
        given.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
