"""The card of a dataset tells what is in it, and machines can read it."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from ctmr_core.assessment.card import LIMITS, card, write_card
from ctmr_core.assessment.set_measures import SetOptions, keep_document, measure_set
from ctmr_core.store import Dataset, create_snapshot
from tests.assessment.made import head_case, make_candidate, make_judged


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Dataset:
    candidates = [make_candidate(head_case(number)) for number in range(3)]
    return make_judged(tmp_path_factory.mktemp("card") / "heads", candidates, rejected=(2,))[0]


def test_the_card_tells_counts_checks_limits_and_how_to_load(dataset):
    text = card(dataset)
    assert "2 labelled synthetic CT and MR volumes of 2 bodies" in text
    assert "| mri_t1 | 2 |" in text
    assert "| ct | 1 |" in text
    assert "1 (33.3%) failed every attempt" in text
    assert all(limit in text for limit in LIMITS)
    assert "Not measured" in text
    assert 'Dataset.open("heads")' in text


def test_near_duplicates_are_told_once_measured(dataset):
    keep_document(dataset, measure_set(dataset, SetOptions(measures=("duplicates",))))
    text = card(dataset)
    assert "Pairs that are alike among 2 cases." in text
    assert "Not measured" not in text


def test_the_card_of_a_snapshot_is_of_its_cases(dataset):
    create_snapshot(dataset, "one", cases=[next(iter(dataset))])
    opened = Dataset.open(dataset.uri, snapshot="one")
    text = card(opened)
    assert "1 labelled synthetic" in text
    assert "Snapshot `one`" in text
    assert create_snapshot(dataset, "with-card", cases=list(dataset)[1:2], card=text).card == text


def test_the_croissant_metadata_is_valid_and_its_records_can_be_read(dataset, tmp_path: Path):
    croissant = pytest.importorskip("mlcroissant", reason="mlcroissant comes with the extra `export`")
    write_card(dataset, tmp_path)
    described = croissant.Dataset(tmp_path / "croissant.json")
    assert described.metadata.ctx.issues.errors == set()
    records = list(described.records("cases"))
    assert sorted(str(record["cases/case_id"], "utf-8") for record in records) == sorted(dataset)


def test_the_command_writes_three_files(dataset, tmp_path: Path):
    from pipelines.cli.main import app

    done = CliRunner().invoke(app, ["card", dataset.uri, "--out", str(tmp_path / "card"), "--json"])
    assert done.exit_code == 0, done.output
    files = [Path(name) for name in json.loads(done.output)["files"]]
    assert [path.name for path in files] == ["README.md", "croissant.json", "cases.parquet"]
    assert pq.read_table(files[2]).num_rows == len(dataset)
