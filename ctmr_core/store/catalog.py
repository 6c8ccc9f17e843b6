"""The catalog: one row per committed case, in Parquet; the index of a dataset.

Rows are first sealed by work unit (``part-<unit>-<digest>.parquet``), then merged into files of at least 10,000 rows:
scanning 10,000 small files takes a hundred times as long as one big one. The parts that count are those the highest version
document lists, plus any sealed since. A file is deleted one compaction after it was merged, so that open readers keep what
they opened.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ctmr_core.anatomy.label_census import LabelCensus
from ctmr_core.anatomy.label_map import LabelMap
from ctmr_core.cases.case import Case
from ctmr_core.errors import IntegrityError, StoreError
from ctmr_core.quality.base import Verdict
from ctmr_core.store import layout
from ctmr_core.store.commits import CaseRef, read_commit, read_commit_named
from ctmr_core.store.drills import reach
from ctmr_core.store.storage import Storage, json_bytes, read_json

MERGED_ROWS = 100_000
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
        ("size", _TRIPLE),
        ("spacing", _MM),
        ("center", pa.string()),
        ("lesions", pa.list_(pa.struct([("label", pa.string()), ("diameter", pa.float64())]))),
        ("deformation", pa.float64()),
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
    manifest = case.model_dump(mode="json")
    for field in ("engine_parameters", "checks"):
        manifest[field] = json.dumps(manifest[field], sort_keys=True)
    entries = [census.entries[label] for label in sorted(census.entries)] if census else []
    return {
        **manifest,
        "body_identity": case.body_identity,
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


def parquet_bytes(table: pa.Table) -> bytes:
    """The table as Parquet (zstd); equal tables are equal bytes."""
    sink = BytesIO()
    pq.write_table(table, sink, compression="zstd", row_group_size=MERGED_ROWS)
    return sink.getvalue()


@dataclass(frozen=True)
class CatalogState:
    """Which files make up the catalog now. ``retired``: merged at the last compaction, still there for open readers."""

    version: int
    parts: tuple[str, ...]
    retired: tuple[str, ...]


def catalog_state(storage: Storage) -> CatalogState:
    """The parts of the highest version document, and those sealed since."""
    files = [entry.name for entry in storage.list(layout.CATALOG)]
    versions = [name for name in files if name.startswith(f"{layout.CATALOG_VERSIONS}/")]
    present = {name for name in files if name.endswith(".parquet")}
    sealed = {name for name in present if name.startswith(f"{layout.CATALOG}/part-")}
    if not versions:
        return CatalogState(0, tuple(sorted(sealed)), ())
    latest = max(versions)
    document = read_json(storage, latest)
    listed = {entry["name"] for entry in document["parts"]}
    retired = set(document["retired"])
    if missing := sorted(listed - present):
        raise IntegrityError("a catalog file is missing", where=f"{storage.uri}/{latest}", found=missing[0])
    return CatalogState(int(document["version"]), tuple(sorted(listed | (sealed - retired))), tuple(sorted(retired)))


def arrow_source(storage: Storage, names: Sequence[str]) -> tuple[Any, list[str]]:
    """The Arrow file system behind the storage and the paths on it of the files ``names``, to read them with push-down."""
    from pyarrow.fs import LocalFileSystem

    if hasattr(storage, "arrow_files"):
        filesystem, paths = storage.arrow_files(names)
        return filesystem, list(paths)
    paths = [storage.local_path(name) for name in names]
    if None in paths:
        raise StoreError("Parquet files can not be read from this kind of storage", where=storage.uri, allowed="a local folder")
    return LocalFileSystem(), [str(path) for path in paths]


def read_part(storage: Storage, name: str, columns: Sequence[str] | None = None) -> pa.Table:
    """One catalog file as a table; ``IntegrityError`` naming it when it can't be read."""
    try:
        source = storage.local_path(name) or BytesIO(storage.read(name))
        return pq.read_table(source, columns=list(columns) if columns else None)
    except FileNotFoundError as error:
        raise IntegrityError("a catalog file is missing", where=f"{storage.uri}/{name}") from error
    except (pa.ArrowInvalid, OSError) as error:
        raise IntegrityError("a catalog file can not be read", where=f"{storage.uri}/{name}", found=str(error)) from error


