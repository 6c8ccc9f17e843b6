"""Garbage goes, what a record or a snapshot names stays, whatever runs beside."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from ctmr_core.errors import DatasetHeldError, StoreError
from ctmr_core.store import (
    CommitRecord,
    Dataset,
    RunLock,
    collect,
    commit,
    compact,
    open_storage,
    orphans,
    resume,
    seal,
    sweep,
    verify,
)
from ctmr_core.store import gc as gc_module
from ctmr_core.store.commits import read_commit
from ctmr_core.store.snapshots import create_snapshot, delete_snapshot, read_snapshot
from ctmr_core.store.storage import Storage
from ctmr_core.store.uploads import Uploads
from tests.s3_servers import BUCKET, S3Server, fresh_uri
from tests.store.store_maker import make_case, make_dataset, manifest_of, write_case


@pytest.fixture(params=["disk", "seaweedfs", "moto"])
def uri(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "disk":
        return str(tmp_path / "ds")
    request.getfixturevalue(request.param).enter(monkeypatch)
    return fresh_uri()


def contents(storage: Storage, *folders: str) -> dict[str, bytes]:
    return {entry.name: storage.read(entry.name) for folder in folders for entry in storage.list(folder)}


def sorted_sizes(record: CommitRecord) -> list[int]:
    return [entry.bytes for entry in sorted(record.objects, key=lambda entry: entry.name)]


def test_orphans_and_scratch_go_and_committed_bytes_stay(uri: str) -> None:
    dataset = make_dataset(uri, [make_case(n) for n in range(4)], rejected=(2,))
    storage = dataset.storage
    lost, loose = write_case(dataset, make_case(7)), write_case(dataset, make_case(8))
    commit(storage, loose)  # committed, not sealed
    storage.write("probe/left-behind", b"12")
    if storage.local_path("x"):
        (Path(uri) / ".tmp").mkdir(exist_ok=True)
        (Path(uri) / ".tmp" / "left-behind").write_bytes(b"123")
    before = contents(storage, "volumes", "commits", "catalog")
    dry = collect(dataset, dry_run=True)
    assert contents(storage, "volumes", "commits", "catalog") == before
    report = collect(dataset)
    assert (report.orphans.count, report.orphans.bytes) == (1, sum(entry.bytes for entry in lost.objects))
    assert report.orphans.objects == len(lost.objects)
    assert report.scratch.count == 1
    assert (dry.orphans, dry.scratch, dry.dry_run) == (report.orphans, report.scratch, True)
    assert lost.volume in report.examples
    assert contents(storage, "volumes", "commits", "catalog") == {
        name: data for name, data in before.items() if not name.startswith(f"{lost.volume}/")
    }
    assert collect(dataset).bytes == 0
    assert verify(dataset).ok
    with pytest.raises(StoreError, match="swept"):
        commit(storage, lost)


def test_superseded_volumes_go_only_when_asked_and_not_from_snapshots(uri: str) -> None:
    cases = [make_case(n) for n in range(3)]
    dataset = make_dataset(uri, cases)
    storage = dataset.storage
    old = {case_id: dataset[case_id].path for case_id in dataset}
    create_snapshot(dataset, "first", cases=["case-0000"])
    changed = [make_case(n, deformation=0.5) for n in range(3)]
    dataset.adopt(manifest_of(changed))
    for case in changed:
        commit(storage, write_case(dataset, case))
    seal(storage, "unit-1", [(case.case_id, case.key) for case in changed])
    dataset.refresh()
    digest = verify(dataset).digest
    assert collect(dataset).bytes == 0
    assert collect(dataset, superseded=True, older_than=timedelta(days=1)).young == 2
    report = collect(dataset, superseded=True)
    assert (report.superseded.count, report.orphans.count) == (2, 0)
    assert list(storage.list(old["case-0001"])) == list(storage.list(old["case-0002"])) == []
    assert read_commit(storage, "case-0001", cases[1].key) is None
    pinned = Dataset.open(uri, snapshot="first")
    assert pinned["case-0000"].path == old["case-0000"]
    assert verify(pinned).ok
    again = Dataset.open(uri)
    assert verify(again).digest == digest
    assert resume(again, manifest_of(changed)).done == 3
    assert [todo.case_id for todo in resume(again, manifest_of(cases)).todo] == ["case-0001", "case-0002"]
    delete_snapshot(storage, "first")
    assert collect(again, superseded=True).superseded.count == 1
    assert verify(again).digest == digest
    assert orphans(again) == []


def test_a_volume_only_a_snapshot_names_is_no_orphan(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, [make_case(0)])
    create_snapshot(dataset, "kept")
    path = dataset["case-0000"].path
    for folder in ("catalog", "commits"):
        dataset.storage.delete_tree(folder)
    dataset.refresh()
    assert orphans(dataset) == []
    assert collect(dataset).orphans.count == 0
    assert read_snapshot(dataset.storage, "kept").table(["volume"])["volume"].to_pylist() == [path]
    assert list(dataset.storage.list(path))


def test_beside_a_run_only_old_things_go(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, [make_case(0)])
    young, old = write_case(dataset, make_case(1)), write_case(dataset, make_case(2))
    three_hours_ago = time.time() - 3 * 3600
    for file in (tmp_path / (old.volume or "")).rglob("*"):
        os.utime(file, (three_hours_ago, three_hours_ago))
    with RunLock(dataset.storage):
        assert collect(dataset).orphans.count == 0
        with pytest.raises(DatasetHeldError, match="another run holds this dataset"):
            collect(dataset, superseded=True)
        report = collect(dataset, older_than=timedelta(minutes=1))  # an hour is the least beside a run
        assert (report.beside_run, report.orphans.count, report.young, report.older_than_seconds) == (True, 1, 1, 3600)
        assert orphans(dataset) == [young.volume]
        assert commit(dataset.storage, young).won
    report = collect(dataset)
    assert (report.beside_run, report.bytes) == (False, 0)
    assert [entry.bytes for entry in dataset.storage.list(young.volume or "")] == sorted_sizes(young)


def test_a_case_that_is_committed_while_garbage_is_looked_for_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = make_dataset(tmp_path, [make_case(0)])
    late = write_case(dataset, make_case(1))
    real = gc_module.withdraw

    def just_before(storage: Storage, volume: str) -> bool:
        assert commit(storage, late).won
        return real(storage, volume)

    monkeypatch.setattr(gc_module, "withdraw", just_before)
    assert collect(dataset).orphans.count == 0
    assert [entry.bytes for entry in dataset.storage.list(late.volume or "")] == sorted_sizes(late)


def test_catalog_files_that_were_merged_go_when_their_time_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = [make_case(n) for n in range(4)]
    dataset = Dataset.create(tmp_path, manifest_of(cases))
    for case in cases:
        commit(dataset.storage, write_case(dataset, case))
        seal(dataset.storage, case.case_id, [(case.case_id, case.key)])
    compact(dataset.storage)
    assert collect(dataset).catalog.count == 0  # readers may still have them open
    monkeypatch.setattr(gc_module, "KEEP_SECONDS", -1.0)
    assert collect(dataset, dry_run=True).catalog.count == 4
    assert collect(dataset).catalog.count == 4
    dataset.refresh()
    assert verify(dataset).cases == 4


@pytest.mark.parametrize("superseded", [False, True])
def test_a_collection_that_dies_anywhere_leaves_a_sound_dataset(
    superseded: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every deletion in turn is the last thing the process does."""
    cases, changed = [make_case(n) for n in range(2)], [make_case(n, deformation=0.5) for n in range(2)]
    dataset = make_dataset(tmp_path, cases)
    write_case(dataset, make_case(5))
    dataset.adopt(manifest_of(changed))
    for case in changed:
        commit(dataset.storage, write_case(dataset, case))
    seal(dataset.storage, "unit-1", [(case.case_id, case.key) for case in changed])
    digest = verify(Dataset.open(tmp_path)).digest

    class Died(BaseException):
        pass

    for steps in range(100):
        left = steps
        opened = Dataset.open(tmp_path)
        storage = opened.storage

        def dying(real: Callable[[str], None]) -> Callable[[str], None]:
            def delete(name: str) -> None:
                nonlocal left
                left -= 1
                real(name)
                if left < 0 and not name.startswith("lock/"):
                    raise Died

            return delete

        monkeypatch.setattr(storage, "delete", dying(storage.delete))
        monkeypatch.setattr(storage, "delete_tree", dying(storage.delete_tree))
        try:
            collect(opened, superseded=superseded)
        except Died:
            check = Dataset.open(tmp_path)
            assert verify(check).digest == digest
            assert verify(check).ok
            for case in cases:  # a record that stands has its volume
                record = read_commit(storage, case.case_id, case.key)
                assert record is None or list(check.storage.list(record.volume or ""))
            continue
        break
    assert steps > 0
    assert orphans(Dataset.open(tmp_path)) == []


