"""A small factory for the store's tests: cases, label maps and a generator that can be killed at a chosen point.

``python store_maker.py DATASET CASES CRASH_POINT CRASH_CASE`` makes a dataset the way a run does, and kills itself with SIGKILL
at the crash point.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from ctmr_core.anatomy.label_census import take_census
from ctmr_core.anatomy.label_map import LabelMap
from ctmr_core.anatomy.vocabulary import load_vocabulary
from ctmr_core.cases.case import Case
from ctmr_core.store import (
    CommitRecord,
    Dataset,
    RunLock,
    StoredVolume,
    build_row,
    commit,
    compact,
    new_attempt_id,
    resume,
    seal,
    seal_missing,
    sweep,
    volume_path,
    write_volume,
)
from ctmr_core.store.local import LocalStorage

UNIT = 3
CRASH_POINTS = (
    "before the first shard",
    "inside the second shard",
    "before the documents",
    "before the root document",
    "before the commit",
    "after the commit",
    "before the catalog part",
    "after the catalog part",
)


def make_case(number: int = 0, **changes: object) -> Case:
    fields = {
        "case_id": f"case-{number:04d}",
        "body": "parametric:torso",
        "body_seed": number,
        "sequences": ("ct", "mri_t1"),
        "size": (20, 24, 28),
        "spacing": (1.5, 1.5, 3.0),
    }
    return Case(**{**fields, **changes})


def make_label_map(
    size: tuple[int, int, int], seed: int = 0, vocabulary: str = "maisi", affine: np.ndarray | None = None
) -> LabelMap:
    language = load_vocabulary(vocabulary)
    rng = np.random.default_rng(seed)
    ids = np.array([0, *sorted(language.by_id)], language.dtype)
    blocks = rng.choice(ids, tuple(-(-n // 5) for n in size))
    voxels = blocks.repeat(5, 0).repeat(5, 1).repeat(5, 2)[: size[0], : size[1], : size[2]]
    if affine is None:
        affine = np.diag([1.5, 1.5, 3.0, 1.0])
        affine[:3, 3] = (-10.0, 20.0, -30.5)
    return LabelMap(np.ascontiguousarray(voxels), affine, language)


def make_images(case: Case) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(case.body_seed)
    return {sequence: rng.integers(-200, 1500, case.size).astype(np.int16) for sequence in case.sequences}


def manifest_of(cases: list[Case]) -> pa.Table:
    return pa.table(
        {
            "case_id": [case.case_id for case in cases],
            "case_key": [case.key for case in cases],
            "template_digest": [case.template_digest for case in cases],
            "engine_identity": [case.engine_identity for case in cases],
        }
    )


def write_case(dataset: Dataset, case: Case, attempt_id: str | None = None) -> CommitRecord:
    """Voxels on disk and the record that would commit them."""
    attempt_id = attempt_id or new_attempt_id()
    label_map = make_label_map(case.size, case.body_seed)
    stored: StoredVolume = write_volume(
        dataset.storage,
        volume_path(case.case_id, attempt_id),
        images=make_images(case),
        label_map=label_map,
        attributes={"case_id": case.case_id, "case_key": case.key},
    )
    row = build_row(case, label_map=label_map, census=take_census(label_map), timings={"write": 0.01}, host=str(os.getpid()))
    return CommitRecord.accepted(case.case_id, case.key, attempt=0, attempt_id=attempt_id, stored=stored, row=row)


def reject_case(case: Case) -> CommitRecord:
    return CommitRecord.rejected(case.case_id, case.key, attempt=2, attempt_id=new_attempt_id(), row=build_row(case))


def make_dataset(uri: Path | str, cases: list[Case], rejected: tuple[int, ...] = ()) -> Dataset:
    """A sealed dataset of ``cases``; those at positions ``rejected`` have no volume."""
    dataset = Dataset.create(uri, manifest_of(cases))
    for position, case in enumerate(cases):
        commit(dataset.storage, reject_case(case) if position in rejected else write_case(dataset, case))
    seal(dataset.storage, "unit-0", [(case.case_id, case.key) for case in cases])
    dataset.refresh()
    return dataset


def generate(uri: Path | str, cases: list[Case], crash_point: str = "", crash_case: int = -1) -> None:
    """A whole run: lock, sweep, resume, write, commit, seal, compact."""
    manifest = manifest_of(cases)
    dataset = Dataset.create(uri, manifest)
    with RunLock(dataset.storage):
        sweep(dataset)
        todo = resume(dataset, manifest)
        seal_missing(dataset.storage, todo.unsealed)
        storage = dataset.storage
        for start in range(0, len(todo.todo), UNIT):
            unit = [cases[item.position] for item in todo.todo[start : start + UNIT]]
            for case in unit:
                crash = crash_point if case is cases[crash_case] else ""
                if isinstance(storage, LocalStorage):
                    dataset.storage = FragileStorage(storage.root, crash)
                record = write_case(dataset, case)
                die_at("before the commit", crash)
                commit(storage, record)
                die_at("after the commit", crash)
            dataset.storage = storage
            here = crash_point if cases[crash_case] in unit else ""
            die_at("before the catalog part", here)
            seal(storage, f"unit-{start}", [(case.case_id, case.key) for case in unit])
            die_at("after the catalog part", here)
        compact(storage, min_rows=4)


class FragileStorage(LocalStorage):
    """A disk whose process is killed in the middle of writing a volume."""

    def __init__(self, root: Path, crash_point: str) -> None:
        super().__init__(root)
        self.crash_point = crash_point

    def write_all(self, objects: Sequence[tuple[str, bytes]]) -> None:
        first_document = next(i for i, (name, _) in enumerate(objects) if name.endswith("zarr.json"))
        stop = {
            "before the first shard": 0,
            "inside the second shard": 1,
            "before the documents": first_document,
            "before the root document": len(objects) - 1,
        }.get(self.crash_point)
        if stop is None:
            super().write_all(objects)
            return
        super().write_all(objects[:stop])
        if self.crash_point == "inside the second shard":
            name, data = objects[stop]
            target = self.root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data[: len(data) // 2])
        die_at(self.crash_point, self.crash_point)


def die_at(point: str, crash_point: str) -> None:
    if point == crash_point:
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    folder, count, point, number = sys.argv[1:5]
    generate(folder, [make_case(i) for i in range(int(count))], point, int(number))
