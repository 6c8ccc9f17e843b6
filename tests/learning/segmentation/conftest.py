"""A dataset that can be learnt: a bright liver and a brighter spleen in dark noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from ctmr_core.anatomy.label_census import take_census
from ctmr_core.anatomy.label_map import LabelMap
from ctmr_core.anatomy.vocabulary import load_vocabulary
from ctmr_core.cases.case import Case
from ctmr_core.learning.segmentation.config import SegmentationConfig
from ctmr_core.learning.training import parse_config
from ctmr_core.store import (
    CommitRecord,
    Dataset,
    build_row,
    commit,
    new_attempt_id,
    seal,
    volume_path,
    write_volume,
)
from tests.store.store_maker import make_case, manifest_of

SIZE = (32, 36, 40)


def blobs(seed: int, spacing: tuple[float, float, float] = (2.0, 2.0, 2.0)) -> LabelMap:
    """A ball of liver on one side, a ball of spleen on the other."""
    vocabulary = load_vocabulary("maisi")
    rng = np.random.default_rng(seed)
    places = np.stack(np.meshgrid(*(np.arange(n) for n in SIZE), indexing="ij"), -1)
    voxels = np.zeros(SIZE, np.uint8)
    for name, middle, radius in (("liver", (22, 18, 20), 8.0), ("spleen", (9, 18, 20), 5.0)):
        centre = np.asarray(middle) + rng.integers(-2, 3, 3)
        voxels[np.linalg.norm(places - centre, axis=-1) < radius] = vocabulary.label(name).id
    return LabelMap(voxels, np.diag([*spacing, 1.0]), vocabulary)


def image_of(label_map: LabelMap, seed: int, mr: bool = False) -> np.ndarray:
    """int16 [x, y, z]: HU, or MR between 0 and some hundred."""
    values = {"liver": 120.0, "spleen": 250.0}
    image = np.full(SIZE, -80.0)
    for name, value in values.items():
        image[label_map.voxels == label_map.vocabulary.label(name).id] = value
    image += np.random.default_rng(seed).normal(0, 10, SIZE)
    return np.rint(image + 120 if mr else image).astype(np.int16)


def make_blob_dataset(folder: Path, cases: list[Case]) -> Dataset:
    dataset = Dataset.create(folder, manifest_of(cases))
    for case in cases:
        label_map = blobs(case.body_seed, case.spacing)
        attempt = new_attempt_id()
        stored = write_volume(
            dataset.storage,
            volume_path(case.case_id, attempt),
            images={name: image_of(label_map, case.body_seed, name.startswith("mri")) for name in case.sequences},
            label_map=label_map,
            attributes={"case_id": case.case_id, "case_key": case.key},
        )
        row = build_row(case, label_map=label_map, census=take_census(label_map), timings={}, host="here")
        record = CommitRecord.accepted(case.case_id, case.key, attempt=0, attempt_id=attempt, stored=stored, row=row)
        commit(dataset.storage, record)
    seal(dataset.storage, "unit-0", [(case.case_id, case.key) for case in cases])
    dataset.refresh()
    return dataset


@pytest.fixture(scope="session")
def blob_dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Two cases to train on and one to validate, CT and T1, 2 mm; one of 3 mm to train on."""
    common = {"size": SIZE, "spacing": (2.0, 2.0, 2.0)}
    cases = [make_case(number, split="train" if number < 2 else "val", **common) for number in range(3)]
    cases.append(make_case(3, split="train", size=SIZE, spacing=(3.0, 3.0, 3.0)))
    return make_blob_dataset(tmp_path_factory.mktemp("blobs"), cases)


@pytest.fixture
def scan(tmp_path: Path) -> tuple[Path, Path]:
    """A scan of 3 mm with its label map (5: liver, 7: spleen) as NIfTI, stored from left to right, back to front."""
    return write_scan(tmp_path / "person", blobs(11, (3.0, 3.0, 3.0)))


def write_scan(folder: Path, label_map: LabelMap) -> tuple[Path, Path]:
    folder.mkdir()
    ids = np.zeros(256, np.uint8)
    ids[[label_map.vocabulary.label(name).id for name in ("liver", "spleen")]] = (5, 7)
    affine = label_map.affine.copy()
    affine[0] = [-affine[0, 0], 0, 0, affine[0, 0] * (SIZE[0] - 1)]
    for name, voxels in (("ct", image_of(label_map, 5)), ("seg", ids[label_map.voxels])):
        nib.save(nib.Nifti1Image(voxels[::-1], affine), folder / f"{name}.nii.gz")
    return folder / "ct.nii.gz", folder / "seg.nii.gz"


def config_of(dataset: Dataset | str, **changes: Any) -> SegmentationConfig:
    """A training of seconds."""
    uri = dataset if isinstance(dataset, str) else dataset.uri
    fields = {
        "classes": ["liver", "spleen"],
        "patch": [16, 16, 16],
        "spacing": [2, 2, 2],
        "sources": [{"dataset": uri}],
        "validation": [{"name": "val", "dataset": uri}],
        "augmentation": {"preset": "none"},
        "network": {"name": "UNet", "options": {"channels": [8, 16], "strides": [2], "norm": "batch"}},
        "training": training(),
    }
    return parse_config({**fields, **changes}, SegmentationConfig)


def training(**changes: Any) -> dict[str, Any]:
    return {
        "steps": 4,
        "batch_size": 2,
        "workers": 0,
        "epoch": 6,
        "checkpoint_every": 2,
        "validate_every": 0,
        "logging": {"every": 2, "tensorboard": False},
        **changes,
    }
