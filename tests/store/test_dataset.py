"""A dataset shows accepted, committed, current cases: all of them and nothing else."""

from __future__ import annotations

import json
import multiprocessing
import pickle
from pathlib import Path

import numpy as np
import pyarrow.dataset as pads
import pytest

from ctmr_core.errors import StoreError
from ctmr_core.store import Dataset, commit, seal
from ctmr_core.store.catalog import SCHEMA
from tests.fresh_process import run_fresh
from tests.store.store_maker import make_case, make_dataset, make_images, make_label_map, manifest_of, write_case


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_dataset(
        tmp_path_factory.mktemp("dataset"), [make_case(i, split="val" if i > 2 else "train") for i in range(5)], (1,)
    )


def test_accepted_cases_are_seen_in_order(dataset: Dataset) -> None:
    assert len(dataset) == 4
    assert list(dataset) == ["case-0000", "case-0002", "case-0003", "case-0004"]
    assert "case-0001" not in dataset
    assert dataset.catalog.count_rows() == 4
    assert dataset.ledger.count_rows() == 5
    assert dataset.catalog.schema.equals(SCHEMA)
    with pytest.raises(KeyError, match="not an accepted case"):
        dataset["case-0001"]
    with pytest.raises(KeyError):
        dataset.row("case-0001")


def test_a_volume_has_its_voxels_and_its_row(dataset: Dataset) -> None:
    volume = dataset["case-0003"]
    case = make_case(3)
    assert np.array_equal(np.asarray(volume.images["mri_t1"]), make_images(case)["mri_t1"])
    labels = np.asarray(volume.labels)
    assert np.array_equal(labels, make_label_map(case.size, 3).voxels)
    assert volume.row["label_ids"] == [int(v) for v in np.unique(labels) if v]
    assert volume.row["volume"] == volume.path
    assert volume.row["split"] == "val"
    x, y, z = volume.row["label_samples"][0][0]
    assert volume.labels[x, y, z] == volume.row["label_ids"][0]


def test_tables_for_people(dataset: Dataset) -> None:
    frame = dataset.to_pandas(columns=["split", "bytes"], filter=pads.field("split") == "val")
    assert list(frame.columns) == ["split", "bytes"]
    assert len(frame) == 2
    assert (frame["bytes"] > 0).all()
    assert list(dataset.to_pandas()["case_id"]) == list(dataset)
    assert dataset.to_pandas(columns=["timings"])["timings"][0] == {"write": 0.01}


def test_uncommitted_and_unsealed_voxels_are_not_seen(tmp_path: Path) -> None:
    case = make_case()
    dataset = make_dataset(tmp_path, [])
    dataset.adopt(manifest_of([case]))
    record = write_case(dataset, case)
    assert len(Dataset.open(tmp_path)) == 0
    commit(dataset.storage, record)
    assert len(Dataset.open(tmp_path)) == 0
    seal(dataset.storage, "u", [(case.case_id, case.key)])
    assert list(Dataset.open(tmp_path)) == [case.case_id]
    dataset.refresh()
    assert list(dataset) == [case.case_id]


def test_a_changed_plan_hides_what_it_no_longer_wants_until_it_is_made_anew(tmp_path: Path) -> None:
    cases = [make_case(i) for i in range(3)]
    dataset = make_dataset(tmp_path, cases)
    changed = make_case(1, seed=5)
    dataset.adopt(manifest_of([changed]))
    assert list(dataset) == ["case-0000", "case-0002"]
    assert dataset.catalog.count_rows() == 2
    commit(dataset.storage, write_case(dataset, changed))
    seal(dataset.storage, "u2", [(changed.case_id, changed.key)])
    dataset = Dataset.open(tmp_path)
    assert list(dataset) == ["case-0000", "case-0001", "case-0002"]
    assert dataset.row("case-0001")["case_key"] == changed.key


def test_a_case_sealed_twice_is_seen_once(tmp_path: Path) -> None:
    cases = [make_case(i) for i in range(3)]
    dataset = make_dataset(tmp_path, cases)
    seal(dataset.storage, "other", [(case.case_id, case.key) for case in cases[:2]])
    dataset.refresh()
    assert len(dataset) == dataset.catalog.count_rows() == len(dataset.to_pandas()) == 3


def test_another_schema_is_refused_with_what_was_found(tmp_path: Path) -> None:
    Dataset.create(tmp_path / "d")
    assert len(Dataset.create(tmp_path / "d")) == 0
    (tmp_path / "d" / "dataset.json").write_text(json.dumps({"schema": 99}))
    for door in (Dataset.open, Dataset.create):
        with pytest.raises(StoreError, match=r"dataset\.json, field schema(.|\n)*found: 99(.|\n)*allowed: 1"):
            door(tmp_path / "d")


def test_a_folder_that_is_no_dataset_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="not a dataset"):
        Dataset.open(tmp_path)


def test_manifests_need_distinct_ids(tmp_path: Path) -> None:
    case = make_case()
    with pytest.raises(StoreError, match=r"twice(.|\n)*case-0000"):
        Dataset.create(tmp_path, manifest_of([case, make_case(0, seed=1)]))
    with pytest.raises(StoreError, match="case_key"):
        Dataset.create(tmp_path, manifest_of([case]).drop_columns("case_key"))


def _mean(volume: object) -> float:
    return float(np.asarray(volume.images["ct"]).mean())


#: Reads a volume, then again in a child it forks.
FORKING = """
import os, sys
from ctmr_core.errors import StoreError
from ctmr_core.store import Dataset
image = Dataset.open(sys.argv[1])["case-0000"].images["ct"]
image[:4]
child = os.fork()
if child == 0:
    try:
        image[:4]
    except StoreError as error:
        print(error, flush=True)
        os._exit(0)
    os._exit(1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_volumes_travel_to_spawned_workers_and_forked_ones_are_told(dataset: Dataset) -> None:
    volume = dataset["case-0000"]
    expected = _mean(volume)
    assert _mean(pickle.loads(pickle.dumps(volume))) == expected
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(_mean, [volume]) == [expected]
    assert "spawn" in run_fresh(FORKING, dataset.uri)
