"""Records appear whole or not at all, on a disk and in an object store alike, and never outside the dataset."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

from ctmr_core.errors import IntegrityError, StoreError
from ctmr_core.store import layout, open_storage
from ctmr_core.store.local import LocalStorage
from ctmr_core.store.storage import Storage, checked_name, json_bytes, read_json
from tests.s3_servers import fresh_uri


@pytest.fixture(params=["disk", "seaweedfs", "moto"])
def storage(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    if request.param == "disk":
        return open_storage(tmp_path)
    request.getfixturevalue(request.param).enter(monkeypatch)
    return open_storage(fresh_uri(), make=True)


def test_create_writes_once_and_write_replaces(storage: Storage) -> None:
    assert storage.create("commits/0a/x.json", b"one")
    assert not storage.create("commits/0a/x.json", b"two")
    assert storage.read("commits/0a/x.json") == b"one"
    storage.write("commits/0a/x.json", b"three")
    assert storage.read("commits/0a/x.json") == b"three"
    found = storage.stat("commits/0a/x.json")
    assert found is not None
    assert found.bytes == 5
    assert abs((found.modified - storage.clock()).total_seconds()) < 60


def test_an_equal_object_that_is_there_is_still_somebody_elses(storage: Storage) -> None:
    assert storage.create("a.json", b"the same")
    assert not storage.create("a.json", b"the same")


RACER = """
import json, os, sys
from ctmr_core.store import open_storage
for order in sys.stdin:
    uri, name, environment = json.loads(order)
    os.environ.update(environment)
    storage = open_storage(uri)
    won = [storage.create(f"commits/00/{i}.json", f"{name} {i}".encode()) for i in range(40)]
    print(json.dumps(won), flush=True)
