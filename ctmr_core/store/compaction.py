"""Merging the small files of the catalog while it grows: few files at any time, every row written about three times.

Parts of work units are merged when there are many of them; files of 10,000 rows and more when together they fill a large one
(65,536 rows). Memory is bounded by one large file. A new version document says which files count from now on; it is written
last, and only if nobody else has written that version. Files that were merged are deleted a quarter of an hour later, so
that readers keep what they opened; a reader that takes longer opens a snapshot.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from io import BytesIO
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from ctmr_core.store import layout
from ctmr_core.store.catalog import (
    ROW_GROUP,
    SCHEMA,
    CatalogState,
    catalog_state,
    first_of_each,
    parquet_writer,
    parts_dataset,
    read_part,
    read_parts,
)
from ctmr_core.store.drills import reach
from ctmr_core.store.storage import Storage, StoredName, json_bytes

SMALL_ROWS = 10_000
LARGE_ROWS = 65_536  # about 200 MB of rows with the labels of a whole torso
DUE_FILES = 128  # opening so many small files takes a fifth of a second
KEEP_SECONDS = 900.0
_KEPT_VERSIONS = 8
_STRIDE = 32 * ROW_GROUP  # rows merged at a time
_COMPACTION_TAKES = timedelta(hours=1)  # at most: a file that no version lists by then never will be listed
_MERGED = f"{layout.CATALOG}/merged-"
_IDENTITY = ("case_id", "case_key")


def compact_if_due(storage: Storage, due_files: int = DUE_FILES) -> CatalogState | None:
    """:func:`compact` when at least ``due_files`` parts were sealed since the last time; costs one listing when not."""
    return compact(storage) if len(catalog_state(storage).unlisted) >= due_files else None


def compact(
    storage: Storage, min_rows: int = SMALL_ROWS, large_rows: int = LARGE_ROWS, keep_seconds: float = KEEP_SECONDS
) -> CatalogState:
    """Merge files of fewer than ``min_rows`` rows, and larger ones that fill a file of ``large_rows``; the new state.

    Merged files hold rows sorted by case id and key, one per key, and are named after their content. Files merged more than
    ``keep_seconds`` ago (on the storage's clock) are deleted. May be killed at any point, and may run twice at a time.
    """
    while True:
        state = catalog_state(storage)
        entries = _entries(storage, state)
        chosen = _chosen(entries, min_rows, large_rows)
        if len(chosen) < 2:
            for stale in stale_files(storage, state, keep_seconds):
                storage.delete(stale.name)
            return state
        _merge(storage, state, entries, chosen, large_rows)


def drop_rows(storage: Storage, case_keys: Sequence[str]) -> None:
    """Write the files that hold rows of ``case_keys`` again, without them. Only the holder of the run lock may do this."""
    dropped = pa.array(sorted(set(case_keys)), pa.string())
    while True:
        state = catalog_state(storage)
        holding = pads.field("case_key").isin(dropped)
        chosen = [name for name in state.parts if parts_dataset(storage, [name]).count_rows(filter=holding)]
        if not chosen:
            return
        _merge(storage, state, _entries(storage, state), chosen, LARGE_ROWS, dropped)


def stale_files(storage: Storage, state: CatalogState, keep_seconds: float = KEEP_SECONDS) -> list[StoredName]:
    """Files merged, or given up by a compaction that lost, more than ``keep_seconds`` ago; and version documents nobody needs."""
    present = {entry.name: entry for entry in storage.list(layout.CATALOG)}
    versions = {version: name for version in range(state.version + 1) if (name := _version_name(version)) in present}
    strays = [name for name in present if name.startswith(_MERGED) and name not in state.listed and name not in state.retired]
    waiting = {name: version for name, version in state.retired.items() if name in present}
    stale: list[str] = []
    if waiting or strays:
        horizon = storage.clock() - timedelta(seconds=keep_seconds)
        for name, version in list(waiting.items()):
            if version not in versions or present[versions[version]].modified <= horizon:
                stale.append(name)
                del waiting[name]
        stale += [name for name in strays if present[name].modified < horizon - _COMPACTION_TAKES]
    needed = min([*waiting.values(), state.version - _KEPT_VERSIONS])
    stale += [name for version, name in versions.items() if version < needed]
    return [present[name] for name in stale]


def _entries(storage: Storage, state: CatalogState) -> dict[str, Mapping[str, Any]]:
    known = {name: entry for name, entry in state.listed.items() if "last" in entry}
    return {name: known.get(name) or _described(storage, name) for name in state.parts}


def _chosen(entries: Mapping[str, Mapping[str, Any]], min_rows: int, large_rows: int) -> list[str]:
    """The files to merge now: small ones up to a large file's worth, and with them the middling ones when they fill one."""
    small, rows = [], 0
    for name in sorted(entries):
        if entries[name]["rows"] < min_rows and rows < large_rows:
            small.append(name)
            rows += entries[name]["rows"]
    middling = sorted(name for name in entries if min_rows <= entries[name]["rows"] < large_rows // 2)
    if rows + sum(entries[name]["rows"] for name in middling) >= large_rows:
        return sorted({*small, *middling})
    return small


def _merge(
    storage: Storage,
    state: CatalogState,
    entries: Mapping[str, Mapping[str, Any]],
    chosen: Sequence[str],
    large_rows: int,
    dropped: pa.Array | None = None,
) -> None:
    reach("compact.begin")
    kept = {name: dict(entry) for name, entry in entries.items() if name not in chosen}
    made = list(_written(storage, chosen, _wanted(storage, chosen, kept, dropped), large_rows))
    parts = sorted([*kept.values(), *made], key=lambda entry: str(entry["name"]))
    listed = {entry["name"] for entry in parts}
    version = state.version + 1
    present = {entry.name for entry in storage.list(layout.CATALOG)}
    retired = {name: merged_in for name, merged_in in state.retired.items() if name in present}
    retired.update(dict.fromkeys(chosen, version))
    document = {"version": version, "parts": parts, "retired": {name: retired[name] for name in sorted(retired.keys() - listed)}}
    reach("compact.merged")
    if storage.create(_version_name(version), json_bytes(document)):
        reach("compact.made")  # else somebody else has merged; what was written here is in the way of nobody


def _wanted(storage: Storage, chosen: Sequence[str], kept: Mapping[str, Mapping[str, Any]], dropped: pa.Array | None) -> pa.Table:
    """case_id and case_key of the rows to write: sorted, one per key, none that a file which stays holds already."""
    identity = read_parts(storage, _IDENTITY, chosen)
    if dropped is not None:
        identity = identity.filter(pc.invert(pc.is_in(identity["case_key"], value_set=dropped)))
        if not identity.num_rows:
            return identity
    identity = identity.sort_by([(name, "ascending") for name in _IDENTITY])
    first, last = identity["case_id"][0].as_py(), identity["case_id"][-1].as_py()
    near = [name for name, entry in kept.items() if entry["first"] <= last and entry["last"] >= first]
    if near:
        held = read_parts(storage, ["case_key"], near)["case_key"].combine_chunks()
        identity = identity.filter(pc.invert(pc.is_in(identity["case_key"], value_set=held)))
    return identity.take(first_of_each(identity["case_key"])).combine_chunks()


def _written(storage: Storage, chosen: Sequence[str], wanted: pa.Table, large_rows: int) -> Iterator[dict[str, Any]]:
    """Write the wanted rows into files of about ``large_rows``; their entries."""
    source = parts_dataset(storage, chosen)
    files = max(1, round(wanted.num_rows / large_rows))
    bounds = np.linspace(0, wanted.num_rows, files + 1).astype(int)
    for start, stop in itertools.pairwise(bounds.tolist()):
        if start == stop:
            continue
        sink = BytesIO()
        columns: list[pa.Table] = []
        with parquet_writer(sink, SCHEMA) as writer:
            for begin in range(start, stop, _STRIDE):
                ids, keys = wanted.slice(begin, min(_STRIDE, stop - begin)).columns
                within = (pads.field("case_id") >= ids[0]) & (pads.field("case_id") <= ids[-1])
                rows = source.to_table(filter=within)
                rows = rows.take(pc.index_in(keys, value_set=rows["case_key"].combine_chunks()))
                writer.write_table(rows, row_group_size=ROW_GROUP)
                columns.append(rows.select(["case_id", "status", "bytes"]))
        data = sink.getvalue()
        digest = hashlib.sha256(data).hexdigest()
        name = f"{_MERGED}{digest[:16]}.parquet"
        storage.create(name, data)
        yield _entry(name, digest, pa.concat_tables(columns))


def _described(storage: Storage, name: str) -> dict[str, Any]:
    digest = hashlib.sha256(storage.read(name)).hexdigest()
    return _entry(name, digest, read_part(storage, name, ["case_id", "status", "bytes"]))


def _entry(name: str, digest: str, rows: pa.Table) -> dict[str, Any]:
    ends = pc.min_max(rows["case_id"])
    return {
        "name": name,
        "sha256": digest,
        "rows": rows.num_rows,
        "accepted": int(pc.sum(pc.equal(rows["status"], "accepted")).as_py() or 0),
        "bytes": int(pc.sum(rows["bytes"]).as_py() or 0),
        "first": ends["min"].as_py(),
        "last": ends["max"].as_py(),
    }


def _version_name(version: int) -> str:
    return f"{layout.CATALOG_VERSIONS}/{version:08d}.json"
