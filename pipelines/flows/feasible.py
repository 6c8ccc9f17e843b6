"""Plan before run: what a run will take, and whether it can fit where it is to run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ctmr_core.anatomy.templates.library import TemplateLibrary
from ctmr_core.cases.manifest import Manifest, read_manifest
from ctmr_core.engines import body_digest, engine_identity
from ctmr_core.errors import CtmrError, StoreError
from ctmr_core.store import Dataset
from ctmr_core.store.resume import resume
from ctmr_core.store.runs import read_runs
from ctmr_core.store.storage import Storage
from pipelines.factory.activity import memory_of_machine
from pipelines.factory.calibration import calibrate, choose_cases
from pipelines.factory.estimate import Estimate, Kind, Measurements, count, estimate, from_runs, kinds_of
from pipelines.flows.admission import Examiner, admit
from pipelines.flows.options import GenerateOptions
from pipelines.flows.policies import SEGMENTERS
from pipelines.flows.waves import task_runs

LAST_RUNS = 5
MEMORY_SHARE = 0.85  # of a machine's memory for its actors together; the driver allows as much
#: Bytes per voxel of an image that no compression of noisy int16 voxels goes below, for runs of which nothing is known yet
#: (the demo's CT takes 1.0, brain MR with its black background 0.4).
LEAST_BYTES_PER_VOXEL = 0.1


class InfeasibleError(CtmrError):
    """A run that can't fit where it was to run."""


@dataclass(frozen=True)
class Shortage:
    """Something there is too little of. certain: no estimate is involved, or its lower bound does not fit either."""

    what: str
    needed: str
    available: str
    fix: str
    certain: bool

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Outlook:
    """The estimate of a run and what it lacks."""

    estimate: Estimate
    shortages: list[Shortage]

    @property
    def refused(self) -> bool:
        return any(shortage.certain for shortage in self.shortages)

    def as_dict(self) -> dict[str, Any]:
        return {**self.estimate.as_dict(), "shortages": [s.as_dict() for s in self.shortages], "refused": self.refused}


def look_ahead(options: GenerateOptions, *, per_kind: int | None = None) -> Outlook:
    """What a run with these options would take, without making, locking or writing anything in the dataset.

    per_kind: calibrate with so many cases of each kind; None takes earlier runs of the dataset, or calibrates with one.
    Raises what ``generate`` would raise about manifest, library and dataset, and ``EstimateError``.
    """
    manifest = read_manifest(options.manifest, skip_invalid=options.skip_invalid)
    path = options.library or manifest.metadata.get("library")
    library = TemplateLibrary.open(path) if path and Path(path).is_dir() else None
    examiner = Examiner(library, segmenters=manifest.metadata.get(SEGMENTERS, ""))
    manifest, _ = admit(manifest, examiner, skip_invalid=options.skip_invalid)
    manifest = manifest.completed(engine_identity, (lambda name: library.row(name).digest) if library else None, body_digest)
    dataset = _existing(options.dataset)
    return estimate_manifest(manifest, options, library=path if library else None, dataset=dataset, per_kind=per_kind)


def estimate_manifest(
    manifest: Manifest, options: GenerateOptions, *, library: str | None, dataset: Dataset | None, per_kind: int | None
) -> Outlook:
    """What is still to do of a manifest (identities filled in), estimated."""
    positions = _to_do(manifest, dataset)[: options.limit]
    kinds, which = kinds_of(manifest.table.take(pa.array(positions)))
    device = "cuda" if options.gpus_per_worker > 0 else "cpu"
    measured = None if per_kind or dataset is None else last_measurements(dataset.storage, device)
    if kinds and (measured is None or {kind.engine for kind in kinds} - measured.engines):
        rows = choose_cases(kinds, which, per_kind or 1)
        cases = [manifest.case(int(positions[row])) for row in rows]
        segmenters = manifest.metadata.get(SEGMENTERS, "")
        measured = calibrate(cases, [kinds[which[row]] for row in rows], library, device, options.threads, segmenters)
    return outlook(count(kinds, which), measured or Measurements("nothing to do", {}), options)


