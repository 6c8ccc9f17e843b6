"""What a dataset is, byte for byte and without names that differ from try to try; to compare storms with a calm run."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from ctmr_core.store import Dataset, read_failures, verify
from ctmr_core.store.catalog import read_parts
from ctmr_core.store.commits import commit_refs, read_commit_named
from ctmr_core.store.gc import orphans
from ctmr_core.store.resume import unsealed_commits


@dataclass(frozen=True)
class Evidence:
    """records: case key -> its content digest. objects: case key -> SHA-256 of every stored object, read again.

    catalog: (case key, content digest) of every catalog row, as often as it stands there. faults: whatever must not be.
    """

    records: dict[str, str]
    objects: dict[str, dict[str, str]]
    catalog: list[tuple[str, str]]
    faults: list[str]


def evidence(uri: Path | str) -> Evidence:
    """Read everything of the dataset at ``uri``."""
    dataset = Dataset.open(uri)
    storage = dataset.storage
    records, objects, named = {}, {}, []
    for ref in sorted(commit_refs(storage)):
        record = read_commit_named(storage, *ref)
        records[record.case_key] = record.content_digest
        if record.volume:
            named.append(record.volume)
            objects[record.case_key] = {
                entry.name.removeprefix(f"{record.volume}/"): hashlib.sha256(storage.read(entry.name)).hexdigest()
                for entry in storage.list(record.volume)
            }
    rows = read_parts(storage, ["case_key", "content_digest"])
    faults = [f"{problem.case_id}: {problem.object} {problem.what}" for problem in verify(dataset).problems]
    faults += [f"orphan: {path}" for path in orphans(dataset)]
    faults += [f"not sealed: {ref}" for ref in unsealed_commits(dataset)]
    faults += [f"{record.status}: {record.case_id}: {record.reason}" for record in read_failures(storage)]
    faults += [f"two records name {path}" for path in set(named) if named.count(path) > 1]
    catalog = sorted(zip(rows["case_key"].to_pylist(), rows["content_digest"].to_pylist(), strict=True))
    return Evidence(records, objects, sorted(set(catalog)), faults)


def difference(calm: Evidence, found: Evidence) -> list[str]:
    """What is not as after a calm run, a line each; empty when the datasets are the same."""
    lines = list(found.faults)
    for name in ("records", "objects", "catalog"):
        wanted, have = getattr(calm, name), getattr(found, name)
        if wanted != have:
            missing = len([key for key in wanted if key not in have])
            lines.append(f"{name} differ: {len(wanted)} in the calm run, {len(have)} here, {missing} missing")
    return lines
