"""Object stores: answers that get lost, stores that are not fit, credentials that stay secret, and bytes that are fetched."""

from __future__ import annotations

import json
import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ctmr_core.errors import IntegrityError, StoreError
from ctmr_core.store import (
    Dataset,
    RunLock,
    Volume,
    commit,
    open_storage,
    orphans,
    resume,
    seal,
    verify,
    volume_path,
    write_volume,
)
from ctmr_core.store import objects as objects_module
from ctmr_core.store.catalog import read_part, read_parts
from ctmr_core.store.objects import ObjectStorage
from ctmr_core.store.s3 import S3Place
from tests.s3_servers import BUCKET, SECRET_KEY, S3Proxy, S3Server, fresh_uri
from tests.store.store_maker import make_case, make_dataset, make_images, make_label_map, manifest_of, write_case

ROOT = Path(__file__).resolve().parents[2]


def losing(method: str, count: int = 1, answer: bool | int = True) -> Callable[[str, str], bool | int]:
    """Let the server do ``count`` requests of ``method`` and keep the answer back."""
    left = [count]

    def lose(asked: str, path: str) -> bool | int:
        if asked != method or left[0] <= 0:
            return False
        left[0] -= 1
        return answer

    return lose


@pytest.mark.parametrize("answer", [True, 500, 503], ids=["cut", "500", "503"])
def test_a_created_object_whose_answer_was_lost_is_ours(s3_proxy: S3Proxy, answer: bool | int) -> None:
    storage = open_storage(fresh_uri())
    s3_proxy.lose = losing("PUT", answer=answer)
    assert storage.create("commits/00/a.json", b"mine")
    puts = [exchange.status for exchange in s3_proxy.exchanges if exchange.method == "PUT"]
    assert puts[0] == 200  # the first was done
    assert puts[1:] in ([412], [])  # and the second refused, or, found by its number, never sent
    assert storage.read("commits/00/a.json") == b"mine"
    s3_proxy.lose = losing("PUT", answer=answer)
    assert not storage.create("commits/00/a.json", b"another's")
    assert storage.read("commits/00/a.json") == b"mine"


def test_a_commit_whose_answer_was_lost_has_won(s3_proxy: S3Proxy) -> None:
    case = make_case(1)
    dataset = Dataset.create(fresh_uri(), manifest_of([case]))
    record = write_case(dataset, case)
    s3_proxy.lose = losing("PUT")
    outcome = commit(dataset.storage, record)
    assert outcome.won
    assert outcome.record == record
    late = write_case(dataset, case)
    s3_proxy.lose = losing("PUT")
    outcome = commit(dataset.storage, late)
    assert not outcome.won
    assert outcome.record == record
    assert list(dataset.storage.list(late.volume or "")) == []


def test_a_lock_whose_answer_was_lost_is_held(s3_proxy: S3Proxy) -> None:
    storage = open_storage(fresh_uri())
    s3_proxy.lose = losing("PUT")
    with RunLock(storage) as lock:
        lock.check()
        with pytest.raises(StoreError, match="another run holds this dataset: process"):
            RunLock(storage).acquire()


def test_a_write_that_never_gets_an_answer_ends(s3_proxy: S3Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"MAX_RETRIES": 1, "RETRY_SECONDS": 2}.items():
        monkeypatch.setattr(f"ctmr_core.store.s3.{name}", value)
    monkeypatch.setattr(objects_module, "_PAUSES", (0.01,))
    storage = open_storage(fresh_uri())
    s3_proxy.lose = lambda method, path: 500 if method == "PUT" else False
    for put in (storage.create, storage.write):
        with pytest.raises(StoreError, match=r"the object store could not write(.|\n)*HTTP 500(.|\n)*it resumes"):
            put("a.json", b"1")


