"""What is done, what is to do and why: the plan compared with the ledger."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from ctmr_core.cases.case import Case
from ctmr_core.store import layout
from ctmr_core.store.catalog import read_parts
from ctmr_core.store.commits import commit_refs, read_commit_named, read_failures
from ctmr_core.store.dataset import Dataset
from ctmr_core.store.keys import find_keys, key_numbers

Why = Literal["new", "changed template", "changed engine", "changed row", "failed", "quarantined"]
_FEW = 5_000  # below this many undone cases it is cheaper to ask for each commit record than to list them all


@dataclass(frozen=True)
class Todo:
    """A case to generate: its position in the manifest given, its id and key, and why it isn't done."""

    position: int
    case_id: str
    case_key: str
    why: Why


@dataclass(frozen=True)
class Resume:
    """The plan compared with the ledger.

    todo: cases to generate, in manifest order; the quarantined ones are in ``quarantined`` instead.
    unsealed: (case_id, key16) of commits the catalog lacks (a crash came between), for ``catalog.seal_missing``.
    """

    accepted: int
    rejected: int
    todo: tuple[Todo, ...]
    quarantined: tuple[Todo, ...]
    unsealed: tuple[tuple[str, str], ...]

    @property
    def done(self) -> int:
        """Cases that need nothing more."""
        return self.accepted + self.rejected

    @property
    def reasons(self) -> dict[str, int]:
        """why -> number of cases, sorted by name."""
        return dict(sorted(Counter(todo.why for todo in (*self.todo, *self.quarantined)).items()))


def resume(dataset: Dataset, manifest: pa.Table) -> Resume:
    """Compare ``manifest`` with the dataset.

    manifest: columns case_id and case_key; template_digest and engine_identity, if there, tell the classes of change apart.
    The catalog answers for what is sealed; commit records are looked at only for cases it does not have.
    """
    index = dataset.index
    keys, ids = (manifest[name].cast(pa.string()).combine_chunks() for name in ("case_key", "case_id"))
    place = find_keys(key_numbers(keys), key_numbers(index["case_key"]))
    sealed = index["status"].take(pa.array(place[place >= 0]))
    accepted = int(pc.sum(pc.equal(sealed, "accepted")).as_py() or 0)
    rejected = len(sealed) - accepted
    undone = np.flatnonzero(place < 0)
    refs = {(ids[int(i)].as_py(), keys[int(i)].as_py()[: layout.KEY_DIGITS]): int(i) for i in undone}
    unsealed = unsealed_commits(dataset, refs)
    for ref in unsealed:
        if read_commit_named(dataset.storage, *ref).status == "accepted":
            accepted += 1
        else:
            rejected += 1
        del refs[ref]
    failures: dict[tuple[str, str], Why] = {(f.case_id, f.case_key): f.status for f in read_failures(dataset.storage)}
    changed = _changes(dataset, manifest, np.fromiter(refs.values(), np.int64, len(refs)))
    todo: list[Todo] = []
    quarantined: list[Todo] = []
    for (case_id, _), position in refs.items():
        key = keys[position].as_py()
        why: Why = failures.get((case_id, key)) or changed.get(position, "new")
        (quarantined if why == "quarantined" else todo).append(Todo(position, case_id, key, why))
    return Resume(accepted, rejected, tuple(todo), tuple(quarantined), tuple(sorted(unsealed)))


def unsealed_commits(dataset: Dataset, candidates: dict[tuple[str, str], int] | None = None) -> list[tuple[str, str]]:
    """(case_id, key16) of committed cases the catalog lacks; among ``candidates`` when given."""
    storage = dataset.storage
    if candidates is not None and len(candidates) <= _FEW:
        return [ref for ref in candidates if storage.stat(layout.commit_name(*ref)) is not None]
    if candidates is not None:
        return [ref for ref in commit_refs(storage) if ref in candidates]
    index = dataset.index
    short = pc.utf8_slice_codeunits(index["case_key"], 0, layout.KEY_DIGITS)
    sealed = set(zip(index["case_id"].to_pylist(), short.to_pylist(), strict=True))
    return [ref for ref in commit_refs(storage) if ref not in sealed]