def read_parts(storage: Storage, columns: Sequence[str] | None = None) -> pa.Table:
    """The named columns of every committed row that is sealed (all columns by default); one row per case key."""
    wanted = list(columns) if columns else SCHEMA.names
    parts = [read_part(storage, name, wanted) for name in catalog_state(storage).parts]
    return pa.concat_tables(parts) if parts else pa.schema([SCHEMA.field(name) for name in wanted]).empty_table()


def seal(storage: Storage, unit_id: str, case_refs: Iterable[CaseRef]) -> str | None:
    """Put the committed cases of a work unit into the catalog; the part's name, None when none of them is committed.

    Safe to repeat and to race: the part's name holds a digest of its bytes, and equal commits give equal bytes.
    """
    records = [record for case_id, key in case_refs if (record := read_commit(storage, case_id, key)) is not None]
    return _write_part(storage, unit_id, rows_table(record.catalog_row() for record in records))


def seal_missing(storage: Storage, refs: Iterable[tuple[str, str]]) -> str | None:
    """Put commits left unsealed by a crash into the catalog; ``refs``: (case_id, first 16 digits of case_key)."""
    ordered = sorted(set(refs))
    if not ordered:
        return None
    return _write_part(storage, "recovered", rows_table(read_commit_named(storage, *ref).catalog_row() for ref in ordered))


def _write_part(storage: Storage, unit_id: str, table: pa.Table) -> str | None:
    if not table.num_rows:
        return None
    data = parquet_bytes(table)
    name = layout.part_name(f"{unit_id}-{hashlib.sha256(data).hexdigest()[:12]}")
    reach("seal.begin", name)
    storage.create(name, data)
    reach("seal.made", name)
    return name


def compact(storage: Storage, min_rows: int = 10_000) -> CatalogState:
    """Merge files of fewer than ``min_rows`` rows; the new state. Nothing happens when there is at most one such file.

    Merged files hold at most 100,000 rows sorted by case id and are named after their content. The new version document is
    written last and only if nobody else has written that version.
    """
    state = catalog_state(storage)
    keys = {name: read_part(storage, name, ["case_key"]) for name in state.parts}
    small = [name for name in state.parts if keys[name].num_rows < min_rows]
    if len(small) < 2:
        return state
    reach("compact.begin")
    kept = [name for name in state.parts if name not in small]
    rows = _distinct(pa.concat_tables([read_part(storage, name) for name in small]), [keys[name] for name in kept])
    parts = [_entry(storage, name, keys[name].num_rows) for name in kept]
    for start in range(0, rows.num_rows, MERGED_ROWS):
        piece = rows.slice(start, MERGED_ROWS).combine_chunks()
        data = parquet_bytes(piece)
        name = f"{layout.CATALOG}/merged-{hashlib.sha256(data).hexdigest()[:16]}.parquet"
        storage.create(name, data)
        parts.append(_entry(storage, name, piece.num_rows))
    parts.sort(key=lambda entry: str(entry["name"]))
    version = state.version + 1
    listed = {entry["name"] for entry in parts}
    document = {"version": version, "parts": parts, "retired": sorted({*small, *state.retired} - listed)}
    reach("compact.merged")
    if storage.create(f"{layout.CATALOG_VERSIONS}/{version:08d}.json", json_bytes(document)):
        reach("compact.made")
        for name in sorted(set(state.retired) - listed):
            storage.delete(name)
    return catalog_state(storage)


def _entry(storage: Storage, name: str, rows: int) -> dict[str, Any]:
    return {"name": name, "rows": rows, "sha256": hashlib.sha256(storage.read(name)).hexdigest()}


def _distinct(table: pa.Table, elsewhere: Sequence[pa.Table] = ()) -> pa.Table:
    """Sorted by case id and key, one row per key, without the keys that other files hold."""
    ordered = table.sort_by([("case_id", "ascending"), ("case_key", "ascending")])
    if elsewhere:
        held = pa.concat_tables(elsewhere).column("case_key").combine_chunks()
        ordered = ordered.filter(pc.invert(pc.is_in(ordered.column("case_key"), value_set=held)))
    return ordered.take(first_of_each(ordered.column("case_key")))


def first_of_each(values: pa.ChunkedArray) -> pa.Array:
    """Positions of the first occurrence of every distinct value, ascending."""
    numbered = pa.table({"value": values, "position": pa.array(range(len(values)), pa.int64())})
    first = numbered.group_by("value", use_threads=False).aggregate([("position", "min")]).column("position_min")
    return first.combine_chunks().sort()
