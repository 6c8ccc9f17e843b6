"""Small datasets for exports: lopsided bodies whose every voxel tells where it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ctmr_core.anatomy.label_census import take_census
from ctmr_core.anatomy.label_map import LabelMap
from ctmr_core.anatomy.vocabulary import load_vocabulary
from ctmr_core.cases.case import Case
from ctmr_core.store import CommitRecord, Dataset, build_row, commit, new_attempt_id, seal, volume_path, write_volume
from tests.store.store_maker import make_case, manifest_of

SIZE = (20, 24, 18)
LIVER, TUMOR, LEFT_KIDNEY, BODY = 1, 26, 14, 200
#: What an engine says of its scans; sequence -> record.
SCANS = {
    "ct": {"kernel": "soft", "slice_thickness_mm": 2.5},
    "ct_contrast": {"kernel": "soft", "slice_thickness_mm": 2.5, "phase": "portal"},
    "mri_t1": {
        "protocol": "mprage",
        "pulse_sequence": "mprage",
        "field_strength_t": 1.5,
        "tr_ms": 2300.25,
        "te_ms": 3.1,
        "ti_ms": 900.0,
        "flip_deg": 9.0,
        "fat_suppression": False,
    },
    "mri_t2": {
        "protocol": "tse",
        "pulse_sequence": "spin_echo",
        "field_strength_t": 3.0,
        "tr_ms": 5000.0,
        "te_ms": 92.5,
        "fat_suppression": True,
    },
}


def oblique_affine() -> np.ndarray:
    """RAS+ with a tilt of 0.2 rad about x and 0.1 about z, 1.5 x 2 x 3 mm."""
    c, s = np.cos(0.2), np.sin(0.2)
    tilt = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    c, s = np.cos(0.1), np.sin(0.1)
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ tilt @ np.diag([1.5, 2.0, 3.0])
    affine[:3, 3] = (-40.25, 17.5, -90.125)
    return affine


def straight_affine() -> np.ndarray:
    affine = np.diag([1.5, 2.0, 3.0, 1.0])
    affine[:3, 3] = (-40.25, 17.5, -90.125)
    return affine


def label_voxels(vocabulary: str = "maisi", size: tuple[int, int, int] = SIZE) -> np.ndarray:
    voxels = np.zeros(size, load_vocabulary(vocabulary).dtype)
    if vocabulary == "brain":
        voxels[3:9, 4:10, 5:11] = 2
        voxels[10:15, 4:10, 5:11] = 545
        return voxels
    voxels[2:-2, 3:-3, 1:-1] = BODY
    voxels[10:16, 6:16, 4:12] = LIVER
    voxels[12:14, 9:12, 6:9] = TUMOR
    voxels[4:7, 5:9, 3:9] = LEFT_KIDNEY
    return voxels


def image_voxels(case: Case) -> dict[str, np.ndarray]:
    """int16; the value of a voxel is its number, plus one per sequence, shifted by the seed."""
    count = np.arange(np.prod(case.size), dtype=np.int32).reshape(case.size) % 3000
    return {name: (count - (1000 if name == "ct" else 0) + case.body_seed).astype(np.int16) for name in case.sequences}


def exchange_case(number: int, **changes: object) -> Case:
    return make_case(number, **{"size": SIZE, "spacing": (1.5, 2.0, 3.0), "sequences": ("ct",), **changes})


def commit_case(
    dataset: Dataset,
    case: Case,
    vocabulary: str = "maisi",
    affine: np.ndarray | None = None,
    images: dict[str, np.ndarray] | None = None,
) -> None:
    attempt = new_attempt_id()
    label_map = LabelMap(
        label_voxels(vocabulary, case.size), straight_affine() if affine is None else affine, load_vocabulary(vocabulary)
    )
    stored = write_volume(
        dataset.storage,
        volume_path(case.case_id, attempt),
        images=image_voxels(case) if images is None else images,
        label_map=label_map,
        attributes={"case_id": case.case_id, "case_key": case.key, "attempt": 0, "synthetic": True},
    )
    row = build_row(
        case,
        label_map=label_map,
        census=take_census(label_map),
        image_parameters={"images": {name: SCANS.get(name, {}) for name in case.sequences}},
        licences=["CC-BY-4.0"],
    )
    commit(dataset.storage, CommitRecord.accepted(case.case_id, case.key, attempt=0, attempt_id=attempt, stored=stored, row=row))


def exchange_dataset(folder: Path, cases: list[Case], vocabulary: str = "maisi", affine: np.ndarray | None = None) -> Dataset:
    dataset = Dataset.create(folder, manifest_of(cases))
    for case in cases:
        commit_case(dataset, case, vocabulary, affine)
    seal(dataset.storage, f"unit-{cases[0].case_id}", [(case.case_id, case.key) for case in cases])
    dataset.refresh()
    return dataset
