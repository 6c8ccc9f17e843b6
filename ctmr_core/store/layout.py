"""Names of everything in a dataset.

::

    dataset.json                                          schema version; written once
    manifest.parquet                                      the planned cases (case_id, case_key, ...)
    volumes/<fan-out>/<case_id>.<attempt_id>.ome.zarr/    voxels; visible only when a commit record names them
    commits/<fan-out>/<case_id>.<key16>.json              the commit point of a case
    failures/<fan-out>/<case_id>.<key16>.json             failed and quarantined cases
    catalog/part-<unit>-<digest>.parquet                  one row per committed case, sealed by work unit
    catalog/merged-<digest>.parquet                       compacted parts
    catalog/_manifest/<version>.json                      which parts are current
    catalog/_open/<run>.json                              a run that has not sealed all it committed
    snapshots/<name>.json                                 a named, immutable list of accepted cases
    snapshots/rows/<digest>.parquet                       the catalog rows of some of them; snapshots share what is equal
    lock/<generation>.json                                who is generating
    swept/<case_id>.<attempt_id>                          tries whose voxels were removed; they can't be committed any more
    probe/<id>                                            in object stores, for a moment: to try the store and ask its clock
    runs/<started>-<id>.json                              what each run did and what it took

``fan-out`` is the first two hex digits of SHA-256(case_id): 256 folders, about 4,000 entries each at 10^6 cases.
"""

from __future__ import annotations

import hashlib
import re

from ctmr_core.cases.case import CASE_ID_PATTERN
from ctmr_core.errors import StoreError
from ctmr_core.store.storage import checked_name

DATASET = "dataset.json"
MANIFEST = "manifest.parquet"
VOLUMES = "volumes"
COMMITS = "commits"
FAILURES = "failures"
CATALOG = "catalog"
CATALOG_VERSIONS = "catalog/_manifest"
OPEN_RUNS = "catalog/_open"
LOCKS = "lock"
SWEPT = "swept"
SNAPSHOTS = "snapshots"
SNAPSHOT_ROWS = "snapshots/rows"
RUNS = "runs"
VOLUME_SUFFIX = ".ome.zarr"
KEY_DIGITS = 16

_CASE_ID = re.compile(CASE_ID_PATTERN)
_SNAPSHOT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,64}")


def fan_out(case_id: str) -> str:
    """Two hex digits that spread the cases evenly over folders."""
    return hashlib.sha256(case_id.encode()).hexdigest()[:2]


def volume_path(case_id: str, attempt_id: str) -> str:
    """Where one try at a case puts its voxels; never shared with another try."""
    return checked_name(VOLUMES, fan_out(_id(case_id)), f"{case_id}.{_token(attempt_id)}{VOLUME_SUFFIX}")


def swept_name(volume: str) -> str:
    """The mark of a volume that was removed because no record named it; ``volume``: a path of :func:`volume_path`."""
    return checked_name(SWEPT, volume.rpartition("/")[2].removesuffix(VOLUME_SUFFIX))


def commit_name(case_id: str, case_key: str) -> str:
    """The commit record of a case."""
    return checked_name(COMMITS, fan_out(_id(case_id)), record_file(case_id, case_key))


def failure_name(case_id: str, case_key: str) -> str:
    """The record of a case that failed or was quarantined."""
    return checked_name(FAILURES, fan_out(_id(case_id)), record_file(case_id, case_key))


def record_file(case_id: str, case_key: str) -> str:
    """``<case_id>.<first 16 digits of case_key>.json``."""
    return f"{case_id}.{_token(case_key)[:KEY_DIGITS]}.json"


def part_name(unit_id: str) -> str:
    """The catalog part of a work unit."""
    return checked_name(CATALOG, f"part-{_token(unit_id)}.parquet")


def open_run_name(run: str) -> str:
    """The mark of a run that commits."""
    return checked_name(OPEN_RUNS, f"{_token(run)}.json")


def snapshot_name(name: str) -> str:
    """The document of a snapshot."""
    if not _SNAPSHOT.fullmatch(name):
        raise StoreError("not usable as the name of a snapshot", found=name, allowed="1 to 64 letters, digits, '_', '-' and '.'")
    return checked_name(SNAPSHOTS, f"{name}.json")


def snapshot_rows_name(digest: str) -> str:
    """A file of catalog rows that snapshots share."""
    return checked_name(SNAPSHOT_ROWS, f"{_token(digest)}.parquet")


def _id(case_id: str) -> str:
    if not _CASE_ID.match(case_id) or case_id.endswith("\n"):
        raise StoreError("not a case id", found=case_id, allowed=f"a name that matches {CASE_ID_PATTERN}")
    return case_id


def _token(text: str) -> str:
    if not _TOKEN.fullmatch(text):
        raise StoreError("not usable in a file name", found=text, allowed="1 to 64 letters, digits, '_' and '-'")
    return text
