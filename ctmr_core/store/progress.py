"""How far a dataset is, from the dataset alone: commit names, catalog, plan, failures. No Prefect, no Ray."""

from __future__ import annotations

import os
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ctmr_core.store import layout
from ctmr_core.store.catalog import catalog_state, first_of_each, read_part, read_parts
from ctmr_core.store.commits import FailureRecord, commit_refs, parse_record, read_failures
from ctmr_core.store.dataset import Dataset
from ctmr_core.store.keys import all_distinct, find_keys, key_numbers
from ctmr_core.store.lock import Holder
from ctmr_core.store.resume import committed_accepted, loose_commits, runs_left_open
from ctmr_core.store.storage import Storage, read_json

_RATE_SECONDS = 300.0
_LISTED = 100_000  # up to so many sealed cases commit records are listed although every run said that it sealed its own


def status(dataset: Dataset) -> dict[str, int]:
    """How far the dataset is, from the ledger alone.

    planned, accepted, rejected, failed, quarantined, pending, unsealed, superseded: numbers of cases; bytes: of the accepted
    volumes in the catalog. pending: planned and without any outcome. unsealed: committed, and not in the catalog yet; these are
    looked for when a run is under way or was killed, or the dataset is small.
    """
    table = read_parts(dataset.storage, ["case_key", "status", "bytes"], dataset.parts)
    keys = key_numbers(table["case_key"])
    if not all_distinct(keys):
        once = first_of_each(table["case_key"])
        table, keys = table.take(once), keys[np.asarray(once)]
    planned = dataset.planned_keys
    current = np.ones(len(keys), bool) if planned is None else find_keys(keys, planned) >= 0
    accepted = current & np.asarray(pc.equal(table["status"], "accepted"))
    waiting = _waiting(dataset, planned)
    counts = {
        "planned": 0 if planned is None else len(planned),
        "accepted": int(accepted.sum()),
        "rejected": int(current.sum() - accepted.sum()),
        "failed": waiting["failed"],
        "quarantined": waiting["quarantined"],
        "pending": 0,
        "unsealed": 0,
        "superseded": int(len(keys) - current.sum()),
        "bytes": int(np.asarray(table["bytes"].fill_null(0))[accepted].sum()),
    }
    if len(keys) <= _LISTED or runs_left_open(dataset.storage):
        refs = loose_commits(commit_refs(dataset.storage), keys[:, 0], None if planned is None else planned[:, 0])
        good = sum(committed_accepted(dataset.storage, refs))
        counts["unsealed"] = len(refs)
        counts["accepted"] += good
        counts["rejected"] += len(refs) - good
    outcomes = sum(counts[name] for name in ("accepted", "rejected", "failed", "quarantined"))
    if planned is None:
        counts["planned"] = outcomes
    counts["pending"] = max(counts["planned"] - outcomes, 0)
    return counts


def _waiting(dataset: Dataset, planned: np.ndarray | None) -> Counter[str]:
    """failed and quarantined -> number of such cases that the plan still wants."""
    failures = read_failures(dataset.storage)
    if planned is not None and failures:
        keys = key_numbers(pa.array([failure.case_key for failure in failures]))
        failures = [failure for failure, place in zip(failures, find_keys(keys, planned), strict=True) if place >= 0]
    return Counter(failure.status for failure in failures)


def lock_holder(storage: Storage) -> tuple[Holder, datetime] | None:
    """Who holds the dataset, and the last sign of life on the storage's clock; None when nobody does."""
    generations = list(storage.list(layout.LOCKS))
    for entry in reversed(generations):
        try:
            return Holder(**read_json(storage, entry.name)), entry.modified
        except FileNotFoundError:
            continue
    return None


@dataclass(frozen=True)
class Sample:
    """A dataset at one moment. Counts as of :func:`status`; rejected and accepted are split among sealed cases only.

    committed: accepted and rejected, sealed or not. per_minute: cases committed per minute over up to five minutes, None until
    there are two samples. eta_seconds: until nothing is pending at this rate. parts: catalog files. holder: who generates.
    """

    planned: int
    committed: int
    accepted: int
    rejected: int
    failed: int
    quarantined: int
    pending: int
    parts: int
    holder: str
    per_minute: float | None
    eta_seconds: float | None

    @property
    def finished(self) -> bool:
        """Whether every planned case has an outcome."""
        return not self.pending


