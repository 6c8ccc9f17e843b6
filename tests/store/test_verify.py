"""Verification names the case and the object of everything that is wrong, and its digest is of content alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from ctmr_core.store import Dataset, commit, layout, verify
from ctmr_core.store.commits import content_digest
from tests.store.store_maker import make_case, make_dataset, manifest_of, write_case

CASES = [make_case(i) for i in range(4)]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound") / "dataset"
    make_dataset(folder, CASES, rejected=(3,))
    return folder


@pytest.fixture
def copy(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "dataset"))


def _volume(folder: Path, number: int) -> Path:
    return folder / Dataset.open(folder)[CASES[number].case_id].path


def test_a_sound_dataset_has_no_problems_and_one_digest(sound: Path, tmp_path: Path) -> None:
    report = verify(Dataset.open(sound))
    assert report.ok
    assert report.cases == 4
    make_dataset(tmp_path / "again", CASES[::-1], rejected=(0,))
    assert verify(Dataset.open(tmp_path / "again"), threads=3) == report
    make_dataset(tmp_path / "other", [*CASES[:3], make_case(3, seed=1)], rejected=(3,))
    assert verify(Dataset.open(tmp_path / "other")).digest != report.digest


@pytest.mark.parametrize("name", ["ct/0/c.0.0.0", "mri_t1/0/c.0.0.0", "labels/maisi/0/c.0.0.0", "ct/nifti/c.0", "zarr.json"])
def test_one_changed_byte_names_case_and_object(copy: Path, name: str) -> None:
    file = _volume(copy, 1) / name
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 1
    file.write_bytes(data)
    problems = verify(Dataset.open(copy)).problems
    assert {problem.case_id for problem in problems} == {"case-0001"}
    assert (problems[0].object, problems[0].what) == (name, "the SHA-256 is not the one that was committed")


def test_missing_and_cut_objects_are_seen_even_at_a_glance(copy: Path) -> None:
    (_volume(copy, 0) / "ct/0/c.0.0.0").unlink()
    shard = _volume(copy, 2) / "labels/maisi/0/c.0.0.0"
    shard.write_bytes(shard.read_bytes()[:-1])
    for deep in (False, True):
        found = [(p.case_id, p.object, p.what.split(" ")[-1]) for p in verify(Dataset.open(copy), deep=deep).problems if p.object]
        assert found == [
            ("case-0000", "ct/0/c.0.0.0", "missing"),
            ("case-0002", "labels/maisi/0/c.0.0.0", "committed"),
        ]


def test_a_volume_that_went_away_is_named(copy: Path) -> None:
    shutil.rmtree(_volume(copy, 1))
    problems = verify(Dataset.open(copy)).problems
    assert {problem.what for problem in problems} == {"missing"}
    assert {problem.case_id for problem in problems} == {"case-0001"}


def test_voxels_swapped_with_their_digests_are_still_found(copy: Path) -> None:
    """Two volumes exchanged on disk: every file is intact, none is where it belongs."""
    one, two = _volume(copy, 0), _volume(copy, 1)
    one.rename(copy / "aside")
    two.rename(one)
    (copy / "aside").rename(two)
    assert {problem.case_id for problem in verify(Dataset.open(copy)).problems} == {"case-0000", "case-0001"}


def test_an_edited_record_does_not_fit_its_digest(copy: Path) -> None:
    case = CASES[2]
    file = copy / layout.commit_name(case.case_id, case.key)
    record = json.loads(file.read_text())
    record["objects"][0]["sha256"] = "0" * 64
    file.write_text(json.dumps(record))
    for part in (copy / "catalog").glob("*.parquet"):
        part.unlink()
    problems = verify(Dataset.open(copy)).problems
    assert problems[0].case_id == "case-0002"
    assert "content digest" in problems[0].what


def test_a_record_of_other_voxels_is_found_by_decoding(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, [])
    record = write_case(dataset, CASES[0])
    pairs = [(entry.name, entry.sha256) for entry in record.objects]
    other = content_digest(record.case_key, "accepted", pairs, "0" * 32)
    commit(dataset.storage, record.model_copy(update={"voxel_digest": "0" * 32, "content_digest": other}))
    dataset.adopt(manifest_of(CASES[:1]))
    (problem,) = verify(dataset).problems
    assert problem.case_id == "case-0000"
    assert "decoded voxels" in problem.what
    assert verify(dataset, deep=False).ok
