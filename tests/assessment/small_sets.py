"""Datasets of small volumes whose voxels and scores a test chooses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
from scipy import ndimage

from ctmr_core.anatomy.label_census import take_census
from ctmr_core.anatomy.label_map import LabelMap
from ctmr_core.anatomy.vocabulary import load_vocabulary
from ctmr_core.cases.case import Case
from ctmr_core.quality.base import CheckResult, Verdict
from ctmr_core.store import CommitRecord, Dataset, build_row, commit, new_attempt_id, seal, volume_path, write_volume
from tests.store.store_maker import manifest_of

SIZE = (32, 28, 30)
Maker = Callable[[Case], tuple[LabelMap, dict[str, np.ndarray]]]


def small_case(number: int, **changes: object) -> Case:
    fields: dict[str, object] = {
        "case_id": f"case-{number:04d}",
        "body": "parametric:torso",
        "body_seed": number,
        "sequences": ("ct",),
        "size": SIZE,
        "spacing": (4.0, 4.0, 4.0),
    }
    return Case.model_validate(fields | changes)


def person(seed: int, brightness: float = 0.0) -> tuple[LabelMap, dict[str, np.ndarray]]:
    """A body of smooth blobs, with organs where the blobs are strongest, and its CT."""
    vocabulary = load_vocabulary("maisi")
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.standard_normal(SIZE), 3)
    field /= field.std()
    voxels = np.zeros(SIZE, vocabulary.dtype)
    inner = (slice(3, -3),) * 3
    voxels[inner] = vocabulary.label("body").id
    for low, name in ((0.3, "liver"), (0.8, "spleen"), (1.4, "stomach")):
        voxels[inner][field[inner] > low] = vocabulary.label(name).id
    image = np.where(voxels > 0, 40 + brightness + 60 * field, -1000.0)
    return LabelMap(voxels, np.diag([4.0, 4.0, 4.0, 1.0]), vocabulary), {"ct": image.round().astype(np.int16)}


def by_seed(case: Case) -> tuple[LabelMap, dict[str, np.ndarray]]:
    """What :func:`person` makes of the case's body_seed."""
    return person(case.body_seed)


def small_set(
    folder: Path | str, cases: Iterable[Case], make: Maker = by_seed, scores: Mapping[str, Mapping[str, float]] | None = None
) -> Dataset:
    """A sealed dataset. scores: case id -> "<check>/<score>" -> value."""
    cases = list(cases)
    dataset = Dataset.create(folder, manifest_of(cases))
    add_cases(dataset, cases, make, scores)
    return dataset


def add_cases(
    dataset: Dataset, cases: Iterable[Case], make: Maker = by_seed, scores: Mapping[str, Mapping[str, float]] | None = None
) -> None:
    """More cases, committed and sealed."""
    cases = list(cases)
    dataset.adopt(manifest_of(cases))
    for case in cases:
        label_map, images = make(case)
        attempt = new_attempt_id()
        stored = write_volume(
            dataset.storage,
            volume_path(case.case_id, attempt),
            images=images,
            label_map=label_map,
            attributes={"case_id": case.case_id, "case_key": case.key},
        )
        given = (scores or {}).get(case.case_id, {})
        results = tuple(CheckResult(name.split("/")[0], {name.split("/", 1)[1]: value}) for name, value in given.items())
        row = build_row(case, label_map=label_map, census=take_census(label_map), verdict=Verdict(results))
        record = CommitRecord.accepted(case.case_id, case.key, attempt=0, attempt_id=attempt, stored=stored, row=row)
        commit(dataset.storage, record)
    seal(dataset.storage, f"unit-{cases[0].case_id}", [(case.case_id, case.key) for case in cases])
    dataset.refresh()
