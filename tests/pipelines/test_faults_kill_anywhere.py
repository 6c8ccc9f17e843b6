"""Killed at every named point, then run again: the dataset is the one an undisturbed run makes, byte for byte."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ctmr_core.store.drills import POINTS
from tests.soak import child
from tests.soak.cases import write_manifest
from tests.soak.evidence import Evidence, difference, evidence

CASES = 4
NOT_IN_ONE_PROCESS = {"wave.begin"}
KILL = {"fault": "kill", "once": True}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_manifest(tmp_path_factory.mktemp("line") / "cases.parquet", CASES)


@pytest.fixture(scope="module")
def calm(manifest: Path) -> Evidence:
    assert child.run(manifest, manifest.with_name("calm")) == 0
    found = evidence(manifest.with_name("calm"))
    assert len(found.catalog) == len(found.objects) == CASES
    assert not found.faults
    return found


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], check=False).returncode
    ):
        pytest.skip("mounting a small file system is not permitted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("point", sorted(set(POINTS) - NOT_IN_ONE_PROCESS))
def test_killed_at_a_point_and_run_again(point: str, manifest: Path, calm: Evidence, tmp_path: Path) -> None:
    assert child.run(manifest, tmp_path / "out", {f"@{point}": KILL}) == -signal.SIGKILL
    assert child.run(manifest, tmp_path / "out") == 0
    assert difference(calm, evidence(tmp_path / "out")) == []


@pytest.mark.parametrize(
    "name", ["volumes/*/c.*", "volumes/*/zarr.json", "commits/*", "catalog/part-*", "catalog/merged-*", "manifest.parquet"]
)
def test_killed_with_half_of_a_file_written(name: str, manifest: Path, calm: Evidence, tmp_path: Path) -> None:
    assert child.run(manifest, tmp_path / "out", {"@file.half": {**KILL, "object": name}}) == -signal.SIGKILL
    assert child.run(manifest, tmp_path / "out") == 0
    assert difference(calm, evidence(tmp_path / "out")) == []


@pytest.mark.slow
def test_killed_at_every_single_file_and_killed_again_while_recovering(manifest: Path, calm: Evidence, tmp_path: Path) -> None:
    nth = 0
    while True:
        nth += 1
        out = tmp_path / f"out-{nth}"
        if child.run(manifest, out, {"@file.half": {**KILL, "nth": nth}}) == 0:
            break  # fewer files than that
        child.run(manifest, out, {"@file.made": {**KILL, "nth": 2}})
        assert child.run(manifest, out) == 0
        assert difference(calm, evidence(out)) == []
    assert nth > 6 * CASES


@pytest.mark.parametrize("error", ["EIO", "ENOSPC", "EROFS"])
@pytest.mark.parametrize("name", ["volumes/*", "commits/*", "catalog/*"])
def test_a_storage_that_fails_stops_the_line_with_advice(
    error: str, name: str, manifest: Path, calm: Evidence, tmp_path: Path
) -> None:
    drill = {"@file.half": {"fault": error, "object": name, "nth": 2}}
    assert child.run(manifest, tmp_path / "out", drill) == child.FAILED
    assert "run the same command again" in child.error_of(manifest)
    assert child.run(manifest, tmp_path / "out") == 0
    assert difference(calm, evidence(tmp_path / "out")) == []


@pytest.mark.parametrize("name", ["volumes/*", "commits/*"])
def test_a_storage_that_stumbles_is_tried_again_within_the_run(name: str, manifest: Path, calm: Evidence, tmp_path: Path) -> None:
    drill = {"@file.half": {"fault": "ETIMEDOUT", "object": name, "nth": 2, "times": 2}}
    assert child.run(manifest, tmp_path / "out", drill) == 0
    assert difference(calm, evidence(tmp_path / "out")) == []


def test_a_full_disk_stops_the_line_and_room_lets_it_finish(small_disk: Path, manifest: Path, calm: Evidence) -> None:
    filler = small_disk / "filler"
    with filler.open("wb") as stream:
        stream.write(bytes(3 * 1024 * 1024 + 900 * 1024))
    assert child.run(manifest, small_disk / "out") == child.FAILED
    assert "the disk is full" in child.error_of(manifest)
    filler.unlink()
    assert child.run(manifest, small_disk / "out") == 0
    assert difference(calm, evidence(small_disk / "out")) == []
