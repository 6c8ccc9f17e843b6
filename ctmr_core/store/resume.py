"""What is done, what is to do and why: the plan compared with the ledger."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, get_args, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from ctmr_core.cases.case import Case
from ctmr_core.store import layout
from ctmr_core.store.catalog import read_parts
from ctmr_core.store.commits import commit_refs, read_commit_named, read_failures
from ctmr_core.store.dataset import Dataset
from ctmr_core.store.keys import find_keys, first_words, key_numbers
from ctmr_core.store.storage import Storage, json_bytes

Why = Literal["new", "changed template", "changed engine", "changed row", "failed", "quarantined"]
Ref = tuple[str, str]  #: (case_id, first 16 digits of case_key)

_WHY: tuple[Why, ...] = get_args(Why)
_FEW = 5_000  # below this many undone cases it is cheaper to ask for each commit record than to list them all
_ASKED_AT_ONCE = 16
_BLOCK = 262_144
_KEY16 = re.compile("[0-9a-f]{16}")


@dataclass(frozen=True)
class Todo:
    """A case to generate: its position in the manifest given, its id and key, and why it isn't done."""

    position: int
    case_id: str
    case_key: str
    why: Why


class TodoList(Sequence[Todo]):
    """Cases to generate, in manifest order; a million of them take no more memory than their positions."""

    def __init__(self, ids: pa.Array, keys: pa.Array, positions: np.ndarray, why: np.ndarray) -> None:
        self._ids, self._keys = ids, keys
        self.positions = positions
        self._why = why

    def __len__(self) -> int:
        return len(self.positions)

    @overload
    def __getitem__(self, index: int) -> Todo: ...
    @overload
    def __getitem__(self, index: slice) -> TodoList: ...
    def __getitem__(self, index: int | slice) -> Todo | TodoList:
        if isinstance(index, slice):
            return TodoList(self._ids, self._keys, self.positions[index], self._why[index])
        position = int(self.positions[index])
        return Todo(position, self._ids[position].as_py(), self._keys[position].as_py(), _WHY[self._why[index]])

    def __iter__(self) -> Iterator[Todo]:
        return (self[index] for index in range(len(self)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    @property
    def reasons(self) -> dict[str, int]:
        """why -> number of cases, sorted by name."""
        counts = np.bincount(self._why, minlength=len(_WHY))
        return {why: int(counts[code]) for code, why in sorted(enumerate(_WHY), key=lambda pair: pair[1]) if counts[code]}


@dataclass(frozen=True)
class Resume:
    """The plan compared with the ledger.

    todo: cases to generate, in manifest order; the quarantined ones are in ``quarantined`` instead.
    unsealed: (case_id, key16) of commits the catalog lacks (a crash came between), for ``catalog.seal_missing``.
    """

    accepted: int
    rejected: int
    todo: TodoList
    quarantined: TodoList
    unsealed: tuple[Ref, ...]

    @property
    def done(self) -> int:
        """Cases that need nothing more."""
        return self.accepted + self.rejected

    @property
    def reasons(self) -> dict[str, int]:
        """why -> number of cases, sorted by name."""
        return dict(sorted((Counter(self.todo.reasons) + Counter(self.quarantined.reasons)).items()))


def resume(dataset: Dataset, manifest: pa.Table, *, crashed: bool = True) -> Resume:
    """Compare ``manifest`` with the dataset.

    manifest: columns case_id and case_key; template_digest and engine_identity, if there, tell the classes of change apart.
    The catalog answers for what is sealed; commit records are looked at only for cases it does not have. crashed: False when
    every run before this one sealed what it had committed (``runs_left_open`` is empty): then many undone cases are not looked
    for among the commit records. Should one have a record nevertheless, it is found when the case is made.
    """
    index = dataset.index
    ids, keys = (_flat(manifest[name].cast(pa.string())) for name in ("case_id", "case_key"))
    numbers = key_numbers(keys)
    place = find_keys(numbers, index.keys)
    sealed = index.accepted[place[place >= 0]]
    undone = np.flatnonzero(place < 0)
    found = _committed(dataset, ids, keys, numbers, undone) if crashed or len(undone) <= _FEW else undone[:0]
    refs = tuple(sorted((ids[i].as_py(), keys[i].as_py()[: layout.KEY_DIGITS]) for i in found.tolist()))
    loose = sum(committed_accepted(dataset.storage, refs))
    undone = np.setdiff1d(undone, found, assume_unique=True)
    why = _reasons(dataset, manifest, ids, keys, undone)
    held = why == _WHY.index("quarantined")
    return Resume(
        accepted=int(sealed.sum()) + loose,
        rejected=int((~sealed).sum()) + len(refs) - loose,
        todo=TodoList(ids, keys, undone[~held], why[~held]),
        quarantined=TodoList(ids, keys, undone[held], why[held]),
        unsealed=refs,
    )


def unsealed_among(dataset: Dataset, manifest: pa.Table, positions: np.ndarray) -> list[Ref]:
    """Commits the catalog lacks among some rows of ``manifest`` (columns case_id and case_key): what a run leaves behind.

    Work and memory grow with ``positions``, not with the dataset.
    """
    chosen = manifest.select(["case_id", "case_key"]).take(pa.array(positions))
    ids, keys = (_flat(chosen[name].cast(pa.string())) for name in ("case_id", "case_key"))
    numbers = key_numbers(keys)
    undone = np.flatnonzero(find_keys(numbers, dataset.index.keys) < 0)
    found = _committed(dataset, ids, keys, numbers, undone)
    return sorted((ids[i].as_py(), keys[i].as_py()[: layout.KEY_DIGITS]) for i in found.tolist())


def unsealed_commits(dataset: Dataset) -> list[Ref]:
    """(case_id, key16) of every committed case the catalog lacks, from the names of all commit records."""
    return loose_commits(commit_refs(dataset.storage), dataset.index.keys[:, 0])


def loose_commits(refs: Iterator[Ref], sealed: np.ndarray, planned: np.ndarray | None = None) -> list[Ref]:
    """Those of the ``refs`` that are not ``sealed`` and, when ``planned`` is given, planned (uint64: first words of keys)."""
    loose: list[Ref] = []
    for block, words in _blocks(refs):
        chosen = ~_occur(words, sealed)
        if planned is not None and chosen.any():
            chosen &= _occur(words, planned)
        loose += [block[i] for i in np.flatnonzero(chosen).tolist()]
    return sorted(loose)


def committed_accepted(storage: Storage, refs: Sequence[Ref]) -> list[bool]:
    """Of each commit record whether it is of an accepted case (else a rejected one)."""

    def accepted(ref: Ref) -> bool:
        try:
            return bool(json.loads(storage.read(layout.commit_name(*ref)))["status"] == "accepted")
        except (ValueError, KeyError, TypeError):
            return read_commit_named(storage, *ref).status == "accepted"  # says what is wrong with the record

    with ThreadPoolExecutor(_ASKED_AT_ONCE) as pool:
        return list(pool.map(accepted, refs))


def open_run(storage: Storage, run: str) -> None:
    """Note that a run begins to commit; ``run`` is letters, digits, '_' and '-'."""
    storage.write(layout.open_run_name(run), json_bytes({"run": run}))


def runs_left_open(storage: Storage) -> list[str]:
    """Marks of runs that commit at this moment, or were killed before they had sealed all they committed."""
    return [entry.name for entry in storage.list(layout.OPEN_RUNS)]


def close_runs(storage: Storage, marks: Sequence[str]) -> None:
    """Note that everything these runs (from :func:`runs_left_open`) committed is sealed."""
    for name in marks:
        storage.delete(name)


def changed_fields(dataset: Dataset, case: Case) -> tuple[str, ...]:
    """Which fields of ``case`` differ from those committed under the same case id; () when none was or nothing differs."""
    names = [name for name in Case.model_fields if name != "case_id"]
    expression = (pads.field("case_id") == case.case_id) & (pads.field("case_key") != case.key)
    rows = read_parts(dataset.storage, [*names, "case_id", "case_key"], dataset.parts, expression)
    if not rows.num_rows:
        return ()
    stored, planned = rows.to_pylist()[-1], case.model_dump(mode="json")
    for name in ("engine_parameters", "checks"):
        planned[name] = json.dumps(planned[name], sort_keys=True)
    stored["pose"] = stored["pose"] or []  # null where the body was not turned
    return tuple(name for name in names if stored[name] != planned[name])


def _committed(dataset: Dataset, ids: pa.Array, keys: pa.Array, numbers: np.ndarray, undone: np.ndarray) -> np.ndarray:
    """Those of the ``undone`` positions that have a commit record all the same."""
    storage = dataset.storage
    if len(undone) <= _FEW:
        names = [layout.commit_name(ids[i].as_py(), keys[i].as_py()) for i in undone.tolist()]
        with ThreadPoolExecutor(_ASKED_AT_ONCE) as pool:
            there = list(pool.map(lambda name: storage.stat(name) is not None, names))
        return undone[np.asarray(there, bool)]
    found = np.zeros(len(undone), bool)
    for _, words in _blocks(commit_refs(storage)):
        found |= _occur(numbers[undone, 0], words)
    return undone[found]


def _blocks(refs: Iterator[Ref]) -> Iterator[tuple[list[Ref], np.ndarray]]:
    """The refs, many at a time, and the first words of their keys; files of other names are passed over."""
    while block := list(itertools.islice(refs, _BLOCK)):
        try:
            yield block, first_words(key16 for _, key16 in block)
        except ValueError:
            block = [ref for ref in block if _KEY16.fullmatch(ref[1])]
            yield block, first_words(key16 for _, key16 in block)


def _occur(wanted: np.ndarray, among: np.ndarray) -> np.ndarray:
    """bool [wanted]: which of these uint64 numbers occur ``among`` others."""
    return np.asarray(pc.is_in(pa.array(wanted), value_set=pa.array(among)))


def _reasons(dataset: Dataset, manifest: pa.Table, ids: pa.Array, keys: pa.Array, undone: np.ndarray) -> np.ndarray:
    """Number in ``_WHY`` of why each of the ``undone`` positions is to do."""
    why = _changes(dataset, manifest, ids, undone)
    failures = {(failure.case_id, failure.case_key): failure.status for failure in read_failures(dataset.storage)}
    if failures:
        failed = pa.array([case_id for case_id, _ in failures], pa.string())
        for i in np.flatnonzero(np.asarray(pc.is_in(ids.take(pa.array(undone)), value_set=failed))).tolist():
            position = int(undone[i])
            if status := failures.get((ids[position].as_py(), keys[position].as_py())):
                why[i] = _WHY.index(status)
    return why


def _changes(dataset: Dataset, manifest: pa.Table, ids: pa.Array, undone: np.ndarray) -> np.ndarray:
    """ "new", or what has changed since the case was committed under another key."""
    why = np.full(len(undone), _WHY.index("new"), np.uint8)
    planned_ids = ids.take(pa.array(undone))
    if not len(dataset.index) or not len(undone) or not pc.any(pc.is_in(dataset.index.ids, value_set=planned_ids)).as_py():
        return why
    columns = [name for name in ("template_digest", "engine_identity") if name in manifest.column_names]
    stored = read_parts(dataset.storage, ["case_id", *columns], dataset.parts, pads.field("case_id").isin(planned_ids))
    place = pc.index_in(planned_ids, value_set=stored["case_id"].combine_chunks())
    again = np.flatnonzero(np.asarray(pc.is_valid(place)))
    place = place.take(pa.array(again))
    planned = manifest.select(columns).take(pa.array(undone[again]))
    why[again] = _WHY.index("changed row")
    for name, code in (("engine_identity", "changed engine"), ("template_digest", "changed template")):
        if name in columns:
            differs = pc.not_equal(planned[name], stored[name].take(place)).fill_null(True)
            why[again[np.asarray(differs)]] = _WHY.index(code)  # type: ignore[arg-type]
    return why


def _flat(values: pa.ChunkedArray) -> pa.Array:
    combined = values.combine_chunks()
    return pa.concat_arrays(combined.chunks) if isinstance(combined, pa.ChunkedArray) else combined