@dataclass
class Watch:
    """A dataset looked at again and again: each :meth:`sample` costs what has changed since the one before.

    On a disk commit names are counted, in the folders that changed. In an object store the catalog is, which lags behind by
    the cases of unfinished work units.
    """

    dataset: Dataset
    _superseded: int = 0
    _planned: int = 0
    _plan_version: object = None
    _folders: dict[str, tuple[int, int]] = field(default_factory=dict)
    _sealed: dict[str, tuple[int, int]] = field(default_factory=dict)
    _failures: dict[tuple[str, datetime], str] = field(default_factory=dict)
    _history: deque[tuple[float, int]] = field(default_factory=deque)

    def sample(self) -> Sample:
        """The dataset now."""
        storage = self.dataset.storage
        if (version := storage.stat(layout.MANIFEST)) != self._plan_version or not self._history:
            self._plan_version = version
            self.dataset.refresh()
            counts = status(self.dataset)
            self._planned, self._superseded = counts["planned"], counts["superseded"]
            self._history.clear()
        rows, accepted, parts = self._count_sealed()
        commits = self._count_commits()
        committed = max(rows if commits is None else commits, rows) - self._superseded
        waiting = self._count_failures()
        rate = self._rate(committed)
        pending = max(self._planned - committed - waiting["failed"] - waiting["quarantined"], 0)
        holder = lock_holder(storage)
        return Sample(
            planned=self._planned,
            committed=committed,
            accepted=accepted,
            rejected=rows - accepted,
            failed=waiting["failed"],
            quarantined=waiting["quarantined"],
            pending=pending,
            parts=parts,
            holder=str(holder[0]) if holder else "",
            per_minute=rate,
            eta_seconds=60.0 * pending / rate if rate else None,
        )

    def _count_sealed(self) -> tuple[int, int, int]:
        state = catalog_state(self.dataset.storage)
        for name in state.parts:
            if name not in self._sealed:
                entry = state.listed.get(name, {})
                if "accepted" not in entry:
                    seen = read_part(self.dataset.storage, name, ["status"])["status"]
                    entry = {"rows": len(seen), "accepted": pc.sum(pc.equal(seen, "accepted")).as_py() or 0}
                self._sealed[name] = (int(entry["rows"]), int(entry["accepted"]))
        self._sealed = {name: self._sealed[name] for name in state.parts}
        return sum(rows for rows, _ in self._sealed.values()), sum(good for _, good in self._sealed.values()), len(state.parts)

    def _count_commits(self) -> int | None:
        root = self.dataset.storage.local_path(layout.COMMITS)
        if root is None:
            return None
        try:
            with os.scandir(root) as folders:
                for folder in folders:
                    changed = folder.stat().st_mtime_ns
                    if self._folders.get(folder.name, (0, 0))[0] != changed:
                        self._folders[folder.name] = (changed, len(os.listdir(folder.path)))  # noqa: PTH208 - names, no objects
        except FileNotFoundError:
            return 0
        return sum(count for _, count in self._folders.values())

    def _count_failures(self) -> Counter[str]:
        storage, seen = self.dataset.storage, {}
        for entry in storage.list(layout.FAILURES):
            key = (entry.name, entry.modified)
            try:
                seen[key] = self._failures.get(key) or parse_record(storage, entry.name, FailureRecord).status
            except FileNotFoundError:
                continue  # released or committed just now
        self._failures = seen
        return Counter(seen.values())

    def _rate(self, committed: int) -> float | None:
        now = time.monotonic()
        self._history.append((now, committed))
        while now - self._history[0][0] > _RATE_SECONDS and len(self._history) > 2:
            self._history.popleft()
        begin, first = self._history[0]
        return 60.0 * (committed - first) / (now - begin) if now > begin else None
