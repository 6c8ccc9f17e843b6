"""Datasets of another age: older ones are read, newer ones refused with what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ctmr_core.errors import StoreError
from ctmr_core.store import Dataset
from ctmr_core.store.format import DATASET_SCHEMA, DatasetFormat, read_format
from tests.store.store_maker import make_case, make_dataset


def test_a_dataset_says_what_it_is_and_who_began_it(tmp_path: Path) -> None:
    dataset = Dataset.create(tmp_path)
    document = json.loads((tmp_path / "dataset.json").read_text())
    assert document["kind"] == "ctmr-dataset"
    assert (document["schema"], document["minimum_reader"]) == (DATASET_SCHEMA, 1)
    assert document["written_by"].startswith("ctmr-factory ")
    assert read_format(dataset.storage).written_by == document["written_by"]


def test_the_first_releases_are_read_and_gone_on_with(tmp_path: Path) -> None:
    make_dataset(tmp_path, [make_case()])
    (tmp_path / "dataset.json").write_text('{"kind":"ctmr-dataset","schema":1}\n')
    assert list(Dataset.open(tmp_path)) == ["case-0000"]
    assert read_format(Dataset.create(tmp_path).storage) == DatasetFormat(1, 1, "")


def test_what_is_newer_but_readable_is_read_and_not_written(tmp_path: Path) -> None:
    make_dataset(tmp_path, [make_case()])
    newer = {"kind": "ctmr-dataset", "schema": 2, "minimum_reader": 1, "written_by": "ctmr-factory 9.0", "new": []}
    (tmp_path / "dataset.json").write_text(json.dumps(newer))
    assert list(Dataset.open(tmp_path)) == ["case-0000"]
    with pytest.raises(StoreError, match=r"ctmr-factory 9\.0(.|\n)*can not write into it(.|\n)*found: 2(.|\n)*upgrade"):
        Dataset.create(tmp_path)


def test_what_is_too_new_is_refused(tmp_path: Path) -> None:
    make_dataset(tmp_path, [make_case()])
    newer = {"kind": "ctmr-dataset", "schema": 3, "minimum_reader": 2, "written_by": "ctmr-factory 9.0"}
    (tmp_path / "dataset.json").write_text(json.dumps(newer))
    for deed in (Dataset.open, Dataset.create):
        with pytest.raises(StoreError, match=r"newer version \(ctmr-factory 9\.0\)(.|\n)*can not read it(.|\n)*pip install"):
            deed(tmp_path)


@pytest.mark.parametrize("document", [[], {}, {"schema": "1"}, {"schema": 0}, {"schema": True}, {"kind": "other", "schema": 1}])
def test_what_is_no_description_is_refused(tmp_path: Path, document: object) -> None:
    make_dataset(tmp_path, [make_case()])
    (tmp_path / "dataset.json").write_text(json.dumps(document))
    with pytest.raises(StoreError, match=r"dataset\.json: not the description of a dataset"):
        Dataset.open(tmp_path)
