"""Records of runs: kept with the dataset, read back in order, damaged ones named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctmr_core.errors import IntegrityError
from ctmr_core.store import Dataset, verify
from ctmr_core.store.runs import CaseCost, RunRecord, WorkerRecord, read_runs, size_bucket, write_run


def record(hour: int, **changes: object) -> RunRecord:
    fields: dict[str, object] = {
        "started": f"2026-01-31T{hour:02d}:00:00+00:00",
        "accepted": 3,
        "failed": 1,
        "costs": (CaseCost(engine="tissue", size_bucket=1 << 21, cases=4, busy_seconds=8.0, finish_seconds=2.0),),
        "fleet": (WorkerRecord(host="a", cases=4, peak_bytes=10),),
    }
    return RunRecord.model_validate(fields | changes)


def test_runs_are_read_back_as_written_oldest_first(tmp_path: Path) -> None:
    storage = Dataset.create(tmp_path / "out").storage
    assert read_runs(storage) == []
    runs = [record(hour) for hour in (3, 23, 11)]
    names = [write_run(storage, run) for run in runs]
    assert sorted(names)[0].startswith("runs/20260131T030000Z-")
    assert read_runs(storage) == [runs[0], runs[2], runs[1]]
    assert read_runs(storage, last=1) == [runs[1]]
    assert read_runs(storage, last=0) == []
    assert runs[0].made == 4
    assert verify(Dataset.open(tmp_path / "out")).ok


def test_a_record_of_a_newer_version_is_still_read(tmp_path: Path) -> None:
    storage = Dataset.create(tmp_path / "out").storage
    name = write_run(storage, record(1))
    document = json.loads(storage.read(name)) | {"invented later": 1}
    storage.write(name, json.dumps(document).encode())
    assert read_runs(storage)[0].accepted == 3


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    storage = Dataset.create(tmp_path / "out").storage
    name = write_run(storage, record(1))
    storage.write(name, b'{"accepted": -1}')
    with pytest.raises(IntegrityError, match=rf"{name}, field accepted"):
        read_runs(storage)


def test_an_undisturbed_worker_is_as_fast_as_the_slower_of_its_threads() -> None:
    cost = CaseCost(engine="e", size_bucket=1, cases=2, busy_seconds=9.0, cpu_wait_seconds=1.0, finish_seconds=5.0)
    assert cost.seconds_per_case == 4.0
    assert CaseCost(engine="e", size_bucket=1, cases=0).seconds_per_case == 0.0


@given(st.integers(1, 1 << 40))
def test_a_bucket_is_the_nearest_power_of_two(voxels: int) -> None:
    bucket = size_bucket(voxels)
    assert bucket.bit_count() == 1
    assert 2**-0.5 <= voxels / bucket <= 2**0.5
