"""What the factory itself costs, and what it survives. Every sub-command prints a Markdown table.

``python benchmarks/scale.py overhead [--cases 1000 10000]``  time and memory per case beside the making of volumes
``python benchmarks/scale.py collateral``  40 rows, one of which raises or kills its process: this factory beside Ray's own tools
``python benchmarks/scale.py workers [--cases 16]``  two workers beside one, one thread each
``python benchmarks/scale.py recovery``  kill -9 of a worker to its next commit
``python benchmarks/scale.py storage [--size 128]``  objects and bytes per case, MB/s beside nibabel's .nii.gz

``python benchmarks/scale.py line [--cases 1000]``  one worker in one process, without Ray and Prefect: processor time per case

Cases of the engine ``blocks`` (16^3 voxels) cost next to nothing, so that what is left is the factory's. Wall-clock figures
need a quiet machine; ``cpu`` columns are processor seconds and bear with a busy one.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from ctmr_core.cases.case import Case
from ctmr_core.cases.manifest import Manifest
from ctmr_core.quality.registry import check_names

ROWS, BAD_ROW, ROW_SECONDS = 40, 17, 0.05
GIVE_UP_SECONDS = 75.0
CHECKS = ("geometry", "labels", "finite", "constant", "clipped")  # of form; boxes have no anatomy to check


def blocks_case(number: int, **changes: object) -> Case:
    fields: dict[str, object] = {
        "case_id": f"case-{number:07d}",
        "body": "generated:blocks",
        "body_seed": number,
        "sequences": ("ct",),
        "size": (16, 16, 16),
        "spacing": (4.0, 4.0, 4.0),
        "engine": "blocks",
        "checks": {name: False for name in check_names() if name not in CHECKS},
    }
    return Case.model_validate(fields | changes)


def table(header: list[str], rows: list[list[object]]) -> None:
    lines = [header, ["---"] * len(header), *rows]
    print("\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines))


def generate(cases: list[Case], folder: Path, observer: Callable[[Any], None] | None = None, **changes: object) -> Any:
    """The summary of a run over ``cases`` in ``folder``/out."""
    from pipelines.flows.generate_dataset import run_generate_dataset
    from pipelines.flows.options import GenerateOptions

    folder.mkdir(parents=True, exist_ok=True)
    manifest = folder / "cases.parquet"
    Manifest.from_cases(cases).write(manifest)
    options = GenerateOptions.model_validate({"manifest": str(manifest), "dataset": str(folder / "out"), "workers": 2, **changes})
    return run_generate_dataset(options, observer)


def overhead(sizes: list[int], workers: int) -> None:
    from ctmr_core.store.runs import read_runs
    from ctmr_core.store.storage import open_storage

    rows: list[list[object]] = []
    for cases in sizes:
        with tempfile.TemporaryDirectory() as folder:
            memory: list[int] = []
            shared: list[int] = []
            cpu: list[float] = []

            def observe(_: Any, memory: list[int] = memory, shared: list[int] = shared, cpu: list[float] = cpu) -> None:
                found = psutil.Process().memory_info()
                memory.append(found.rss - found.shared)
                shared.append(found.shared)
                cpu.append(time.process_time())

            summary = generate([blocks_case(i) for i in range(cases)], Path(folder), observe, workers=workers)
            (record,) = read_runs(open_storage(Path(folder) / "out"))
            if summary.accepted != cases:
                raise SystemExit(f"not every case was made: {summary}")
            making = sum(record.stages[stage] for stage in ("body", "render", "check")) / workers
            wall = record.making_seconds
            ms = {stage: f"{1e3 * seconds / cases:.2f}" for stage, seconds in record.stages.items()}
            rows.append(
                [
                    f"{cases:,}",
                    f"{1e3 * wall / cases:.2f}",
                    f"{1e3 * (wall - making) / cases:.2f}",
                    f"{1e3 * (cpu[-1] - cpu[0]) / cases:.2f}",
                    *(ms[stage] for stage in ("body", "render", "check", "write", "commit", "seal")),
                    _course(memory),
                    _course(shared),
                    record.waves,
                ]
            )
    memory_columns = ["driver MB of its own (begin, thirds, end; most)", "mapped MB (libraries, Ray's object store)"]
    head = ["cases", "wall ms/case", "without body, render, check", "driver cpu ms/case"]
    table([*head, "body", "render", "check", "write", "commit", "seal (ms of a worker)", *memory_columns, "Prefect waves"], rows)


def _course(sizes: list[int]) -> str:
    """Megabytes at the beginning, after each third of the time, and at most."""
    last = len(sizes) - 1
    course = ", ".join(f"{sizes[last * third // 3] / 1e6:.0f}" for third in range(4))
    return f"{course}; {max(sizes) / 1e6:.0f}"


def line(cases: int) -> None:
    """One worker's processor time per case, in this process, without Ray and Prefect."""
    from pipelines.factory.production import Workshop
    from pipelines.factory.work import ActorSettings, in_units
    from pipelines.flows.options import GenerateOptions
    from pipelines.flows.preparation import prepare

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        Manifest.from_cases([blocks_case(i) for i in range(cases)]).write(folder / "cases.parquet")
        options = GenerateOptions(manifest=str(folder / "cases.parquet"), dataset=str(folder / "out"))
        with prepare(options) as backlog:
            workshop = Workshop(ActorSettings(options.dataset))
            units = list(in_units(backlog.cases(), 100))
            workshop.make_unit(units[0], threading.Event())
            cpu, wall = time.process_time(), time.perf_counter()
            stages: dict[str, float] = {}
            made = 0
            for unit in units[1:]:
                report = workshop.make_unit(unit, threading.Event())
                made += len(report.outcomes)
                stages["seal"] = stages.get("seal", 0.0) + report.seal_seconds
                for outcome in report.outcomes:
                    for stage, seconds in outcome.stages.items():
                        stages[stage] = stages.get(stage, 0.0) + seconds
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            workshop.close()
    names = ("body", "render", "check", "write", "commit", "seal")
    figures = [f"{1e3 * stages[name] / made:.2f}" for name in names]
    table(
        ["cases", "wall ms/case", "cpu ms/case", *names],
        [[made, f"{1e3 * wall / made:.2f}", f"{1e3 * cpu / made:.2f}", *figures]],
    )