def test_abandoned_uploads_are_aborted(s3_server: S3Server) -> None:
    import boto3

    dataset = make_dataset(fresh_uri(), [make_case(0)])
    client = boto3.client("s3", endpoint_url=s3_server.endpoint)
    prefix = dataset.uri.removeprefix(f"s3://{BUCKET}/")
    mine, others = f"{prefix}/volumes/00/x/c/0", f"{prefix}-another/c/0"
    for key in (mine, others):
        upload = client.create_multipart_upload(Bucket=BUCKET, Key=key)["UploadId"]
        client.upload_part(Bucket=BUCKET, Key=key, UploadId=upload, PartNumber=1, Body=b"x" * 100_000)
    if s3_server.name != "moto":  # which says of every upload that it was begun in 2010
        assert collect(dataset, older_than=timedelta(hours=1)).uploads.count == 0
    report = collect(dataset)
    assert (report.uploads.count, report.uploads.bytes) == (1, 100_000)
    uploads = Uploads.of(dataset.storage)
    assert uploads is not None
    assert list(uploads.unfinished()) == []
    assert [entry["Key"] for entry in client.list_multipart_uploads(Bucket=BUCKET, Prefix=others)["Uploads"]] == [others]


def test_a_big_listing_is_never_held_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = open_storage(tmp_path)
    storage.write("volumes/00/case-50000.b.ome.zarr/zarr.json", b"{}")
    named = gc_module._Names(f"volumes/00/case-{i}.a.ome.zarr" for i in range(100_000))
    assert named._numbers.nbytes == 800_000
    assert "volumes/00/case-77.a.ome.zarr" in named
    assert "volumes/00/case-77.b.ome.zarr" not in named
    drawn = iter(f"00/case-{i}.{'b' if i == 50_000 else 'a'}.ome.zarr" for i in range(100_000))
    monkeypatch.setattr(storage, "entries", lambda prefix: drawn)
    monkeypatch.setattr(
        gc_module,
        "_catalog_volumes",
        lambda storage: iter([pa.table({"volume": [f"volumes/00/case-{i}.a.ome.zarr" for i in range(100_000)]})]),
    )
    found = gc_module.unnamed_volumes(Dataset(storage))
    assert next(found) == "volumes/00/case-50000.b.ome.zarr"
    assert next(drawn) == "00/case-50001.a.ome.zarr"


def test_a_sweep_before_a_run_is_told_apart_from_a_collection(tmp_path: Path) -> None:
    dataset = make_dataset(tmp_path, [make_case(0)])
    lost = write_case(dataset, make_case(1))
    with RunLock(dataset.storage):
        assert sweep(dataset) == [lost.volume]
    assert orphans(dataset) == []


def test_nothing_but_a_dataset_is_collected(tmp_path: Path) -> None:
    storage = open_storage(tmp_path / "empty", make=True)
    with pytest.raises(StoreError, match="not a dataset"):
        collect(Dataset.open(storage.uri))