def outlook(kinds: Mapping[Kind, int], measured: Measurements, options: GenerateOptions) -> Outlook:
    """Estimate these kinds of cases, and compare with the room there is."""
    cases = sum(kinds.values())
    runs = task_runs(cases, options.waves)
    cores = None if options.address else max(1, (os.cpu_count() or 1) // options.threads)
    found = estimate(kinds, measured, workers=_workers(options, cases), at_once=cores, prefect_task_runs=runs)
    shortages = [
        *_disk(options.dataset, found.bytes, found.uncertainty),
        *_memory(options, found.memory_bytes, found.workers),
        *_gpus(options, found.workers),
    ]
    return Outlook(found, shortages)


def refuse_impossible(table: pa.Table, storage: Storage, options: GenerateOptions) -> None:
    """The cheap part, before every run: disk and memory by earlier runs of the dataset, GPUs, and disk by the least possible.

    table: the manifest's rows that are to do. Raises ``InfeasibleError`` for what can't fit.
    """
    if options.force or not table.num_rows:
        return
    kinds = count(*kinds_of(table))
    measured = last_measurements(storage, "cuda" if options.gpus_per_worker > 0 else "cpu")
    if measured and not {kind.engine for kind in kinds} - measured.engines:
        shortages = outlook(kinds, measured, options).shortages
    else:
        least = sum(kind.voxels * cases for kind, cases in kinds.items()) * LEAST_BYTES_PER_VOXEL
        shortages = [*_disk(options.dataset, round(least), 0.0), *_gpus(options, _workers(options, table.num_rows))]
    refuse([shortage for shortage in shortages if shortage.certain])


def refuse(shortages: Sequence[Shortage]) -> None:
    """Raise ``InfeasibleError`` with the first shortage, naming the others."""
    if not shortages:
        return
    first, *others = shortages
    also = f"; also {', '.join(other.what for other in others)}" if others else ""
    raise InfeasibleError(
        f"this run can't fit: {first.what}{also}", found=first.needed, allowed=first.available, fix=f"{first.fix}, or --force"
    )


def last_measurements(storage: Storage, device: str) -> Measurements | None:
    """What the last runs of the dataset measured; None when there were none, or their records can't be read."""
    try:
        return from_runs(read_runs(storage, LAST_RUNS), device, storage.uri)
    except StoreError:
        return None


def _existing(place: str) -> Dataset | None:
    try:
        return Dataset.open(place)
    except (StoreError, OSError):
        return None


def _to_do(manifest: Manifest, dataset: Dataset | None) -> np.ndarray:
    if dataset is None:
        return np.arange(manifest.rows)
    plan = manifest.table.append_column("case_key", pa.array(manifest.case_keys(), pa.string()))
    return np.fromiter((todo.position for todo in resume(dataset, plan).todo), np.int64)


def _workers(options: GenerateOptions, cases: int) -> int:
    here = max(1, (os.cpu_count() or 1) // options.threads)
    return max(1, min(options.workers or here, max(cases, 1)))


def _disk(place: str, needed: int, uncertainty: float) -> list[Shortage]:
    if "://" in place and not place.startswith("file://"):
        return []  # a bucket has no end
    folder = Path(place.removeprefix("file://")).expanduser().absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if needed * (1 + uncertainty) <= free:
        return []
    fix = "free space, choose another place with --out, or make fewer with --limit"
    certain = needed / (1 + uncertainty) > free  # a factor either way: an uncertainty can be above 100 %
    return [Shortage("free disk", f"{_gb(needed)} ± {uncertainty:.0%}", f"{_gb(free)} at {folder}", fix, certain)]


def _memory(options: GenerateOptions, per_worker: int, workers: int) -> list[Shortage]:
    if options.memory_per_worker and per_worker > options.memory_per_worker * 1e9:
        given = f"{options.memory_per_worker:g} GB by --memory-per-worker"
        return [Shortage("memory of a worker", _gb(per_worker), given, "give a worker more memory, or plan smaller sizes", True)]
    if options.address:
        return []  # the cluster's machines are known to the driver only; it watches their memory
    room = memory_of_machine() * MEMORY_SHARE
    if per_worker * workers <= room:
        return []
    fits = int(room // per_worker)
    fix = f"use --workers {fits}" if fits else "use a machine with more memory, or plan smaller sizes"
    return [Shortage("memory", f"{workers} workers of {_gb(per_worker)}", f"{_gb(room)} on this machine", fix, True)]


def _gpus(options: GenerateOptions, workers: int) -> list[Shortage]:
    if options.gpus_per_worker <= 0 or options.address:
        return []  # the driver refuses what no node of a cluster has
    import torch

    there, needed = torch.cuda.device_count(), options.gpus_per_worker * workers
    if needed <= there:
        return []
    fits = int(there / options.gpus_per_worker)
    fix = f"use --workers {fits}" if fits else "leave --gpus-per-worker out to render on the CPU, or go where there is a GPU"
    return [Shortage("GPUs", f"{needed:g}", f"{there} on this machine", fix, True)]


def _gb(size: float) -> str:
    return f"{size / 1e9:,.1f} GB"
