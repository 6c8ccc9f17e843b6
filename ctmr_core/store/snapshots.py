"""Snapshots: named, immutable lists of accepted cases, with recipe and card.

``snapshots/<name>.json`` says what the snapshot is; ``snapshots/rows/<digest>.parquet`` hold the whole catalog rows of its
cases, sorted by case id. Nothing else is needed to train from it, and nothing that happens to the dataset later changes what
it shows. The digest of a snapshot is the SHA-256 of its (case_id, case_key, content_digest): equal lists have equal digests,
whoever made the cases, whenever. The rows are cut where the cases' keys say so, not every so many rows, and every piece is
named after its content: a snapshot of a dataset that grew stores just what is new.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from ctmr_core.errors import IntegrityError, StoreError
from ctmr_core.store import layout
from ctmr_core.store.catalog import parquet_bytes, parts_dataset, read_part, read_parts
from ctmr_core.store.keys import key_numbers
from ctmr_core.store.snapshot_diff import SnapshotDiff, compare_rows, strata
from ctmr_core.store.storage import Storage, json_bytes, read_json

if TYPE_CHECKING:
    from ctmr_core.store.dataset import Dataset

__all__ = [
    "Snapshot",
    "SnapshotDiff",
    "create_snapshot",
    "delete_snapshot",
    "diff_snapshots",
    "list_snapshots",
    "read_snapshot",
    "snapshot_volumes",
]

SNAPSHOT_SCHEMA = 1
SHORT_DIGEST = 12
_MEAN_PIECE = 16_384  # rows; a power of two
_MOST_ROWS = 32_768  # held in memory while a piece is written: about 200 MB
_IDENTITY = ("case_id", "case_key", "content_digest")
_SUMMARY = ("bytes", "split", "sequences", "body", "engine", "lesions", "licences")


@dataclass(frozen=True)
class Snapshot:
    """What a snapshot is.

    digest: SHA-256 hex of its cases. created: ISO 8601, UTC. parent: name of the newest snapshot there was before, "" for the
    first. counts: what -> value -> cases (``counts["sequences"]["ct"]``). bytes: of the volumes. recipe: what the cases were
    planned from. card: Markdown for people. policy: digest of the rules that chose the cases, "" when all were taken.
    rows_files: the Parquet files with its rows.
    """

    name: str
    digest: str
    created: str
    parent: str
    cases: int
    bytes: int
    counts: dict[str, dict[str, int]]
    recipe: dict[str, Any]
    card: str
    policy: str
    note: str
    rows_files: tuple[str, ...]
    storage: Storage = field(repr=False, compare=False)

    @property
    def uri(self) -> str:
        """Where its document is."""
        return f"{self.storage.uri}/{layout.snapshot_name(self.name)}"

    def rows(self) -> pads.Dataset:
        """The catalog rows of its cases, a lazy ``pyarrow.dataset`` sorted by case id."""
        return parts_dataset(self.storage, self.rows_files)

    def table(self, columns: Sequence[str]) -> pa.Table:
        """Columns of its rows, sorted by case id; ``IntegrityError`` naming the file when one is missing or damaged."""
        return read_parts(self.storage, columns, self.rows_files)

    def document(self) -> dict[str, Any]:
        """Everything but the storage, as JSON-able values."""
        fields = {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self) if entry.name != "storage"}
        return {**fields, "rows_files": list(self.rows_files), "schema": SNAPSHOT_SCHEMA}


def create_snapshot(
    dataset: Dataset,
    name: str | None = None,
    *,
    cases: Sequence[str] | None = None,
    filter: pads.Expression | None = None,  # noqa: A002
    recipe: Mapping[str, Any] | None = None,
    card: str | None = None,
    note: str = "",
    policy: str | None = None,
) -> Snapshot:
    """Keep the accepted cases of ``dataset`` as they are now, or those of them that ``cases`` (ids) and ``filter`` leave.

    name: default the first digits of the digest. Making the same snapshot again gives the one that is there; a name that stands
    for other cases is a ``StoreError``, and so are cases the dataset does not have. card: default a summary.
    """
    storage = dataset.storage
    light = _chosen(dataset, cases, filter)
    digest = _digest(light)
    standing = list_snapshots(storage)
    for snapshot in standing:
        if snapshot.digest == digest if name is None else snapshot.name == name:
            return _same(snapshot, digest)
    pieces = list(_pieces(light))
    files = tuple(_write_piece(dataset, piece) for piece in pieces)
    counts = strata(light)
    size = int(pc.sum(light["bytes"]).as_py() or 0)
    snapshot = Snapshot(
        name=name if name is not None else digest[:SHORT_DIGEST],
        digest=digest,
        created=datetime.now(UTC).isoformat(timespec="microseconds"),
        parent=standing[-1].name if standing else "",
        cases=light.num_rows,
        bytes=size,
        counts=counts,
        recipe=dict(recipe or {}),
        card=card if card is not None else _card(digest, light.num_rows, size, counts, note),
        policy=policy or "",
        note=note,
        rows_files=files,
        storage=storage,
    )
    if not storage.create(layout.snapshot_name(snapshot.name), json_bytes(snapshot.document())):
        return _same(read_snapshot(storage, snapshot.name), digest)
    for piece in pieces:  # a snapshot deleted in the meantime may have taken shared rows with it
        _write_piece(dataset, piece)
    return snapshot


def list_snapshots(storage: Storage) -> list[Snapshot]:
    """All snapshots, oldest first."""
    names = [entry.name for entry in storage.list(layout.SNAPSHOTS) if entry.name.endswith(".json")]
    return sorted((_parsed(storage, name) for name in names), key=lambda snapshot: (snapshot.created, snapshot.name))


def read_snapshot(storage: Storage, ref: str) -> Snapshot:
    """The snapshot of that name, or whose digest begins with ``ref`` (4 digits or more); ``StoreError`` if none or several do."""
    standing = list_snapshots(storage)
    named = [snapshot for snapshot in standing if snapshot.name == ref]
    found = named or [snapshot for snapshot in standing if len(ref) >= 4 and snapshot.digest.startswith(ref)]
    if not found:
        names = [snapshot.name for snapshot in standing]
        raise StoreError("there is no such snapshot", where=storage.uri, found=ref, allowed=names or "none was made yet")
    if len({snapshot.digest for snapshot in found}) > 1:
        several = [f"{snapshot.name} ({snapshot.digest[:SHORT_DIGEST]})" for snapshot in found]
        raise StoreError("several snapshots have a digest that begins so", where=storage.uri, found=ref, allowed=several)
    return found[0]


def delete_snapshot(storage: Storage, ref: str) -> Snapshot:
    """Forget a snapshot, with the rows no other snapshot shares; the volumes stay. What was deleted.

    Not to be called while a snapshot is being made.
    """
    snapshot = read_snapshot(storage, ref)
    storage.delete(layout.snapshot_name(snapshot.name))
    kept = {name for other in list_snapshots(storage) for name in other.rows_files}
    for name in snapshot.rows_files:
        if name not in kept:
            storage.delete(name)
    return snapshot


def snapshot_volumes(storage: Storage) -> Iterator[str]:
    """The path of every volume that any snapshot names, read as they are asked for: these must not be removed.

    One that lies in several files of rows comes several times.
    """
    files = {name for snapshot in list_snapshots(storage) for name in snapshot.rows_files}
    for name in sorted(files):
        yield from read_part(storage, name, ["volume"])["volume"].to_pylist()


def diff_snapshots(a: Snapshot, b: Snapshot) -> SnapshotDiff:
    """What became of ``a`` in ``b``: cases added, removed and changed (same id, other key or content), counts, distributions."""
    return compare_rows(a.table, b.table)


def _chosen(dataset: Dataset, cases: Sequence[str] | None, expression: pads.Expression | None) -> pa.Table:
    light = dataset.catalog.to_table(columns=[*_IDENTITY, *_SUMMARY], filter=expression)
    if cases is not None:
        wanted = pa.array(sorted(set(cases)), pa.string())
        light = light.filter(pc.is_in(light["case_id"], value_set=wanted))
        if light.num_rows < len(wanted) and expression is None:
            lost = wanted.filter(pc.invert(pc.is_in(wanted, value_set=light["case_id"].combine_chunks())))
            raise StoreError(
                "the dataset has no such accepted case",
                where=dataset.uri,
                found=lost.slice(0, 5).to_pylist(),
                allowed="ids of accepted cases, see `Dataset.to_pandas`",
            )
    return light.sort_by("case_id")


def _digest(light: pa.Table) -> str:
    sha = hashlib.sha256()
    lines = pc.binary_join_element_wise(*(light[name].cast(pa.string()) for name in _IDENTITY), " ")
    for start in range(0, len(lines), _MOST_ROWS):
        block = lines.slice(start, _MOST_ROWS).to_pylist()
        sha.update("".join(f"{line}\n" for line in block).encode())
    return sha.hexdigest()


def _pieces(light: pa.Table) -> Iterator[pa.Table]:
    """Runs of rows that end after keys with 14 zero bits, or at 32,768 rows: a case more or less changes one run."""
    if not light.num_rows:
        return
    ends = np.flatnonzero(key_numbers(light["case_key"])[:, 0] % _MEAN_PIECE == 0) + 1
    start = 0
    for end in [*ends.tolist(), light.num_rows]:
        for begin in range(start, end, _MOST_ROWS):
            yield light.slice(begin, min(_MOST_ROWS, end - begin))
        start = end


def _write_piece(dataset: Dataset, piece: pa.Table) -> str:
    name = layout.snapshot_rows_name(_digest(piece)[:32])
    if dataset.storage.stat(name) is not None:
        return name
    ids = piece["case_id"].combine_chunks()
    within = (pads.field("case_id") >= ids[0]) & (pads.field("case_id") <= ids[-1])
    rows = dataset.catalog.to_table(filter=within & pads.field("case_id").isin(ids)).sort_by("case_id")
    if not rows["content_digest"].equals(piece["content_digest"]):
        raise StoreError("the dataset changed while a snapshot was made", where=dataset.uri, fix="make the snapshot again")
    dataset.storage.create(name, parquet_bytes(rows.combine_chunks()))
    return name


def _same(snapshot: Snapshot, digest: str) -> Snapshot:
    if snapshot.digest != digest:
        raise StoreError(
            "the name stands for another snapshot, and snapshots never change",
            where=snapshot.uri,
            found=digest[:SHORT_DIGEST],
            allowed=snapshot.digest[:SHORT_DIGEST],
            fix="take another name, or delete that snapshot",
        )
    return snapshot


def _card(digest: str, cases: int, size: int, counts: dict[str, dict[str, int]], note: str) -> str:
    lines = [
        "# Synthetic CT and MR volumes",
        "",
        *([note, ""] if note else []),
        f"{cases:,} cases, {size / 1e9:,.2f} GB. Digest {digest}.",
        "All images and labels are synthetic: no voxel is a measurement of a patient.",
        "",
        "| | | cases |",
        "|---|---|---|",
    ]
    lines += [f"| {what} | {value} | {number:,} |" for what, values in counts.items() for value, number in values.items()]
    return "\n".join(lines) + "\n"


def _parsed(storage: Storage, name: str) -> Snapshot:
    document = read_json(storage, name)
    if not isinstance(document, dict) or document.get("schema") != SNAPSHOT_SCHEMA:
        found = document.get("schema") if isinstance(document, dict) else type(document).__name__
        raise StoreError(
            "the snapshot was written with another schema",
            where=f"{storage.uri}/{name}, field schema",
            found=found,
            allowed=str(SNAPSHOT_SCHEMA),
            fix="use the version of ctmr-factory it was made with",
        )
    fields = {key: value for key, value in document.items() if key != "schema"}
    try:
        return Snapshot(**{**fields, "rows_files": tuple(fields["rows_files"])}, storage=storage)
    except (TypeError, KeyError) as error:
        raise IntegrityError("not a snapshot document", where=f"{storage.uri}/{name}", found=str(error)) from error
