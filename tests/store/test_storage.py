"""Records appear whole or not at all, on a disk and in an object store alike, and never outside the dataset."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from obstore.store import MemoryStore

from ctmr_core.errors import IntegrityError, StoreError
from ctmr_core.store import layout, open_storage
from ctmr_core.store.storage import LocalStorage, Storage, checked_name, json_bytes, read_json


@pytest.fixture(params=["disk", "objects"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    return open_storage(tmp_path) if request.param == "disk" else Storage("memory://", MemoryStore())


def test_create_writes_once_and_write_replaces(storage: Storage) -> None:
    assert storage.create("commits/0a/x.json", b"one")
    assert not storage.create("commits/0a/x.json", b"two")
    assert storage.read("commits/0a/x.json") == b"one"
    storage.write("commits/0a/x.json", b"three")
    assert storage.read("commits/0a/x.json") == b"three"
    found = storage.stat("commits/0a/x.json")
    assert found is not None
    assert found.bytes == 5


def test_listing_and_deleting(storage: Storage) -> None:
    storage.write_all([("v/00/a.1/zarr.json", b"1"), ("v/00/a.1/ct/0/c/0/0/0", b"22"), ("v/1f/b.2/zarr.json", b"3")])
    storage.write("v/1f/c.json", b"4")
    assert [(e.name, e.bytes) for e in storage.list("v/00")] == [("v/00/a.1/ct/0/c/0/0/0", 2), ("v/00/a.1/zarr.json", 1)]
    assert sorted(storage.entries("v")) == ["00/a.1", "1f/b.2", "1f/c.json"]
    assert list(storage.entries("nothing")) == list(storage.list("nothing")) == []
    storage.delete_tree("v/00/a.1")
    storage.delete_tree("v/00/never")
    storage.delete("v/1f/c.json")
    storage.delete("v/1f/c.json")
    assert sorted(storage.entries("v")) == ["1f/b.2"]
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