def make_row(row: int, fault: str) -> int:
    """What Ray's own tools are given: a row takes 50 ms; the bad one raises or ends its process."""
    time.sleep(ROW_SECONDS)
    if row == BAD_ROW:
        if fault == "raise":
            raise ValueError("a bad row")
        os._exit(66)
    return row


def with_ray_data(fault: str, answer: Any) -> None:
    import ray
    import ray.data

    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().max_errored_blocks = -1

    class Maker:
        def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            return {"id": np.array([make_row(int(row), fault) for row in batch["id"]])}

    rows = ray.data.range(ROWS, override_num_blocks=4).map_batches(
        Maker, batch_size=1, compute=ray.data.ActorPoolStrategy(size=2), num_cpus=1
    )
    for row in rows.iter_rows():
        answer.put(int(row["id"]))


def with_actor_pool(fault: str, answer: Any) -> None:
    import ray
    from ray.util import ActorPool

    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)

    @ray.remote
    class Maker:
        def make(self, row: int) -> int:
            return make_row(row, fault)

    pool = ActorPool([Maker.remote() for _ in range(2)])
    for row in range(ROWS):
        pool.submit(lambda actor, row: actor.make.remote(row), row)
    while pool.has_next():
        try:
            answer.put(pool.get_next_unordered(timeout=GIVE_UP_SECONDS))
        except ray.exceptions.RayError as error:
            print(f"<!-- ActorPool: {type(error).__name__} -->")


def with_factory(fault: str, answer: Any) -> None:
    with tempfile.TemporaryDirectory() as name:
        drill = Path(name) / "drill.json"
        drill.write_text(json.dumps({f"case-{BAD_ROW:07d}": {"*": "raise" if fault == "raise" else "exit"}}))
        os.environ["CTMR_FAULTS"] = str(drill)
        generate([blocks_case(i, engine_parameters={"seconds": ROW_SECONDS}) for i in range(ROWS)], Path(name))
        from ctmr_core.store import Dataset

        for case_id in Dataset.open(Path(name) / "out"):
            answer.put(case_id)


def collateral() -> None:
    spawn = multiprocessing.get_context("spawn")
    rows: list[list[object]] = []
    tools = {
        "this factory": with_factory,
        "ray.data, actor pool of 2": with_ray_data,
        "ray.util.ActorPool, 2 actors": with_actor_pool,
    }
    for fault in ("raise", "exit"):
        for tool, target in tools.items():
            answer = spawn.Queue()
            process = spawn.Process(target=target, args=(fault, answer))
            start = time.monotonic()
            process.start()
            delivered = 0
            while process.is_alive() and time.monotonic() - start < GIVE_UP_SECONDS:
                delivered += _drain(answer)
                process.join(0.1)
            seconds = time.monotonic() - start
            delivered += _drain(answer)
            ended = not process.is_alive()
            for child in psutil.Process(process.pid).children(recursive=True) if not ended else ():
                child.kill()
            process.kill()
            process.join()
            outcome = f"{seconds:.0f} s" if ended else f"never: stopped after {seconds:.0f} s"
            rows.append(["raises" if fault == "raise" else "ends its process", tool, f"{delivered} of {ROWS}", outcome])
    table(["one row of 40", "tool", "rows delivered", "time, start of Ray included"], rows)


def _drain(answer: Any) -> int:
    count = 0
    while not answer.empty():
        answer.get()
        count += 1
    return count