def test_a_store_that_ignores_conditions_is_refused_by_name(rclone: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    rclone.enter(monkeypatch)
    with pytest.raises(StoreError, match=r"If-None-Match") as refusal:
        Dataset.create(fresh_uri())
    assert rclone.endpoint in str(refusal.value)
    assert "generate into a local folder" in str(refusal.value)
    assert [entry.name for entry in open_storage(fresh_uri()).scan("probe")] == []


def test_a_missing_bucket_is_named(moto: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    moto.enter(monkeypatch)
    for deed in (lambda: Dataset.create("s3://no-such-bucket/x"), lambda: Dataset.open("s3://no-such-bucket/x")):
        with pytest.raises(StoreError, match=r"there is no such bucket(.|\n)*no-such-bucket(.|\n)*create it first"):
            deed()
    with pytest.raises(StoreError, match="not a dataset"):
        Dataset.open(fresh_uri())


def test_wrong_credentials_are_named_and_not_shown(seaweedfs: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    seaweedfs.enter(monkeypatch)
    uri = fresh_uri()
    make_dataset(uri, [make_case()])
    volume = Dataset.open(uri)["case-0000"]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAWRONG")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret-and-wrong")
    for deed in (lambda: Dataset.create(uri), lambda: Dataset.open(uri)):
        with pytest.raises(StoreError, match=r"did not let this process(.|\n)*check AWS_ACCESS_KEY_ID") as refusal:
            deed()
        assert "very-secret-and-wrong" not in str(refusal.value)
        assert "AKIAWRONG" not in str(refusal.value)
        assert refusal.value.__cause__ is None  # what the server answered may name the key
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    anonymous = Volume(open_storage(uri), volume.case_id, volume.path)
    anonymous.__dict__["attributes"] = volume.attributes
    with pytest.raises(StoreError, match="did not let this process read") as refusal:
        anonymous.images["ct"][0]
    assert not isinstance(refusal.value, IntegrityError)


def test_an_unreachable_store_is_no_damage(seaweedfs: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"MAX_RETRIES": 1, "RETRY_SECONDS": 2}.items():
        monkeypatch.setattr(f"ctmr_core.store.s3.{name}", value)
    monkeypatch.setattr(objects_module, "_PAUSES", (0.01,))
    seaweedfs.enter(monkeypatch)
    uri = fresh_uri()
    make_dataset(uri, [make_case()])
    volume = Dataset.open(uri)["case-0000"]
    attributes, path = volume.attributes, volume.path
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    gone = Volume(open_storage(uri), "case-0000", path)
    gone.__dict__["attributes"] = attributes
    for deed in (lambda: Dataset.create(uri), lambda: Dataset.open(uri), lambda: gone.labels[0]):
        with pytest.raises(StoreError, match=r"can not be reached(.|\n)*AWS_ENDPOINT_URL") as refusal:
            deed()
        assert not isinstance(refusal.value, IntegrityError)


def test_tables_that_the_store_does_not_give_are_no_damage(s3_proxy: S3Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = fresh_uri()
    make_dataset(uri, [make_case()])
    for name, value in {"MAX_RETRIES": 1, "RETRY_SECONDS": 2}.items():
        monkeypatch.setattr(f"ctmr_core.store.s3.{name}", value)
    dataset = Dataset.open(uri)
    names = dataset.parts
    s3_proxy.lose = lambda method, path: 503 if ".parquet" in path else False
    for deed in (lambda: read_part(dataset.storage, names[0]), lambda: read_parts(dataset.storage), lambda: dataset.manifest):
        with pytest.raises(StoreError, match=r"could not read(.|\n)*HTTP 503(.|\n)*run the same command again") as refusal:
            deed()
        assert not isinstance(refusal.value, IntegrityError)
    s3_proxy.lose = lambda method, path: False
    dataset.storage.delete(names[0])
    with pytest.raises(IntegrityError, match="missing"):
        read_part(dataset.storage, names[0])


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("s3://key:secret@bucket/x", "do not belong into the address"),
        ("s3://bucket/x?secret=1", "do not belong into the address"),
        ("s3:///x", "not an address in an object store"),
        ("s3://bucket/a/../b", "not an address in an object store"),
        ("s3://bucket/a//b", "not an address in an object store"),
        ("s3://bucket/a b", "not an address in an object store"),
    ],
)
def test_addresses_that_are_none_are_refused(uri: str, message: str) -> None:
    with pytest.raises(StoreError, match=message) as refusal:
        open_storage(uri)
    if "secret" in uri:
        assert "secret=1" not in str(refusal.value)
        assert "key:secret" not in str(refusal.value)


def test_a_storage_travels_as_its_uri(s3_uri: str) -> None:
    storage = open_storage(f"{s3_uri}/")
    storage.write("a.json", b"1")
    parcel = pickle.dumps(storage)
    assert SECRET_KEY.encode() not in parcel
    assert SECRET_KEY not in repr(storage) + repr(vars(storage)) + repr(storage.objects)
    assert storage.uri == s3_uri
    assert pickle.loads(parcel).read("a.json") == b"1"


def test_the_environment_says_who_signs(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ACCESS_KEY_ID", "PROFILE", "SKIP_SIGNATURE", "ENDPOINT_URL", "ENDPOINT_URL_S3", "REGION"):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    place = S3Place.of("s3://bucket/a/b")
    assert (place.credentials, place.region, place.endpoint, place.prefix) == ("machine", "eu-central-1", None, "a/b")
    monkeypatch.setenv("AWS_PROFILE", "lab")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://one:1/")
    assert S3Place.of("s3://bucket").context()["aws_credentials"]["profile"] == "lab"
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://two:2")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    assert (S3Place.of("s3://bucket").credentials, S3Place.of("s3://bucket").endpoint) == ("environment", "http://two:2")


def test_a_profile_signs(seaweedfs: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seaweedfs.enter(monkeypatch)
    uri = fresh_uri()
    made = make_dataset(uri, [make_case()])
    secrets = tmp_path / "credentials"
    secrets.write_text(f"[lab]\naws_access_key_id = {BUCKET}\naws_secret_access_key = {SECRET_KEY}\n")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_PROFILE", "lab")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(secrets))
    volume = Dataset.open(uri)["case-0000"]
    np.testing.assert_array_equal(volume.labels[...], make_label_map(make_case().size, 0).voxels)
    assert len(made) == 1


def test_bytes_are_those_of_a_disk(s3_uri: str, tmp_path: Path) -> None:
    cases = [make_case(0), make_case(1), make_case(2)]
    local, remote = make_dataset(tmp_path / "ds", cases, rejected=(1,)), make_dataset(s3_uri, cases, rejected=(1,))
    assert verify(local).digest == verify(remote).digest
    assert verify(remote, threads=2).ok
    for case_id in ("case-0000", "case-0002"):
        for entry in local.row(case_id)["objects"]:
            there = remote.storage.read(f"{remote[case_id].path}/{entry['name']}")
            assert there == local.storage.read(f"{local[case_id].path}/{entry['name']}")
    frames = [dataset.to_pandas(["case_id", "status", "label_voxels", "content_digest"]) for dataset in (local, remote)]
    assert frames[0].astype(str).equals(frames[1].astype(str))
    np.testing.assert_array_equal(local["case-0002"].images["ct"][3:9, ::-2, 5], remote["case-0002"].images["ct"][3:9, ::-2, 5])
    assert list(pickle.loads(pickle.dumps(remote))) == ["case-0000", "case-0002"]


def test_a_patch_fetches_what_it_needs(s3_proxy: S3Proxy) -> None:
    storage = open_storage(fresh_uri(), make=True)
    case = make_case(0, size=(256, 256, 128), sequences=("ct",))
    path = volume_path(case.case_id, "attempt")
    label_map = make_label_map(case.size)
    stored = write_volume(storage, path, images=make_images(case), label_map=label_map, attributes={})
    s3_proxy.exchanges.clear()
    volume = Volume(storage, case.case_id, path)
    patch = (slice(70, 166), slice(70, 166), slice(16, 112))
    np.testing.assert_array_equal(volume.labels[patch], label_map.voxels[patch])
    gets, fetched = s3_proxy.reads()
    assert gets <= 12
    np.testing.assert_array_equal(volume.images["ct"][patch], make_images(case)["ct"][patch])
    gets, fetched = s3_proxy.reads()
    assert gets <= 24
    assert fetched < 0.6 * stored.bytes  # 8 of the 32 chunks
    s3_proxy.exchanges.clear()
    Volume(storage, case.case_id, path).images["ct"][:10, :10, :10]
    again = [exchange.path.rpartition("/")[2] for exchange in s3_proxy.exchanges]
    assert len(again) <= 2  # the root document and one chunk: array document and shard index are known


def test_lost_and_damaged_objects_show(s3_uri: str) -> None:
    dataset = make_dataset(s3_uri, [make_case(n) for n in range(3)])
    storage = dataset.storage
    lost, flipped = dataset["case-0000"].path, dataset["case-0001"].path
    storage.delete(f"{lost}/ct/0/c.0.0.0")
    name = f"{flipped}/labels/maisi/0/c.0.0.0"
    data = bytearray(storage.read(name))
    data[len(data) // 3] ^= 4
    storage.write(name, bytes(data))
    with pytest.raises(IntegrityError, match="missing or damaged"):
        dataset["case-0000"].images["ct"][0]
    with pytest.raises(IntegrityError, match="missing or damaged"):
        dataset["case-0001"].labels[...]
    found = {(problem.case_id, problem.object) for problem in verify(dataset).problems}
    assert found >= {("case-0000", "ct/0/c.0.0.0"), ("case-0001", "labels/maisi/0/c.0.0.0")}
    assert not any(case_id == "case-0002" for case_id, _ in found)


def test_a_sealed_dataset_is_scanned_where_it_lies(s3_proxy: S3Proxy) -> None:
    uri, cases = fresh_uri(), [make_case(n) for n in range(4)]
    dataset = Dataset.create(uri, manifest_of(cases))
    for number, case in enumerate(cases):
        commit(dataset.storage, write_case(dataset, case))
        seal(dataset.storage, f"unit-{number}", [(case.case_id, case.key)])
    opened = Dataset.open(uri)
    assert resume(opened, manifest_of(cases)).done == 4
    catalog = opened.catalog
    s3_proxy.exchanges.clear()
    assert catalog.to_table(columns=["case_id"])["case_id"].to_pylist() == [case.case_id for case in cases]
    size = sum(entry.bytes for entry in opened.storage.list("catalog") if entry.name.endswith(".parquet"))
    assert s3_proxy.reads()[1] < size + 4 * 65_536


def test_a_heartbeat_that_brings_a_generation_back_gives_way(s3_uri: str, caplog: pytest.LogCaptureFixture) -> None:
    storage = open_storage(s3_uri)
    first = RunLock(storage, heartbeat_seconds=0.3).acquire()
    real, beating, go = storage.touch, threading.Event(), threading.Event()

    def slow(name: str) -> None:
        data = storage.read(name)
        beating.set()
        go.wait(60)
        storage.write(name, data)

    storage.touch = slow  # type: ignore[method-assign]
    assert beating.wait(60)
    other = open_storage(s3_uri)
    time.sleep(1.1)  # an object store dates to the second
    with caplog.at_level(logging.WARNING), RunLock(other, stale_seconds=0.0) as second:
        go.set()
        storage.touch = real  # type: ignore[method-assign]
        assert first._lost.wait(60)
        with pytest.raises(StoreError, match="taken over"):
            first.check()
        second.check()
        first.release()
        assert [entry.name for entry in other.list("lock")] == ["lock/000002.json"]
    assert list(other.list("lock")) == []


def test_a_run_that_is_killed_again_and_again_is_finished_byte_for_byte(
    seaweedfs: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seaweedfs.enter(monkeypatch)
    uri, faults = fresh_uri(), tmp_path / "faults.json"
    command = [sys.executable, "-m", "tests.store.store_maker", uri, "4", "", "-1"]
    kills = [("file.begin", "volumes/*", 9), ("commit.made", "*", 2)]
    for point, name, nth in kills:
        faults.write_text(json.dumps({f"@{point}": {"fault": "kill", "object": name, "nth": nth}}))
        ended = subprocess.run(command, cwd=ROOT, env={**os.environ, "CTMR_FAULTS": str(faults)}, timeout=300, check=False)
        assert ended.returncode == -signal.SIGKILL, point
    subprocess.run(command, cwd=ROOT, timeout=300, check=True)
    remote, cases = Dataset.open(uri), [make_case(n) for n in range(4)]
    local = make_dataset(tmp_path / "ds", cases)
    assert verify(remote).ok
    assert verify(remote).digest == verify(local).digest
    assert resume(remote, manifest_of(cases)).done == 4
    assert orphans(remote) == []
    assert list(remote.storage.list("lock")) == list(remote.storage.list("probe")) == []


def test_a_storage_is_opened_late() -> None:
    storage = open_storage("s3://bucket/x")
    assert isinstance(storage, ObjectStorage)
    assert "objects" not in vars(storage)
