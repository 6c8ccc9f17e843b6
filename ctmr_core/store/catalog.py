"""The catalog: one row per committed case, in Parquet; the index of a dataset.

Rows are first sealed by work unit (``part-<unit>-<digest>.parquet``), then merged into large files (see ``compaction``):
scanning 10,000 small files takes a hundred times as long as one big one. The parts that count are those the highest version
document lists, plus any sealed since.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from ctmr_core.anatomy.label_census import LabelCensus
from ctmr_core.anatomy.label_map import LabelMap
from ctmr_core.cases.case import Case
from ctmr_core.errors import IntegrityError, StoreError
from ctmr_core.quality.base import Verdict
from ctmr_core.store import layout
from ctmr_core.store.commits import CaseRef, CommitRecord, read_commit, read_commit_named
from ctmr_core.store.drills import reach
from ctmr_core.store.storage import Storage, read_json

ROW_GROUP = 512  # rows decoded to get at one of them; smaller groups make the footers of a million rows slow to read
_RECOVERED_ROWS = 10_000
_TRIPLE = pa.list_(pa.int32(), 3)
_MM = pa.list_(pa.float64(), 3)

#: Columns of the catalog. Boxes are (x0, y0, z0, x1, y1, z1) voxel indices, upper bounds exclusive; label columns run in step.
SCHEMA = pa.schema(
    [
        ("case_id", pa.string()),
        ("case_key", pa.string()),
        ("status", pa.string()),
        ("attempt", pa.int32()),
        # the manifest row
        ("body", pa.string()),
        ("body_seed", pa.int64()),
        ("body_identity", pa.string()),
        ("split", pa.string()),
        ("sequences", pa.list_(pa.string())),
        ("sequence_set", pa.string()),  # the sequences joined by "+": a column that a filter can be pushed down to
        ("size", _TRIPLE),
        ("spacing", _MM),
        ("center", pa.string()),
        ("lesions", pa.list_(pa.struct([("label", pa.string()), ("diameter", pa.float64())]))),
        ("deformation", pa.float64()),
        ("pose", pa.list_(pa.float64())),  # nod, turn, tilt in degrees; null where the body was not turned
        ("engine", pa.string()),
        ("engine_parameters", pa.string()),
        ("checks", pa.string()),
        ("max_attempts", pa.int32()),
        ("seed", pa.int64()),
        ("template_digest", pa.string()),
        ("engine_identity", pa.string()),
        # what was made
        ("vocabulary", pa.string()),
        ("affine", pa.list_(pa.float64(), 16)),
        ("label_ids", pa.list_(pa.int32())),
        ("label_voxels", pa.list_(pa.int64())),
        ("label_volumes_ml", pa.list_(pa.float64())),
        ("label_boxes", pa.list_(pa.list_(pa.int32(), 6))),
        ("label_centroids", pa.list_(_MM)),
        ("label_samples", pa.list_(pa.list_(_TRIPLE))),
        ("image_parameters", pa.string()),
        # how good it is
        ("scores", pa.map_(pa.string(), pa.float64())),
        ("reasons", pa.list_(pa.string())),
        ("judged", pa.list_(pa.string())),  # "<check>@<version>" of the checks that ran
        ("policy_digest", pa.string()),
        # where it is
        ("volume", pa.string()),
        ("bytes", pa.int64()),
        ("objects", pa.list_(pa.struct([("name", pa.string()), ("bytes", pa.int64()), ("sha256", pa.string())]))),
        ("voxel_digest", pa.string()),
        ("content_digest", pa.string()),
        # where it comes from
        ("engine_version", pa.string()),
        ("weights_digest", pa.string()),
        ("versions", pa.map_(pa.string(), pa.string())),
        ("licences", pa.list_(pa.string())),
        ("timings", pa.map_(pa.string(), pa.float64())),
        ("host", pa.string()),
        ("finished_at", pa.string()),
    ]
)


_REPEATING = [
    "sequences.list.element",
    "lesions.list.element.label",
    "label_ids.list.element",
    "objects.list.element.name",
    "scores.key_value.key",
    "versions.key_value.key",
    "versions.key_value.value",
    "timings.key_value.key",
    "licences.list.element",
    "reasons.list.element",
    "judged.list.element",
    "affine.list.element",
]


def build_row(
    case: Case,
    *,
    label_map: LabelMap | None = None,
    census: LabelCensus | None = None,
    verdict: Verdict | None = None,
    image_parameters: Mapping[str, Any] | None = None,
    engine_version: str = "",
    weights_digest: str = "",
    versions: Mapping[str, str] | None = None,
    licences: Sequence[str] = (),
    timings: Mapping[str, float] | None = None,
    host: str = "",
    finished_at: str = "",
) -> dict[str, Any]:
    """The catalog row of one case as JSON-able values, for ``CommitRecord.row``.

    timings: step -> seconds. finished_at: ISO 8601, UTC. Digests, status, attempt and volume come from the commit record.
    """
    manifest = case.model_dump(mode="json", exclude=None if case.pose else {"pose"})
    for field in ("engine_parameters", "checks"):
        manifest[field] = json.dumps(manifest[field], sort_keys=True)
    entries = [census.entries[label] for label in sorted(census.entries)] if census else []
    return {
        **manifest,
        "body_identity": case.body_identity,
        "sequence_set": "+".join(case.sequences),
        "vocabulary": label_map.vocabulary.name if label_map else None,
        "affine": [float(v) for v in label_map.affine.reshape(-1)] if label_map else None,
        "label_ids": [entry.id for entry in entries],
        "label_voxels": [entry.voxels for entry in entries],
        "label_volumes_ml": [entry.volume_ml for entry in entries],
        "label_boxes": [[int(v) for v in entry.box] for entry in entries],
        "label_centroids": [[float(v) for v in entry.centroid] for entry in entries],
        "label_samples": [[[int(v) for v in place] for place in entry.samples] for entry in entries],
        "image_parameters": json.dumps(image_parameters or {}, sort_keys=True),
        "scores": verdict.scores if verdict else {},
        "reasons": list(verdict.reasons) if verdict else [],
        "judged": list(verdict.checks) if verdict else None,
        "policy_digest": verdict.policy if verdict else None,
        "engine_version": engine_version,
        "weights_digest": weights_digest,
        "versions": dict(versions or {}),
        "licences": list(licences),
        "timings": dict(timings or {}),
        "host": host,
        "finished_at": finished_at,
    }


def rows_table(rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Rows as a table of :data:`SCHEMA`, sorted by case id and key. A field the schema lacks is a ``StoreError``."""
    ordered = sorted(rows, key=lambda row: (row["case_id"], row["case_key"]))
    known = set(SCHEMA.names)
    columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
    for row in ordered:
        if unknown := sorted(set(row) - known):
            raise StoreError("the catalog has no such column", where=str(row["case_id"]), found=unknown, allowed=SCHEMA.names)
        for name in SCHEMA.names:
            value = row.get(name)
            columns[name].append(sorted(value.items()) if isinstance(value, Mapping) else value)
    try:
        return pa.table([pa.array(columns[field.name], field.type) for field in SCHEMA], schema=SCHEMA)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise StoreError("a catalog row holds a value of the wrong kind", found=str(error)) from error