def workers(cases: int, size: int) -> None:
    from ctmr_core.store.runs import read_runs
    from ctmr_core.store.storage import open_storage

    planned = [
        blocks_case(i, body="parametric:torso", engine="tissue", checks={}, size=(size, size, size), spacing=(320 / size,) * 3)
        for i in range(cases)
    ]
    rows: list[list[object]] = []
    rates: list[float] = []
    for count in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            summary = generate(planned, Path(folder), workers=count, threads=1)
            (record,) = read_runs(open_storage(Path(folder) / "out"))
        rates.append(summary.volumes_per_minute)
        shares = ", ".join(f"{stage} {seconds / record.worker_seconds:.0%}" for stage, seconds in sorted(record.stages.items()))
        peak = max(worker.peak_bytes for worker in record.fleet) / 1e9
        rows.append([count, f"{rates[-1]:.1f}", f"{record.efficiency:.0%}", f"{rates[-1] / rates[0]:.2f}", f"{peak:.2f}", shares])
    table(["workers", "volumes/min", "efficiency", "times one worker", "peak GB of a worker", "share of the workers' time"], rows)


def recovery(repeats: int) -> None:
    seconds: list[float] = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            killed: list[float] = []

            def observe(progress: Any, killed: list[float] = killed) -> None:
                if progress.accepted >= 10 and not killed:
                    for process in _actors():
                        process.kill()
                    killed.append(time.time())

            generate([blocks_case(i, engine_parameters={"seconds": 0.2}) for i in range(40)], folder, observe, workers=1)
            commits = sorted(path.stat().st_mtime for path in (folder / "out" / "commits").rglob("*.json"))
            seconds.append(next(moment for moment in commits if moment > killed[0]) - killed[0])
    table(["kill -9 of the only worker", "seconds"], [["to the next commit, median", f"{statistics.median(seconds):.1f}"]])


def _actors() -> Iterator[psutil.Process]:
    for process in psutil.Process().children(recursive=True):
        try:
            if any("CaseMaker" in part for part in process.cmdline()):
                yield process
        except psutil.Error:
            continue


def storage(size: int, repeats: int) -> None:
    import nibabel as nib
    from store import make_case

    from ctmr_core.store import open_storage, write_volume

    image, label_map = make_case(size)
    raw = (image.nbytes + label_map.voxels.nbytes) / 1e6
    rows: list[list[object]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        target = open_storage(folder / "set", make=True)

        def ours(turn: int) -> tuple[int, int]:
            stored = write_volume(target, f"volumes/v{turn}", images={"ct": image}, label_map=label_map, attributes={})
            return len(stored.objects), stored.bytes

        def nifti(turn: int) -> tuple[int, int]:
            paths = [folder / f"{turn}-{kind}.nii.gz" for kind in ("ct", "labels")]
            for path, voxels in zip(paths, (image, label_map.voxels), strict=True):
                nib.save(nib.Nifti1Image(np.asfortranarray(voxels), label_map.affine), path)
            return len(paths), sum(path.stat().st_size for path in paths)

        for tool, write in (("this store (fsync included)", ours), (".nii.gz, nibabel", nifti)):
            cpu, wall = [], []
            for turn in range(repeats):
                before = time.process_time(), time.perf_counter()
                objects, size_bytes = write(turn)
                cpu.append(time.process_time() - before[0])
                wall.append(time.perf_counter() - before[1])
            speed = [f"{raw / statistics.median(times):.0f}" for times in (wall, cpu)]
            rows.append([tool, objects, f"{size_bytes / 1e6:.2f}", *speed])
    print(f"CT and label map of {size}^3 voxels, {raw:.1f} MB, one thread, median of {repeats}\n")
    table(["written by", "objects", "MB stored", "MB/s", "MB per cpu second"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("overhead")
    one.add_argument("--cases", type=int, nargs="+", default=[1_000, 10_000])
    one.add_argument("--workers", type=int, default=2)
    one = commands.add_parser("line")
    one.add_argument("--cases", type=int, default=1_000)
    commands.add_parser("collateral")
    one = commands.add_parser("workers")
    one.add_argument("--cases", type=int, default=16)
    one.add_argument("--size", type=int, default=96)
    one = commands.add_parser("recovery")
    one.add_argument("--repeats", type=int, default=3)
    one = commands.add_parser("storage")
    one.add_argument("--size", type=int, default=128)
    one.add_argument("--repeats", type=int, default=5)
    arguments = vars(parser.parse_args())
    command = arguments.pop("command")
    if command == "overhead":
        arguments["sizes"] = arguments.pop("cases")
    runs: dict[str, Callable[..., None]] = {
        "overhead": overhead,
        "line": line,
        "collateral": collateral,
        "workers": workers,
        "recovery": recovery,
        "storage": storage,
    }
    runs[command](**arguments)


if __name__ == "__main__":
    main()
