"""Removing what nobody will ever read: volumes of killed attempts, superseded volumes, scratch and catalog files.

What a commit record names is never removed (unless it is superseded and that was asked for), whatever runs beside: a volume is
withdrawn, which leaves a mark, and an attempt whose volume is marked can't be committed any more (see ``commits``). Volumes are
listed as they come and compared with 64-bit hashes of the names in the catalog, 8 bytes per case; two names with one hash would
leave garbage lying, not remove a volume.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash

from ctmr_core.errors import DatasetHeldError
from ctmr_core.store import layout
from ctmr_core.store.catalog import catalog_state, parts_dataset
from ctmr_core.store.commits import read_commit_named, withdraw
from ctmr_core.store.compaction import KEEP_SECONDS, drop_rows, stale_files
from ctmr_core.store.dataset import Dataset
from ctmr_core.store.drills import reach
from ctmr_core.store.keys import find_keys, key_numbers
from ctmr_core.store.lock import RunLock
from ctmr_core.store.snapshots import snapshot_volumes
from ctmr_core.store.storage import Storage
from ctmr_core.store.uploads import Uploads

#: Beside a run only what is older is removed: far longer than a volume waits for its commit record.
BESIDE_A_RUN = timedelta(days=1)
LEAST_BESIDE_A_RUN = timedelta(hours=1)
MARKS_KEPT = timedelta(days=30)  # longer than any process that writes stays paused
_BATCH_ROWS = 65_536


@dataclass
class Tally:
    """What of one kind was (or would be) removed: things, the objects they are made of, and bytes."""

    count: int = 0
    objects: int = 0
    bytes: int = 0

    def add(self, objects: int, size: int) -> None:
        self.count += 1
        self.objects += objects
        self.bytes += size


@dataclass
class GcReport:
    """What :func:`collect` removed, or would remove (``dry_run``).

    beside_run: another run held the dataset, so only what is older than ``older_than_seconds`` was looked at. young: volumes
    left because they are younger. examples: the first twenty names.
    """

    dry_run: bool
    beside_run: bool
    older_than_seconds: float
    orphans: Tally = field(default_factory=Tally)
    superseded: Tally = field(default_factory=Tally)
    scratch: Tally = field(default_factory=Tally)
    catalog: Tally = field(default_factory=Tally)
    uploads: Tally = field(default_factory=Tally)
    young: int = 0
    examples: list[str] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        """Of everything."""
        return sum(tally.bytes for tally in (self.orphans, self.superseded, self.scratch, self.catalog, self.uploads))

    def note(self, tally: Tally, name: str, objects: int, size: int) -> None:
        """Count one thing."""
        tally.add(objects, size)
        if len(self.examples) < 20:
            self.examples.append(name)


def collect(
    dataset: Dataset, *, dry_run: bool = False, older_than: timedelta | None = None, superseded: bool = False
) -> GcReport:
    """Remove orphans, scratch, stale catalog files and unfinished uploads; with ``superseded`` also volumes of replaced cases.

    The dataset is locked meanwhile. When a run holds it, only what is older than ``older_than`` (default a day, at least an
    hour) is removed, and nothing superseded. Volumes a snapshot names stay. dry_run: count, remove nothing.
    """
    lock: RunLock | None = None
    try:
        lock = RunLock(dataset.storage).acquire()
    except DatasetHeldError:
        if superseded:
            raise
        older_than = max(older_than or BESIDE_A_RUN, LEAST_BESIDE_A_RUN)
    try:
        dataset.refresh()
        report = GcReport(dry_run, lock is None, older_than.total_seconds() if older_than else 0.0)
        collector = _Collector(dataset, report, lock, dataset.storage.clock() - (older_than or timedelta()))
        if superseded:
            collector.superseded()
        collector.orphans()
        collector.scratch()
        collector.catalog()
        collector.uploads()
        return report
    finally:
        if lock is not None:
            lock.release()


def orphans(dataset: Dataset) -> list[str]:
    """Paths of volumes that no commit record names: left by crashed or losing attempts, or still being written."""
    return sorted(unnamed_volumes(dataset))


def sweep(dataset: Dataset) -> list[str]:
    """Remove the orphans and scratch files; their paths. Only the holder of the run lock may do this, before work begins."""
    storage, found = dataset.storage, orphans(dataset)
    reach("sweep.begin")
    removed = [path for path in found if withdraw(storage, path)]
    storage.clear_scratch()
    _forget_marks(storage)
    return removed


def unnamed_volumes(dataset: Dataset) -> Iterator[str]:
    """Paths of volumes that neither the catalog nor a commit record nor a snapshot names, in no order."""
    storage = dataset.storage
    named = _Names(path for table in _catalog_volumes(storage) for path in table["volume"].to_pylist() if path)
    kept: _Names | None = None
    records = _Records(storage)
    for entry in storage.entries(layout.VOLUMES):
        path = f"{layout.VOLUMES}/{entry}"
        if path in named or not entry.endswith(layout.VOLUME_SUFFIX) or records.name(path):
            continue
        if kept is None:  # most datasets have no orphans: only now is it worth reading the snapshots
            kept = _Names(snapshot_volumes(storage))
        if path not in kept and (storage.local_path(path) is not None or next(storage.scan(path), None) is not None):
            yield path  # an object store may go on showing a folder that has become empty


class _Collector:
    """One collection: looks at each kind of garbage in turn."""

    def __init__(self, dataset: Dataset, report: GcReport, lock: RunLock | None, horizon: datetime) -> None:
        self._dataset, self._storage, self._report, self._lock = dataset, dataset.storage, report, lock
        self._horizon = horizon
        self._everything = report.older_than_seconds == 0

    def orphans(self) -> None:
        for path in unnamed_volumes(self._dataset):
            objects, size, newest = _measured(self._storage, path)
            if not self._due(newest):
                self._report.young += 1
            elif self._report.dry_run or self._withdrawn(path):
                self._report.note(self._report.orphans, path, objects, size)

    def superseded(self) -> None:
        """Rows leave the catalog first, then the records, then the volumes: a crash leaves a whole case or an orphan."""
        manifest = self._dataset.manifest
        if manifest is None:
            return
        kept = _Names(snapshot_volumes(self._storage))
        planned = key_numbers(manifest["case_key"])
        rows: dict[str, dict[str, Any]] = {}  # by volume: a case may be sealed twice
        for table in _catalog_volumes(self._storage):
            old = table.filter(pa.array(find_keys(key_numbers(table["case_key"]), planned) < 0)).to_pylist()
            rows.update({row["volume"]: row for row in old if row["volume"] and row["volume"] not in kept})
        measured = {volume: _measured(self._storage, volume) for volume in rows}
        due = [row for volume, row in rows.items() if self._due(measured[volume][2])]
        self._report.young += len(rows) - len(due)
        if not self._report.dry_run and due:
            self._check()
            drop_rows(self._storage, [row["case_key"] for row in due])
        for row in due:
            if not self._report.dry_run:
                self._check()
                self._storage.delete(layout.commit_name(row["case_id"], row["case_key"]))
                withdraw(self._storage, row["volume"])
            objects, size, _ = measured[row["volume"]]
            self._report.note(self._report.superseded, row["volume"], objects, size)
        self._dataset.refresh()

    def scratch(self) -> None:
        for entry in self._storage.scratch():
            if self._due(entry.modified):
                if not self._report.dry_run:
                    self._storage.discard_scratch(entry)
                self._report.note(self._report.scratch, entry.name, 1, entry.bytes)
        if not self._report.dry_run:
            _forget_marks(self._storage)

    def catalog(self) -> None:
        keep = max(KEEP_SECONDS, self._report.older_than_seconds)
        for entry in stale_files(self._storage, catalog_state(self._storage), keep):
            if not self._report.dry_run:
                self._storage.delete(entry.name)
            self._report.note(self._report.catalog, entry.name, 1, entry.bytes)

    def uploads(self) -> None:
        uploads = Uploads.of(self._storage)
        for upload in uploads.unfinished() if uploads else ():
            if self._due(upload.begun):
                if uploads and not self._report.dry_run:
                    uploads.abort(upload)
                self._report.note(self._report.uploads, upload.key, 1, upload.bytes)

    def _due(self, newest: datetime | None) -> bool:
        return self._everything or newest is None or newest <= self._horizon

    def _withdrawn(self, path: str) -> bool:
        self._check()
        return withdraw(self._storage, path)

    def _check(self) -> None:
        if self._lock is not None:
            self._lock.check()


class _Names:
    """A set of names as sorted 64-bit hashes."""

    def __init__(self, names: Iterable[str]) -> None:
        numbers = array("Q", (xxhash.xxh3_64_intdigest(name.encode()) for name in names))
        self._numbers = np.sort(np.frombuffer(numbers, np.uint64)) if numbers else np.zeros(0, np.uint64)

    def __contains__(self, name: str) -> bool:
        number = np.uint64(xxhash.xxh3_64_intdigest(name.encode()))
        place = int(np.searchsorted(self._numbers, number))
        return place < len(self._numbers) and bool(self._numbers[place] == number)


class _Records:
    """Which commit records there are for the case of a volume; the listing of one fan-out folder is kept."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._fan = ""
        self._keys: dict[str, list[str]] = {}

    def name(self, volume: str) -> bool:
        """Whether a commit record names the volume."""
        _, fan, folder = volume.split("/")
        if fan != self._fan:
            self._fan, self._keys = fan, {}
            for entry in self._storage.scan(f"{layout.COMMITS}/{fan}"):
                case_id, _, key16 = entry.name.rpartition("/")[2].removesuffix(".json").rpartition(".")
                self._keys.setdefault(case_id, []).append(key16)
        case_id = folder.removesuffix(layout.VOLUME_SUFFIX).rpartition(".")[0]
        for key16 in self._keys.get(case_id, ()):
            try:
                if read_commit_named(self._storage, case_id, key16).volume == volume:
                    return True
            except FileNotFoundError:
                continue
        return False


def _catalog_volumes(storage: Storage) -> Iterator[pa.Table]:
    columns = ["case_id", "case_key", "volume"]
    for name in catalog_state(storage).parts:
        for batch in parts_dataset(storage, [name]).to_batches(columns=columns, batch_size=_BATCH_ROWS):
            yield pa.Table.from_batches([batch])


def _measured(storage: Storage, path: str) -> tuple[int, int, datetime | None]:
    """Objects, bytes and time of the newest object below ``path``."""
    objects, size, newest = 0, 0, None
    for entry in storage.scan(path):
        objects, size = objects + 1, size + entry.bytes
        newest = entry.modified if newest is None else max(newest, entry.modified)
    return objects, size, newest


def _forget_marks(storage: Storage) -> None:
    marks = list(storage.scan(layout.SWEPT))
    forgotten = storage.clock() - MARKS_KEPT if marks else None
    for mark in marks:
        if forgotten and mark.modified < forgotten:
            storage.delete(mark.name)