def parquet_bytes(table: pa.Table, row_group: int = ROW_GROUP) -> bytes:
    """The table as Parquet (zstd, checksums on pages); equal tables are equal bytes."""
    sink = BytesIO()
    with parquet_writer(sink, table.schema) as writer:
        writer.write_table(table, row_group_size=row_group)
    return sink.getvalue()


def parquet_writer(sink: BytesIO, schema: pa.Schema) -> pq.ParquetWriter:
    """How every table of a dataset is written: small row groups, and statistics on what people filter by."""
    plain = {"case_id", "case_key", "volume", "bytes", "voxel_digest", "content_digest", "body_seed", "seed", "finished_at"}
    names = [field.name for field in schema if not pa.types.is_nested(field.type)]
    return pq.ParquetWriter(
        sink,
        schema,
        compression="zstd",
        use_dictionary=[name for name in names if name not in plain] + _REPEATING,
        write_statistics=[name for name in names if name not in ("case_key", "voxel_digest", "content_digest", "volume")],
        write_page_checksum=True,
    )


@dataclass(frozen=True)
class CatalogState:
    """Which files make up the catalog now.

    parts: names. listed: what the version document knows about those it lists (name, rows, accepted, bytes, sha256, first and
    last case id). retired: name -> version of the compaction that merged it; still there for open readers.
    """

    version: int
    parts: tuple[str, ...]
    listed: Mapping[str, Mapping[str, Any]]
    retired: Mapping[str, int]

    @property
    def unlisted(self) -> tuple[str, ...]:
        """Parts sealed since the last compaction."""
        return tuple(name for name in self.parts if name not in self.listed)


def catalog_state(storage: Storage) -> CatalogState:
    """The parts of the highest version document, and those sealed since."""
    files = [entry.name for entry in storage.list(layout.CATALOG)]
    versions = [name for name in files if name.startswith(f"{layout.CATALOG_VERSIONS}/")]
    present = {name for name in files if name.endswith(".parquet")}
    sealed = {name for name in present if name.startswith(f"{layout.CATALOG}/part-")}
    if not versions:
        return CatalogState(0, tuple(sorted(sealed)), {}, {})
    latest = max(versions)
    document = read_json(storage, latest)
    version = int(document["version"])
    listed = {entry["name"]: entry for entry in document["parts"]}
    gone = document["retired"]
    retired = dict(gone) if isinstance(gone, dict) else dict.fromkeys(gone, version)  # a list in datasets of the first releases
    if missing := sorted(listed.keys() - present):
        raise IntegrityError("a catalog file is missing", where=f"{storage.uri}/{latest}", found=missing[0])
    return CatalogState(version, tuple(sorted(listed.keys() | (sealed - retired.keys()))), listed, retired)