def status(dataset: Dataset) -> dict[str, int]:
    """How far the dataset is, from the ledger alone.

    planned, accepted, rejected, failed, quarantined, pending, unsealed, superseded: numbers of cases; bytes: of the accepted
    volumes in the catalog.
    """
    index, manifest = dataset.index, dataset.manifest
    current = index.filter(index["current"])
    waiting: Counter[str] = Counter(failure.status for failure in read_failures(dataset.storage))
    volume_bytes = pc.sum(dataset.catalog.to_table(columns=["bytes"])["bytes"]).as_py() or 0
    if manifest is None:
        accepted = int(pc.sum(pc.equal(current["status"], "accepted")).as_py() or 0)
        rejected = current.num_rows - accepted
        unsealed = len(unsealed_commits(dataset))
        planned, pending = accepted + rejected + sum(waiting.values()), 0
    else:
        compared = resume(dataset, manifest)
        accepted, rejected, unsealed = compared.accepted, compared.rejected, len(compared.unsealed)
        waiting = Counter(todo.why for todo in (*compared.todo, *compared.quarantined))
        planned = manifest.num_rows
        pending = planned - compared.done - waiting["failed"] - waiting["quarantined"]
    return {
        "planned": planned,
        "accepted": accepted,
        "rejected": rejected,
        "failed": waiting["failed"],
        "quarantined": waiting["quarantined"],
        "pending": pending,
        "unsealed": unsealed,
        "superseded": index.num_rows - current.num_rows,
        "bytes": int(volume_bytes),
    }


def changed_fields(dataset: Dataset, case: Case) -> tuple[str, ...]:
    """Which fields of ``case`` differ from those committed under the same case id; () when none was or nothing differs."""
    import json

    names = [name for name in Case.model_fields if name != "case_id"]
    expression = (pads.field("case_id") == case.case_id) & (pads.field("case_key") != case.key)
    parts = read_parts(dataset.storage, [*names, "case_id", "case_key"]).filter(expression)
    if not parts.num_rows:
        return ()
    stored, planned = parts.to_pylist()[-1], case.model_dump(mode="json")
    for name in ("engine_parameters", "checks"):
        planned[name] = json.dumps(planned[name], sort_keys=True)
    return tuple(name for name in names if stored[name] != planned[name])


def _changes(dataset: Dataset, manifest: pa.Table, undone: np.ndarray) -> dict[int, Why]:
    """Manifest position -> class of change, for cases that are committed under another key."""
    columns = [name for name in ("template_digest", "engine_identity") if name in manifest.column_names]
    if not dataset.index.num_rows or not len(undone):
        return {}
    planned = manifest.take(pa.array(undone))
    ids = planned["case_id"].combine_chunks()
    known = pc.is_in(dataset.index["case_id"], value_set=ids)
    if not pc.any(known).as_py():
        return {}
    stored = (read_parts(dataset.storage, ["case_id", *columns]) if columns else dataset.index).filter(
        pads.field("case_id").isin(ids)
    )
    place = pc.index_in(ids, value_set=stored["case_id"].combine_chunks())
    again = np.flatnonzero(np.asarray(pc.is_valid(place)))
    place = place.take(pa.array(again))
    differs = {
        name: np.asarray(pc.not_equal(planned[name].take(pa.array(again)), stored[name].take(place)).fill_null(True))
        for name in columns
    }
    found: dict[int, Why] = {}
    for i, row in enumerate(again):
        if "template_digest" in differs and differs["template_digest"][i]:
            why: Why = "changed template"
        elif "engine_identity" in differs and differs["engine_identity"][i]:
            why = "changed engine"
        else:
            why = "changed row"
        found[int(undone[row])] = why
    return found
