"""The commit point: one small record per case, written last, that either exists whole or not at all.

Any number of processes may try the same case. The first whose record appears has won; the others find it, see that it is not
theirs, and remove their own voxels. A process whose answer got lost finds its own ``attempt_id`` in the record and has won.

A process that was paused, or cut off from its driver, may come to its commit after another run has taken the dataset over and
removed the voxels no record names. So that this never ends in a record without voxels, :func:`withdraw` marks a volume before
it looks for a record, and :func:`commit` makes its record before it looks for a mark: at least one of them sees the other.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ctmr_core.cases.case import CASE_ID_PATTERN
from ctmr_core.errors import IntegrityError, StoreError
from ctmr_core.store import layout
from ctmr_core.store.drills import reach
from ctmr_core.store.storage import Storage, json_bytes, read_json
from ctmr_core.store.volumes import StoredVolume

Record = TypeVar("Record", bound=BaseModel)
CaseRef = tuple[str, str]  #: (case_id, case_key)


class ObjectDigest(BaseModel):
    """One object of a volume: name below the volume's folder, bytes, SHA-256 hex."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    bytes: int
    sha256: str


class CommitRecord(BaseModel):
    """What is committed for one case.

    status: ``accepted`` (volume published) or ``rejected`` (no attempt passed the checks; scores kept, no volume).
    attempt: the attempt that was accepted, or the last one, counted from 0. attempt_id: unique per try of a process.
    volume: path of the volume, None when rejected. row: the catalog row (see ``catalog.build_row``).
    content_digest: SHA-256 over case_key, status, object digests and voxel digest; free of times, hosts and attempt ids.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    case_id: str = Field(pattern=CASE_ID_PATTERN)
    case_key: str = Field(pattern=r"^[0-9a-f]{64}$")
    status: Literal["accepted", "rejected"]
    attempt: int = Field(ge=0)
    attempt_id: str
    volume: str | None = None
    objects: tuple[ObjectDigest, ...] = ()
    voxel_digest: str = ""
    content_digest: str
    row: dict[str, Any]

    @classmethod
    def accepted(
        cls, case_id: str, case_key: str, *, attempt: int, attempt_id: str, stored: StoredVolume, row: dict[str, Any]
    ) -> CommitRecord:
        """The record of a case whose volume is published."""
        objects = tuple(ObjectDigest(name=o.name, bytes=o.bytes, sha256=o.sha256) for o in stored.objects)
        return cls(
            case_id=case_id,
            case_key=case_key,
            status="accepted",
            attempt=attempt,
            attempt_id=attempt_id,
            volume=stored.path,
            objects=objects,
            voxel_digest=stored.voxel_digest,
            content_digest=content_digest(case_key, "accepted", ((o.name, o.sha256) for o in objects), stored.voxel_digest),
            row=row,
        )

    @classmethod
    def rejected(cls, case_id: str, case_key: str, *, attempt: int, attempt_id: str, row: dict[str, Any]) -> CommitRecord:
        """The record of a case none of whose attempts passed the checks."""
        return cls(
            case_id=case_id,
            case_key=case_key,
            status="rejected",
            attempt=attempt,
            attempt_id=attempt_id,
            content_digest=content_digest(case_key, "rejected", (), ""),
            row=row,
        )

    def catalog_row(self) -> dict[str, Any]:
        """``row`` with what the record itself knows filled in."""
        return {
            **self.row,
            "case_id": self.case_id,
            "case_key": self.case_key,
            "status": self.status,
            "attempt": self.attempt,
            "volume": self.volume,
            "objects": [entry.model_dump() for entry in self.objects],
            "bytes": sum(entry.bytes for entry in self.objects),
            "voxel_digest": self.voxel_digest,
            "content_digest": self.content_digest,
        }


class FailureRecord(BaseModel):
    """A case that failed (all attempts raised) or was quarantined (it kills its process).

    attempts: how often it was tried. reason: one line. environment: versions and host facts. row: the manifest row.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    case_id: str = Field(pattern=CASE_ID_PATTERN)
    case_key: str = Field(pattern=r"^[0-9a-f]{64}$")
    status: Literal["failed", "quarantined"]
    attempts: int = Field(ge=0)
    reason: str
    traceback: str = ""
    environment: dict[str, Any] = Field(default_factory=dict)
    row: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True)
class CommitOutcome:
    """``won``: this attempt is the committed one. ``record``: what stands in the dataset, ours or the winner's."""

    won: bool
    record: CommitRecord


def new_attempt_id() -> str:
    """A name no other try has: 32 hex digits."""
    return uuid.uuid4().hex


def content_digest(case_key: str, status: str, objects: Iterable[tuple[str, str]], voxel_digest: str) -> str:
    """SHA-256 hex over the case, its outcome, (name, sha256) of its objects in name order, and its voxels."""
    sha = hashlib.sha256(f"{case_key}\n{status}\n{voxel_digest}\n".encode())
    for name, digest in sorted(objects):
        sha.update(f"{name} {digest}\n".encode())
    return sha.hexdigest()


