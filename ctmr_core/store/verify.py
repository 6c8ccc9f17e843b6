"""Proving that a dataset is what its commit records say."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow.dataset as pads

from ctmr_core.errors import IntegrityError
from ctmr_core.store.commits import content_digest, read_commit_named
from ctmr_core.store.dataset import Dataset
from ctmr_core.store.lazy import Volume
from ctmr_core.store.resume import unsealed_commits
from ctmr_core.store.storage import Storage
from ctmr_core.store.volumes import voxel_digest

_COLUMNS = ("case_id", "case_key", "status", "volume", "objects", "voxel_digest", "content_digest")
_BATCH_ROWS = 2_000


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: the case, the object of its volume ("" = the volume or record as a whole), and what."""

    case_id: str
    object: str
    what: str


@dataclass(frozen=True)
class VerifyReport:
    """``digest``: SHA-256 over (case_key, status, content_digest) of all committed cases; ``cases``: how many; ``problems``."""

    digest: str
    cases: int
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        return not self.problems


def verify(dataset: Dataset, deep: bool = True, threads: int = 1, case_ids: Collection[str] | None = None) -> VerifyReport:
    """Re-read every object of every committed case, sealed or not.

    Per object: is it there, its size, its SHA-256; per volume: does it decode, are the decoded voxels those of the
    record. deep=False looks at presence and sizes alone. threads: cases looked at together; the report does not depend on it.
    case_ids: only these cases.
    """
    storage, loose = dataset.storage, _unsealed_rows(dataset)
    only = None if case_ids is None else pads.field("case_id").isin(list(case_ids))
    if case_ids is not None:
        loose = [row for row in loose if row["case_id"] in set(case_ids)]
    lines = [
        line
        for batch in dataset.ledger.to_batches(columns=["case_key", "status", "content_digest"], filter=only)
        for line in zip(*(column.to_pylist() for column in batch.columns), strict=True)
    ]
    lines += [(row["case_key"], row["status"], row["content_digest"]) for row in loose]
    problems: list[Problem] = []
    with ThreadPoolExecutor(max(threads, 1)) as pool:
        for rows in _batches(dataset, loose, only):
            for found in pool.map(lambda row: list(_problems(storage, row, deep)), rows):
                problems.extend(found)
    problems.sort(key=lambda problem: problem.case_id)
    return VerifyReport(dataset_digest(lines), len(lines), tuple(problems))


def dataset_digest(lines: Iterable[tuple[str, str, str]]) -> str:
    """SHA-256 hex over the sorted (case_key, status, content_digest): equal for equal datasets, whoever made them, whenever."""
    sha = hashlib.sha256()
    for line in sorted(lines):
        sha.update(f"{' '.join(line)}\n".encode())
    return sha.hexdigest()


def _unsealed_rows(dataset: Dataset) -> list[dict[str, Any]]:
    rows = [read_commit_named(dataset.storage, *ref).catalog_row() for ref in unsealed_commits(dataset)]
    if dataset.manifest is None:
        return rows
    planned = set(dataset.manifest["case_key"].to_pylist()) if rows else set()
    return [row for row in rows if row["case_key"] in planned]


def _batches(dataset: Dataset, loose: list[dict[str, Any]], only: pads.Expression | None) -> Iterator[list[dict[str, Any]]]:
    """The current committed rows, a few thousand at a time: a million rows with their objects would fill the memory."""
    for batch in dataset.ledger.to_batches(columns=list(_COLUMNS), filter=only, batch_size=_BATCH_ROWS):
        yield batch.to_pylist()
    yield loose


def _problems(storage: Storage, row: dict[str, Any], deep: bool) -> Iterator[Problem]:
    case_id, volume = row["case_id"], row["volume"]
    pairs = [(entry["name"], entry["sha256"]) for entry in row["objects"] or ()]
    if content_digest(row["case_key"], row["status"], pairs, row["voxel_digest"] or "") != row["content_digest"]:
        yield Problem(case_id, "", "the record's content digest does not fit the digests it lists")
    if row["status"] != "accepted":
        return
    readable = True
    for entry in row["objects"]:
        what = _object_problem(storage, f"{volume}/{entry['name']}", entry, deep)
        if what:
            readable = readable and not what.startswith("missing")
            yield Problem(case_id, entry["name"], what)
    if not deep:
        return
    try:
        arrays = {name: array.read(order="C") for name, array in Volume(storage, case_id, volume).arrays().items()}
    except IntegrityError as error:
        if readable:
            yield Problem(case_id, "", f"does not decode: {error.found}")
        return
    if voxel_digest(arrays) != row["voxel_digest"]:
        yield Problem(case_id, "", "the decoded voxels are not those that were committed")


def _object_problem(storage: Storage, name: str, entry: dict[str, Any], deep: bool) -> str | None:
    if not deep:
        found = storage.stat(name)
        if found is None:
            return "missing"
        return None if found.bytes == entry["bytes"] else f"{found.bytes} bytes, {entry['bytes']} were committed"
    try:
        data = storage.read(name)
    except FileNotFoundError:
        return "missing"
    if len(data) != entry["bytes"]:
        return f"{len(data)} bytes, {entry['bytes']} were committed"
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        return "the SHA-256 is not the one that was committed"
    return None
