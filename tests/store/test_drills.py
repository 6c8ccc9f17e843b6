"""Named points: nothing without a drill, exactly what it says with one."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctmr_core.store import drills
from ctmr_core.store.drills import DrillError, halves, reach


@pytest.fixture
def drill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(drills.VARIABLE, str(tmp_path / "drill.json"))
    monkeypatch.setattr(drills, "_passed", drills.Counter())
    return tmp_path / "drill.json"


def order(path: Path, **points: dict[str, object]) -> None:
    path.write_text(json.dumps({f"@{name.replace('_', '.')}": what for name, what in points.items()}), encoding="utf-8")


def test_nothing_happens_without_a_drill(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(drills.VARIABLE, raising=False)
    for point in drills.POINTS:
        reach(point)


def test_a_point_strikes_from_the_passage_it_is_told(drill: Path) -> None:
    order(drill, commit_made={"fault": "raise", "nth": 3})
    reach("commit.made")
    reach("commit.begin")
    reach("commit.made")
    for _ in range(2):
        with pytest.raises(DrillError, match=r"commit\.made a-name"):
            reach("commit.made", "a-name")


def test_strikes_are_counted_over_all_passages(drill: Path) -> None:
    order(drill, seal_begin={"fault": "raise", "times": 2})
    for _ in range(2):
        with pytest.raises(DrillError):
            reach("seal.begin")
    reach("seal.begin")


def test_only_objects_that_fit_are_struck_with_the_error_named(drill: Path) -> None:
    order(drill, file_half={"fault": "ENOSPC", "object": "catalog/*"})
    assert b"".join(halves(b"abcde", "volumes/a")) == b"abcde"
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the number is what counts
        list(halves(b"abcde", "catalog/part"))
    assert caught.value.errno == errno.ENOSPC


def test_an_unknown_fault_names_those_there_are(drill: Path) -> None:
    order(drill, lock_begin={"fault": "meteor"})
    with pytest.raises(ValueError, match=r"meteor.*segfault.*EIO"):
        reach("lock.begin")


def test_a_try_to_get_too_much_memory_is_a_memory_error(drill: Path) -> None:
    order(drill, volume_begin={"fault": "memory"})
    with pytest.raises(MemoryError):
        reach("volume.begin")
    assert len(bytearray(1 << 27)) == 1 << 27  # the limit is gone again


@given(st.binary(max_size=64))
def test_halves_are_the_whole(data: bytes) -> None:
    assert b"".join(halves(data, "name")) == data