def parts_dataset(storage: Storage, names: Sequence[str], schema: pa.Schema = SCHEMA) -> pads.Dataset:
    """The files as one lazy table; columns an older file lacks are null."""
    if not names:
        return pads.dataset(schema.empty_table())
    filesystem, paths = storage.arrow_files(names)
    return pads.dataset(paths, format="parquet", schema=schema, filesystem=filesystem)


def read_part(storage: Storage, name: str, columns: Sequence[str] | None = None) -> pa.Table:
    """One catalog file as a table; ``IntegrityError`` naming it when it can't be read."""
    try:
        return parts_dataset(storage, [name]).to_table(columns=list(columns) if columns else None)
    except FileNotFoundError as error:
        raise IntegrityError("a catalog file is missing", where=f"{storage.uri}/{name}") from error
    except (pa.ArrowException, OSError) as error:
        raise IntegrityError("a catalog file can not be read", where=f"{storage.uri}/{name}", found=str(error)) from error


def read_parts(
    storage: Storage,
    columns: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
    filter: pads.Expression | None = None,  # noqa: A002
) -> pa.Table:
    """The named columns (all by default) of the catalog files ``names`` (the current ones by default), in their order."""
    parts = catalog_state(storage).parts if names is None else names
    try:
        paths = [storage.local_path(name) for name in parts]
        if columns and filter is None and parts and all(paths):
            return pa.concat_tables([_columns_of(path, columns) for path in paths if path])
        return parts_dataset(storage, parts).to_table(columns=list(columns) if columns else None, filter=filter)
    except (pa.ArrowException, OSError):
        for name in parts:
            read_part(storage, name, columns)  # says which file is damaged
        raise


def _columns_of(path: Path, columns: Sequence[str]) -> pa.Table:
    """Some columns of one file, in less than half the time the scanner of ``pyarrow.dataset`` takes for small row groups."""
    with pq.ParquetFile(path) as file:
        present = set(file.schema_arrow.names)
        table = file.read(columns=[name for name in columns if name in present], use_threads=False)
        rows = file.metadata.num_rows
    fields = [SCHEMA.field(name) for name in columns]
    arrays = [table[field.name] if field.name in present else pa.nulls(rows, field.type) for field in fields]
    return pa.table(arrays, schema=pa.schema(fields))


def seal(storage: Storage, unit_id: str, case_refs: Iterable[CaseRef]) -> str | None:
    """Put the committed cases of a work unit into the catalog; the part's name, None when none of them is committed.

    Safe to repeat and to race: the part's name holds a digest of its bytes, and equal commits give equal bytes.
    """
    records = (record for case_id, key in case_refs if (record := read_commit(storage, case_id, key)) is not None)
    return seal_records(storage, unit_id, records)


def seal_records(storage: Storage, unit_id: str, records: Iterable[CommitRecord]) -> str | None:
    """:func:`seal` for who still has the records that stand in the dataset: nothing is read back."""
    return write_part(storage, unit_id, rows_table(record.catalog_row() for record in records))


def seal_missing(storage: Storage, refs: Iterable[tuple[str, str]]) -> list[str]:
    """Put commits left unsealed by a crash into the catalog; ``refs``: (case_id, first 16 digits of case_key). Parts made."""
    ordered = sorted(set(refs))
    parts = []
    for start in range(0, len(ordered), _RECOVERED_ROWS):
        records = (read_commit_named(storage, *ref) for ref in ordered[start : start + _RECOVERED_ROWS])
        parts.append(write_part(storage, "recovered", rows_table(record.catalog_row() for record in records)))
    return [name for name in parts if name is not None]


def write_part(storage: Storage, unit_id: str, table: pa.Table) -> str | None:
    """Seal rows (of :data:`SCHEMA`, sorted by case id and key) as the part of a unit; its name, None when there are no rows."""
    if not table.num_rows:
        return None
    data = parquet_bytes(table)
    name = layout.part_name(f"{unit_id}-{hashlib.sha256(data).hexdigest()[:12]}")
    reach("seal.begin", name)
    storage.create(name, data)
    reach("seal.made", name)
    return name


def first_of_each(values: pa.ChunkedArray) -> pa.Array:
    """Positions of the first occurrence of every distinct value, ascending."""
    numbered = pa.table({"value": values, "position": pa.array(np.arange(len(values)))})
    first = numbered.group_by("value", use_threads=False).aggregate([("position", "min")]).column("position_min")
    return first.combine_chunks().sort()
