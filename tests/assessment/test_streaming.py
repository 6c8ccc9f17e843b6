"""Volumes come one after the other, in random but fixed order, and only a few are in memory at a time."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ctmr_core.assessment.streaming import DatasetVolumes, in_key_order, mapped
from ctmr_core.errors import StoreError
from ctmr_core.store import Dataset, create_snapshot
from tests.assessment.small_sets import SIZE, small_case, small_set


class Volume:
    """Stands for voxels in memory."""


@pytest.mark.parametrize("workers", [1, 3])
def test_no_more_volumes_are_alive_than_workers(workers: int) -> None:
    alive: weakref.WeakSet[Volume] = weakref.WeakSet()
    lock, most = threading.Lock(), [0]

    def measure(number: int) -> int:
        volume = Volume()
        with lock:
            alive.add(volume)
            most[0] = max(most[0], len(alive))
        return number * number

    assert list(mapped(measure, range(50), workers)) == [number * number for number in range(50)]
    gc.collect()
    assert not alive
    assert most[0] <= workers


def test_what_is_not_asked_for_is_not_read() -> None:
    begun: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(1000):
            begun.append(number)
            yield number

    results = mapped(str, numbers(), 4)
    assert [next(results) for _ in range(3)] == ["0", "1", "2"]
    results.close()
    assert len(begun) == 4


def test_an_error_in_one_volume_is_the_error_of_all() -> None:
    def measure(number: int) -> int:
        if number == 5:
            raise StoreError("damaged")
        return number

    with pytest.raises(StoreError, match="damaged"):
        list(mapped(measure, range(10), 2))


def test_samples_follow_the_keys(tmp_path: Path) -> None:
    cases = [small_case(i) for i in range(7)]
    dataset = small_set(tmp_path / "set", cases)
    expected = [case.case_id for case in sorted(cases, key=lambda case: case.key)]
    assert in_key_order(dataset) == expected
    assert in_key_order(dataset, 3) == expected[:3]
    create_snapshot(dataset, "some", cases=sorted(expected[2:5]))
    kept = DatasetVolumes(Dataset.open(dataset.uri, snapshot="some"))
    assert kept.names == expected[2:5]
    volume = kept.load(expected[2])
    assert volume.images["ct"].shape == SIZE
    assert volume.spacing == (4.0, 4.0, 4.0)
    np.testing.assert_array_equal(volume.images["ct"], np.asarray(dataset[expected[2]].images["ct"]))
    assert kept.load(expected[2], labels=False).labels is None