def commit(storage: Storage, record: CommitRecord) -> CommitOutcome:
    """Make the case committed, or find out who did.

    The volume must be written before. When another attempt has won, this one's voxels are removed. A failure recorded earlier
    for the case is cleared. Raises ``IntegrityError`` when the record found is unreadable and ``StoreError`` when storage fails
    or another run has swept the volume away; then nothing is committed, and a new attempt may.
    """
    name = layout.commit_name(record.case_id, record.case_key)
    standing = record
    reach("commit.begin", name)
    created = storage.create(name, json_bytes(record.model_dump(mode="json")))
    reach("commit.made", name)
    if not created:
        standing = read_commit(storage, record.case_id, record.case_key) or record
    won = standing.attempt_id == record.attempt_id
    if not won and record.volume is not None and record.volume != standing.volume:
        storage.delete_tree(record.volume)
    elif won and record.volume is not None and storage.stat(layout.swept_name(record.volume)) is not None:
        storage.delete(name)
        storage.delete_tree(record.volume)
        raise StoreError("another run has swept this volume away", where=f"{storage.uri}/{record.volume}")
    storage.delete(layout.failure_name(record.case_id, record.case_key))
    return CommitOutcome(won, standing)


def withdraw(storage: Storage, volume: str) -> bool:
    """Remove a volume that no record names, for good: its try can't be committed any more. False: a record names it by now.

    Only the holder of the run lock may do this.
    """
    mark = layout.swept_name(volume)
    storage.create(mark, b"")
    _, fan, folder = volume.split("/")
    case_id = folder.removesuffix(layout.VOLUME_SUFFIX).rpartition(".")[0]
    for entry in storage.list(f"{layout.COMMITS}/{fan}"):
        found, _, key16 = entry.name.rpartition("/")[2].removesuffix(".json").rpartition(".")
        if found == case_id and read_commit_named(storage, case_id, key16).volume == volume:
            storage.delete(mark)
            return False
    storage.delete_tree(volume)
    return True


def read_commit(storage: Storage, case_id: str, case_key: str) -> CommitRecord | None:
    """The commit record of a case, None when it has none; ``IntegrityError`` naming the file when it can't be read."""
    name = layout.commit_name(case_id, case_key)
    try:
        record = parse_record(storage, name, CommitRecord)
    except FileNotFoundError:
        return None
    if (record.case_id, record.case_key) != (case_id, case_key):
        raise IntegrityError(
            "the commit record is about another case",
            where=f"{storage.uri}/{name}",
            found=(record.case_id, record.case_key),
            allowed=f"({case_id}, {case_key})",
        )
    return record


def commit_refs(storage: Storage) -> Iterator[tuple[str, str]]:
    """(case_id, first 16 digits of case_key) of every commit record, from names alone, in no order."""
    return _refs(storage, layout.COMMITS)


def read_commit_named(storage: Storage, case_id: str, key16: str) -> CommitRecord:
    """The commit record a name of :func:`commit_refs` stands for."""
    return parse_record(storage, layout.commit_name(case_id, key16), CommitRecord)


def record_failure(storage: Storage, record: FailureRecord) -> None:
    """Write or replace the failure record of a case."""
    storage.write(layout.failure_name(record.case_id, record.case_key), json_bytes(record.model_dump(mode="json")))


def read_failures(storage: Storage) -> list[FailureRecord]:
    """Every failure record whose case is still not committed, by case id."""
    found = []
    for case_id, key16 in sorted(_refs(storage, layout.FAILURES)):
        if storage.stat(layout.commit_name(case_id, key16)) is None:
            found.append(parse_record(storage, layout.failure_name(case_id, key16), FailureRecord))
    return found


def release_failures(storage: Storage, cases: Collection[str] | None = None) -> list[str]:
    """Forget the failure records of these case ids (all by default), so that the next run tries them again; which there were.

    ``StoreError`` names a case that has no failure record; nothing is released then.
    """
    found = sorted(_refs(storage, layout.FAILURES))
    if cases is not None:
        wanted = set(cases)
        if unknown := sorted(wanted - {case_id for case_id, _ in found}):
            raise StoreError("no such failed or quarantined case", where=storage.uri, found=unknown[0], fix="see `ctmr status`")
        found = [ref for ref in found if ref[0] in wanted]
    for ref in found:
        storage.delete(layout.failure_name(*ref))
    return sorted({case_id for case_id, _ in found})


def _refs(storage: Storage, folder: str) -> Iterator[tuple[str, str]]:
    for entry in storage.entries(folder):
        stem, _, suffix = entry.rpartition("/")[2].rpartition(".")
        if suffix == "json":
            case_id, _, key16 = stem.rpartition(".")
            yield case_id, key16


def parse_record(storage: Storage, name: str, kind: type[Record]) -> Record:
    """The record kept under ``name``; ``FileNotFoundError`` when there is none, ``IntegrityError`` when it is not whole."""
    document = read_json(storage, name)
    try:
        return kind.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        raise IntegrityError(
            f"not a complete {kind.__name__}",
            where=f"{storage.uri}/{name}, field {'.'.join(str(part) for part in first['loc']) or '(top)'}",
            found=first["msg"],
            fix="restore the file, or delete it so that the case is made again",
        ) from error
