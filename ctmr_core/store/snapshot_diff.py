"""What differs between two lists of cases: which cases, how many of each kind, and how their numbers are distributed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

Read = Callable[[Sequence[str]], pa.Table]
Counts = dict[str, dict[str, int]]

_STRATA = ("split", "sequences", "body", "engine", "lesions", "licences")
_NUMBERS = ("bytes", "attempt", "deformation", "size", "spacing", "lesions", "label_volumes_ml", "scores")
_QUANTILES = (0.05, 0.5, 0.95)


@dataclass(frozen=True)
class Distribution:
    """A number over the cases of two lists: 5th, 50th and 95th percentile of each (None: it has none), and ``shift``.

    shift: greatest difference of the two cumulative distributions (Kolmogorov-Smirnov), 0 = alike, 1 = nothing in common.
    """

    before: tuple[float, float, float] | None
    after: tuple[float, float, float] | None
    shift: float


@dataclass(frozen=True)
class SnapshotDiff:
    """added, removed, changed: case ids, sorted. strata: what -> value -> (cases before, cases after), where these differ.

    distributions: number -> its distribution before and after, where these differ.
    """

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    strata: dict[str, dict[str, tuple[int, int]]]
    distributions: dict[str, Distribution]

    @property
    def same(self) -> bool:
        """Whether both lists hold the same cases with the same content."""
        return not (self.added or self.removed or self.changed)


def compare_rows(read_a: Read, read_b: Read) -> SnapshotDiff:
    """The difference of two lists of catalog rows; each is a function from column names to a table sorted by case id."""
    identity = ("case_id", "case_key", "content_digest")
    a, b = read_a(identity), read_b(identity)
    ids_a, ids_b = a["case_id"].combine_chunks(), b["case_id"].combine_chunks()
    place = pc.index_in(ids_b, value_set=ids_a)
    both = np.flatnonzero(np.asarray(pc.is_valid(place)))
    before, after = a.take(place.take(pa.array(both))), b.take(pa.array(both))
    differs = pc.or_(*(pc.not_equal(before[name], after[name]) for name in identity[1:]))
    added = tuple(ids_b.filter(pc.is_null(place)).to_pylist())
    removed = tuple(ids_a.filter(pc.invert(pc.is_in(ids_a, value_set=ids_b))).to_pylist())
    changed = tuple(after["case_id"].filter(differs).to_pylist())
    if not (added or removed or changed):
        return SnapshotDiff((), (), (), {}, {})
    counts_a, counts_b = strata(read_a(_STRATA)), strata(read_b(_STRATA))
    return SnapshotDiff(added, removed, changed, _changed_counts(counts_a, counts_b), _changed_distributions(read_a, read_b))


def strata(rows: pa.Table) -> Counts:
    """what -> value -> number of cases, for split, sequences, body, engine, lesions and licences."""
    return {
        "split": _counted(rows["split"]),
        "sequences": _counted(_joined(rows["sequences"])),
        "body": _counted(_body_kinds(rows["body"])),
        "engine": _counted(rows["engine"]),
        "lesions": _lesions(rows["lesions"]),
        "licences": _counted(pc.list_flatten(rows["licences"])),
    }


def _joined(names: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.binary_join(names, "+")


def _body_kinds(bodies: pa.ChunkedArray) -> pa.ChunkedArray:
    """``parametric:torso`` as it is; of templates, which are many, just ``template``."""
    return pc.replace_substring_regex(bodies, "^template:.*", "template")


def _lesions(lesions: pa.ChunkedArray) -> dict[str, int]:
    per_label: dict[str, int] = {}
    if none := int(pc.sum(pc.equal(pc.list_value_length(lesions), 0)).as_py() or 0):
        per_label["none"] = none
    pairs = pa.table(
        {"case": pc.list_parent_indices(lesions), "label": pc.struct_field(pc.list_flatten(lesions), "label")}
    )  # a case with two lesions of a kind counts once
    return per_label | _counted(pairs.group_by(["case", "label"]).aggregate([])["label"])


def _counted(values: Any) -> dict[str, int]:
    pairs = pc.value_counts(values).to_pylist()
    return {str(pair["values"]): int(pair["counts"]) for pair in sorted(pairs, key=lambda pair: str(pair["values"]))}


def _changed_counts(a: Counts, b: Counts) -> dict[str, dict[str, tuple[int, int]]]:
    found: dict[str, dict[str, tuple[int, int]]] = {}
    for what in a:
        pairs = {value: (a[what].get(value, 0), b[what].get(value, 0)) for value in sorted({*a[what], *b[what]})}
        if different := {value: pair for value, pair in pairs.items() if pair[0] != pair[1]}:
            found[what] = different
    return found


def _changed_distributions(read_a: Read, read_b: Read) -> dict[str, Distribution]:
    found: dict[str, Distribution] = {}
    for column in _NUMBERS:
        a, b = _numbers(column, read_a([column])[column]), _numbers(column, read_b([column])[column])
        for name in sorted({*a, *b}):
            before, after = a.get(name, np.empty(0)), b.get(name, np.empty(0))
            shift = _shift(before, after)
            if shift:
                found[name] = Distribution(_quantiles(before), _quantiles(after), shift)
    return found


def _numbers(column: str, values: pa.ChunkedArray) -> dict[str, np.ndarray]:
    if column == "size":
        return {"voxels": np.prod(_triples(values), axis=1, dtype=float)}
    if column == "spacing":
        return {"slice thickness, mm": _triples(values)[:, 2]}
    if column == "lesions":
        return {
            "lesions per case": _finite(pc.list_value_length(values)),
            "lesion diameter, mm": _finite(pc.struct_field(pc.list_flatten(values), "diameter")),
        }
    if column == "label_volumes_ml":
        return {"labels per case": _finite(pc.list_value_length(values))}
    if column == "scores":
        return _scores(values)
    return {column: _finite(values)}


def _scores(values: pa.ChunkedArray) -> dict[str, np.ndarray]:
    pairs = pa.list_(pa.struct([("key", pa.string()), ("value", pa.float64())]))
    entries = pc.list_flatten(values.cast(pairs))
    names, items = pc.struct_field(entries, "key"), pc.struct_field(entries, "value")
    return {f"score {name}": _finite(items.filter(pc.equal(names, name))) for name in pc.unique(names).to_pylist()}


def _triples(values: pa.ChunkedArray) -> np.ndarray:
    return np.asarray(pc.list_flatten(values).drop_null()).reshape(-1, 3).astype(float)


def _finite(values: Any) -> np.ndarray:
    numbers = np.asarray(pc.drop_null(values), float)
    return numbers[np.isfinite(numbers)]


def _quantiles(values: np.ndarray) -> tuple[float, float, float] | None:
    if not len(values):
        return None
    low, middle, high = np.quantile(values, _QUANTILES)
    return (float(low), float(middle), float(high))


def _shift(a: np.ndarray, b: np.ndarray) -> float:
    if not len(a) or not len(b):
        return 1.0 if len(a) != len(b) else 0.0
    places = np.concatenate([a, b])
    a, b = np.sort(a), np.sort(b)
    below = np.searchsorted(a, places, "right") / len(a) - np.searchsorted(b, places, "right") / len(b)
    return float(np.abs(below).max())
