"""Exactly one attempt at a case is committed, whatever happens to the others and to the answers."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from pathlib import Path

import pytest

from ctmr_core.errors import IntegrityError
from ctmr_core.store import (
    CommitRecord,
    FailureRecord,
    commit,
    layout,
    new_attempt_id,
    open_storage,
    read_commit,
    read_failures,
    record_failure,
)
from ctmr_core.store.commits import content_digest
from ctmr_core.store.local import LocalStorage
from tests.store.store_maker import make_case, make_dataset, reject_case, write_case

KEYS, PROCESSES = 50, 8


def _record(number: int, attempt_id: str) -> CommitRecord:
    key = f"{number:064x}"
    return CommitRecord(
        case_id=f"c{number}", case_key=key, status="rejected", attempt=0, attempt_id=attempt_id,
        content_digest=content_digest(key, "rejected", (), ""), row={},
    )  # fmt: skip


def _race(folder: str, barrier: object) -> list[int]:
    storage = open_storage(folder)
    me = new_attempt_id()
    barrier.wait()
    return [number for number in range(KEYS) if commit(storage, _record(number, me)).won]


def _racer(folder: str, barrier: object, wins: object) -> None:
    wins.put(_race(folder, barrier))


def test_of_eight_racing_processes_one_wins_each_case(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, wins = context.Barrier(PROCESSES), context.Queue()
    racers = [context.Process(target=_racer, args=(str(tmp_path), barrier, wins)) for _ in range(PROCESSES)]
    for racer in racers:
        racer.start()
    won = Counter(number for _ in racers for number in wins.get(timeout=120))
    for racer in racers:
        racer.join()
    assert won == Counter(range(KEYS))
    assert sum(1 for _ in tmp_path.glob("commits/*/*.json")) == KEYS
    assert list((tmp_path / ".tmp").iterdir()) == []


def test_the_loser_learns_who_won_and_its_voxels_go(tmp_path: Path) -> None:
    case = make_case()
    dataset = make_dataset(tmp_path, [])
    first, second = write_case(dataset, case), write_case(dataset, case)
    assert commit(dataset.storage, first).won
    outcome = commit(dataset.storage, second)
    assert not outcome.won
    assert outcome.record == first
    assert not (tmp_path / str(second.volume)).exists()
    assert (tmp_path / str(first.volume) / "zarr.json").exists()
    assert first.content_digest == second.content_digest


def test_a_commit_whose_answer_was_lost_stands(tmp_path: Path) -> None:
    case = make_case()
    dataset = make_dataset(tmp_path, [])
    record = write_case(dataset, case)

    class Deaf(LocalStorage):
        def create(self, name: str, data: bytes) -> bool:
            super().create(name, data)
            return super().create(name, data)  # as a client does that never heard the first answer

    outcome = commit(Deaf(tmp_path), record)
    assert outcome.won
    assert (tmp_path / str(record.volume) / "zarr.json").exists()


def test_a_record_survives_the_disk_unchanged(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, [])
    record = write_case(dataset, make_case())
    commit(dataset.storage, record)
    assert read_commit(dataset.storage, record.case_id, record.case_key) == record
    assert read_commit(dataset.storage, "other", record.case_key) is None


@pytest.mark.parametrize("damage", ["cut", "empty", "other fields", "another case"])
def test_a_damaged_record_names_its_file(tmp_path: Path, damage: str) -> None:
    storage = open_storage(tmp_path)
    case = make_case()
    commit(storage, reject_case(case))
    file = tmp_path / layout.commit_name(case.case_id, case.key)
    whole = file.read_bytes()
    text = {
        "cut": whole[: len(whole) // 2],
        "empty": b"",
        "other fields": b'{"case_id": "x"}',
        "another case": whole.replace(case.case_id.encode(), b"case-0001"),
    }[damage]
    file.write_bytes(text)
    with pytest.raises(IntegrityError, match=file.name):
        read_commit(storage, case.case_id, case.key)


def test_the_content_digest_depends_on_content_alone() -> None:
    objects = [("ct/0/c/0/0/0", "aa"), ("zarr.json", "bb")]
    digest = content_digest("k", "accepted", objects, "v")
    assert digest == content_digest("k", "accepted", reversed(objects), "v")
    others = (
        content_digest("l", "accepted", objects, "v"),
        content_digest("k", "rejected", objects, "v"),
        content_digest("k", "accepted", objects[:1], "v"),
        content_digest("k", "accepted", objects, "w"),
    )
    assert len({digest, *others}) == 5


def test_failures_are_kept_replaced_and_cleared_by_a_commit(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    cases = [make_case(i) for i in range(3)]
    for case in cases:
        record_failure(
            storage, FailureRecord(case_id=case.case_id, case_key=case.key, status="failed", attempts=3, reason="ValueError: no")
        )
    worse = FailureRecord(
        case_id=cases[1].case_id,
        case_key=cases[1].key,
        status="quarantined",
        attempts=2,
        reason="died: signal 11",
        traceback="...",
    )
    record_failure(storage, worse)
    commit(storage, reject_case(cases[2]))
    assert [(f.case_id, f.status) for f in read_failures(storage)] == [("case-0000", "failed"), ("case-0001", "quarantined")]
    assert read_failures(storage)[1] == worse
    assert not (tmp_path / layout.failure_name(cases[2].case_id, cases[2].key)).exists()