"""


@pytest.fixture(scope="module")
def racers() -> Iterator[list[subprocess.Popen[str]]]:
    with ExitStack() as stack:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        yield [stack.enter_context(subprocess.Popen([sys.executable, "-c", RACER], **pipes)) for _ in range(4)]


def test_of_many_processes_one_creates(storage: Storage, racers: list[subprocess.Popen[str]]) -> None:
    environment = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    for n, racer in enumerate(racers):
        assert racer.stdin is not None
        print(json.dumps([storage.uri, n, environment]), file=racer.stdin, flush=True)
    won = [json.loads(racer.stdout.readline()) for racer in racers if racer.stdout is not None]
    assert [sum(column) for column in zip(*won, strict=True)] == [1] * 40
    for i in range(40):
        winner = next(n for n in range(4) if won[n][i])
        assert storage.read(f"commits/00/{i}.json") == f"{winner} {i}".encode()


def test_a_touch_moves_the_time_and_keeps_the_object(storage: Storage) -> None:
    storage.create("lock/1.json", b"mine")
    before = storage.stat("lock/1.json")
    storage.touch("lock/1.json")
    after = storage.stat("lock/1.json")
    assert before is not None
    assert after is not None
    assert after.modified >= before.modified
    assert storage.read("lock/1.json") == b"mine"


def test_a_big_object_arrives_whole(storage: Storage) -> None:
    data = np.random.default_rng(0).bytes((16 << 20) + 12_345)
    storage.write_all([("v/big", data), ("v/zarr.json", b"{}")])
    assert storage.read("v/big") == data
    assert [entry.bytes for entry in storage.list("v")] == [len(data), 2]


def test_arrow_reads_columns_and_rows_where_they_lie(storage: Storage) -> None:
    table = pa.table({"case_id": [f"c{i}" for i in range(1000)], "n": range(1000)})
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=100)
    storage.write("catalog/part-a.parquet", sink.getvalue())
    storage.write("catalog/part-b.parquet", sink.getvalue())
    filesystem, paths = storage.arrow_files(["catalog/part-a.parquet", "catalog/part-b.parquet"])
    lazy = pads.dataset(list(paths), format="parquet", filesystem=filesystem)
    assert lazy.count_rows() == 2000
    assert lazy.to_table(columns=["case_id"], filter=pads.field("n") == 7).to_pydict() == {"case_id": ["c7", "c7"]}
    _, missing = storage.arrow_files(["catalog/none.parquet"])
    with pytest.raises(FileNotFoundError):
        pads.dataset(list(missing), format="parquet", filesystem=filesystem).to_table()


def test_listing_and_deleting(storage: Storage) -> None:
    storage.write_all([("v/00/a.1/zarr.json", b"1"), ("v/00/a.1/ct/0/c/0/0/0", b"22"), ("v/1f/b.2/zarr.json", b"3")])
    storage.write("v/1f/c.json", b"4")
    assert sorted(entry.name for entry in storage.scan("v")) == [entry.name for entry in storage.list("v")]
    assert [(e.name, e.bytes) for e in storage.list("v/00")] == [("v/00/a.1/ct/0/c/0/0/0", 2), ("v/00/a.1/zarr.json", 1)]
    assert sorted(storage.entries("v")) == ["00/a.1", "1f/b.2", "1f/c.json"]
    assert list(storage.entries("nothing")) == list(storage.list("nothing")) == list(storage.scan("nothing")) == []
    storage.delete_tree("v/00/a.1")
    storage.delete_tree("v/00/never")
    storage.delete("v/1f/c.json")
    storage.delete("v/1f/c.json")
    left = [entry for entry in storage.entries("v") if list(storage.list(f"v/{entry}"))]
    assert left == ["1f/b.2"]  # an object store may go on showing a folder that has become empty
    assert storage.stat("v/00/a.1/zarr.json") is None
    with pytest.raises(FileNotFoundError):
        storage.read("v/00/a.1/zarr.json")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/etc/passwd",
        "..",
        "a/../b",
        "a/..",
        "./a",
        "a//b",
        "a/",
        ".tmp/x",
        "a\\b",
        "a\nb",
        "a\x00b",
        "-rf",
        "a/é",
        "~",
        "a b",
        "a:b",
    ],
)
def test_names_that_lead_elsewhere_are_refused(storage: Storage, name: str) -> None:
    for deed in (checked_name, storage.read, storage.stat, storage.delete, storage.delete_tree):
        with pytest.raises(StoreError, match="plain segments"):
            deed(name)
    for put in (storage.create, storage.write):
        with pytest.raises(StoreError, match="plain segments"):
            put(name, b"")


@pytest.mark.parametrize("case_id", ["../x", "a.b", "a/b", "", "a\n", "-a", "a" * 81])
def test_case_ids_that_are_not_file_names_are_refused(case_id: str) -> None:
    for place in (layout.volume_path, layout.commit_name, layout.failure_name):
        with pytest.raises(StoreError, match="case id"):
            place(case_id, "0" * 64)


def test_attempt_and_unit_ids_cannot_climb() -> None:
    for text in ("../../x", "a/b", "", "a.b"):
        with pytest.raises(StoreError):
            layout.volume_path("case", text)
        with pytest.raises(StoreError):
            layout.part_name(text)


def test_the_layout_is_spread_and_readable() -> None:
    assert layout.commit_name("case-1", "ab" * 32) == "commits/ba/case-1.abababababababab.json"
    assert layout.volume_path("case-1", "f00") == "volumes/ba/case-1.f00.ome.zarr"
    assert len({layout.fan_out(f"case-{i}") for i in range(5000)}) == 256


def test_a_link_whose_answer_was_lost_counts_as_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = open_storage(tmp_path)
    link = os.link

    def lossy(source: Path, target: Path) -> None:
        link(source, target)
        raise OSError(errno.EEXIST, "the reply got lost and the retry found the name taken")

    monkeypatch.setattr(os, "link", lossy)
    assert storage.create("a.json", b"1")
    monkeypatch.undo()
    assert not storage.create("a.json", b"2")
    assert list((tmp_path / ".tmp").iterdir()) == []


def test_a_full_disk_says_so_and_leaves_no_scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = open_storage(tmp_path)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for put in (storage.create, storage.write):
        with pytest.raises(StoreError, match=r"the disk is full(.|\n)*bytes free(.|\n)*run the same command again"):
            put("a.json", b"1")
    with pytest.raises(StoreError, match="the disk is full"):
        storage.write_all([("v/x", b"1")])
    assert list((tmp_path / ".tmp").iterdir()) == []
    assert storage.stat("a.json") is None


def test_everything_is_synced_before_it_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = open_storage(tmp_path)
    storage.create("first.json", b"1")  # makes the folder of temporary files
    events: list[str] = []
    for name in ("fsync", "link", "rename", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, name=name, real=real, **k: (events.append(name), real(*a, **k))[1])
    storage.create("a.json", b"1")
    assert events == ["fsync", "link", "fsync"]
    events.clear()
    storage.write("a.json", b"2")
    assert events[0] == events[-1] == "fsync"
    assert len(events) == 3


def test_a_cut_document_names_its_file(storage: Storage) -> None:
    storage.write("catalog/x.json", json_bytes({"a": [1, 2, 3]})[:-4])
    with pytest.raises(IntegrityError, match=r"catalog/x\.json"):
        read_json(storage, "catalog/x.json")


def test_canonical_json_does_not_depend_on_order() -> None:
    assert json_bytes({"b": 1, "a": {"d": 0.1, "c": None}}) == json_bytes({"a": {"c": None, "d": 0.1}, "b": 1})


def test_opening(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no dataset folder"):
        open_storage(tmp_path / "nothing")
    with pytest.raises(StoreError, match=r"allowed: a local path"):
        open_storage("ftp://host/x")
    (tmp_path / "a b").mkdir()
    opened = open_storage((tmp_path / "a b").as_uri())
    assert isinstance(opened, LocalStorage)
    assert opened.root == tmp_path / "a b"
