"""Curation: which cases of a dataset go into a training set, decided by verdicts, scores, metadata, likeness and balance.

The same dataset, policy and selection give the same cases, whatever the order they were made in: where cases are equal, the
smaller ``case_key`` goes first, so that a larger selection holds a smaller one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from ctmr_core.assessment import layout
from ctmr_core.assessment.measuring import measured_between, stored_by_key
from ctmr_core.assessment.verdicts import read_verdicts
from ctmr_core.assessment.where import COLUMNS, parse_where
from ctmr_core.errors import StoreError
from ctmr_core.quality.policy import Policy
from ctmr_core.store.dataset import Dataset
from ctmr_core.store.snapshots import Snapshot, create_snapshot

#: mm: greatest spacing of a case; thin-slice CT and MR up to 1, routine reformats 1..3, thick slices above.
SPACING_BINS = (1.0, 2.0, 3.0, 5.0)
STRATA = ("sequences", "center", "lesions", "spacing", "split", "body", "engine")
_READ = ["case_id", "case_key", "sequence_set", "center", "lesions", "spacing", "split", "body", "engine"]
#: Likeness to a real scan a generator was shown: such a case is a copy of a patient, and always left out.
_OF_REFERENCE = "reference-"


@dataclass(frozen=True)
class Selection:
    """What to take. Everything given must hold.

    where: a condition, see ``where.parse_where``. sequences: cases that have all of these. regions: values of ``center``.
    splits: of these. min_score: least score of the verdict, 0..1.
    balance: strata (:data:`STRATA`) of whose combinations equally many cases are taken; per_stratum: how many at most, default
    as many as the smallest has. duplicates: Parquet file of pairs, ``auto`` for those kept with the dataset, "" to keep all.
    """

    where: str = ""
    sequences: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()
    min_score: float = 0.0
    balance: tuple[str, ...] = ()
    per_stratum: int | None = None
    duplicates: str = ""

    def __post_init__(self) -> None:
        if unknown := [name for name in self.balance if name not in STRATA]:
            raise StoreError("no such stratum", where="balance", found=unknown[0], allowed=STRATA)
        if self.per_stratum is not None and (self.per_stratum < 1 or not self.balance):
            raise StoreError("cases per stratum need strata", where="per_stratum", found=self.per_stratum, allowed="1 or more")

    def text(self) -> str:
        """In one line, for the note of a snapshot."""
        given = {name: value for name, value in asdict(self).items() if value not in ("", (), None, 0.0)}
        return ", ".join(f"{name} {'+'.join(value) if isinstance(value, tuple) else value}" for name, value in given.items())


@dataclass(frozen=True)
class Curated:
    """What was taken. cases: ids, ascending. left_out: why -> cases, in the order of the reasons. strata: name -> cases."""

    cases: tuple[str, ...]
    left_out: dict[str, int]
    strata: dict[str, int] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return {"cases": len(self.cases), "left_out": self.left_out, "strata": self.strata}


def curate(dataset: Dataset, policy: Policy, selection: Selection) -> Curated:
    """The accepted cases of ``dataset`` that the policy accepts and the selection takes.

    Raises ``StoreError`` for cases without a verdict under this policy, and for conditions, strata and files that aren't known.
    """
    expression = _expression(selection)
    rows = dataset.catalog.to_table(columns=_READ).sort_by("case_id")
    rows = _with_verdicts(dataset, policy, rows)
    left_out: dict[str, int] = {}

    def keep(why: str, mask: Any) -> None:
        nonlocal rows
        before = rows.num_rows
        rows = rows.filter(mask)
        if before > rows.num_rows:
            left_out[why] = before - rows.num_rows

    keep("verdict", rows["accepted"])
    if selection.min_score:
        keep("score", pc.greater_equal(rows["score"], selection.min_score))
    if expression is not None:
        keep("condition", pc.is_in(rows["case_key"], value_set=_keys_where(dataset, expression, "scores" in selection.where)))
    if selection.sequences:
        wanted = set(selection.sequences)
        keep("sequences", pa.array([wanted <= set(text.split("+")) for text in rows["sequence_set"].to_pylist()], pa.bool_()))
    if selection.duplicates:
        keep("duplicates", _without_duplicates(rows, _pairs(dataset, selection.duplicates)))
    strata: dict[str, int] = {}
    if selection.balance:
        mask, strata = _balanced(rows, selection)
        keep("balance", mask)
    return Curated(tuple(rows["case_id"].to_pylist()), left_out, strata)


def snapshot_curated(dataset: Dataset, policy: Policy, selection: Selection, curated: Curated, name: str) -> Snapshot:
    """Keep the curated cases as the snapshot ``name``; its ``policy`` is the policy's digest, its note says what was asked."""
    if not curated.cases:
        raise StoreError(
            "no case is left", where=dataset.uri, found=curated.left_out, fix="ask for less, or make a snapshot of all cases"
        )
    note = f"Curated under the policy {policy.name} ({policy.digest[:12]})"
    asked = selection.text()
    return create_snapshot(
        dataset, name, cases=curated.cases, policy=policy.digest, note=f"{note}: {asked}." if asked else f"{note}."
    )


def _expression(selection: Selection) -> pads.Expression | None:
    parts = [parse_where(selection.where)] if selection.where else []
    if selection.regions:
        parts.append(pc.field("center").isin(list(selection.regions)))
    if selection.splits:
        parts.append(pc.field("split").isin(list(selection.splits)))
    if not parts:
        return None
    joined = parts[0]
    for part in parts[1:]:
        joined = joined & part
    return joined


def _keys_where(dataset: Dataset, expression: pads.Expression, of_scores: bool) -> pa.Array:
    """Keys of the cases the condition holds for; scores measured later count before those of the catalog."""
    measured = layout.tables(dataset.storage, "measured") if of_scores else []
    if not measured:
        return dataset.catalog.to_table(columns=["case_key"], filter=expression)["case_key"].combine_chunks()
    found = [pa.array([], pa.string())]
    for batch in dataset.catalog.scanner(columns=[*COLUMNS, "scores"], batch_readahead=4, fragment_readahead=1).to_batches():
        rows = pa.Table.from_batches([batch])
        later = measured_between(dataset.storage, measured, rows) if rows.num_rows else None
        if later is not None:
            rows = rows.set_column(rows.column_names.index("scores"), "scores", _joined_scores(rows, later))
        found += rows.filter(expression)["case_key"].chunks
    return pa.concat_arrays(found)


def _joined_scores(rows: pa.Table, later: pa.Table) -> pa.Array:
    known = stored_by_key(later)
    joined = []
    for key, scores in zip(rows["case_key"].to_pylist(), rows["scores"].to_pylist(maps_as_pydicts="strict"), strict=True):
        if key in known:
            scores |= {f"{check}/{name}": value for check, own in known[key].scores.items() for name, value in own.items()}
        joined.append(sorted(scores.items()))
    return pa.array(joined, rows.schema.field("scores").type)


def _with_verdicts(dataset: Dataset, policy: Policy, rows: pa.Table) -> pa.Table:
    verdicts = read_verdicts(dataset, policy)
    place = pc.index_in(rows["case_key"], value_set=verdicts["case_key"].combine_chunks())
    if place.null_count:
        raise StoreError(
            f"{place.null_count:,} of {rows.num_rows:,} cases have no verdict under this policy",
            where=dataset.uri,
            found=f"policy {policy.name} ({policy.digest[:12]})",
            fix="run `ctmr quality run` with the same policy first",
        )
    judged = verdicts.select(["accepted", "score"]).take(place)
    return rows.append_column("accepted", judged["accepted"]).append_column("score", judged["score"])


def _pairs(dataset: Dataset, source: str) -> pa.Table:
    """Columns case_id, other, kind of pairs that are alike."""
    columns = ["case_id", "other", "kind"]
    if source != "auto":
        path = Path(source)
        try:
            return pq.read_table(path, columns=columns)
        except (OSError, pa.ArrowException) as error:
            allowed = f"Parquet with the columns {', '.join(columns)}"
            raise StoreError("the pairs can not be read", where=str(path), found=str(error), allowed=allowed) from error
    names = layout.tables(dataset.storage, "duplicates")
    if not names:
        raise StoreError(
            "nobody looked for duplicates in this dataset yet", where=dataset.uri, fix="run `ctmr quality set` on it first"
        )
    filesystem, paths = dataset.storage.arrow_files(names)
    return pads.dataset(paths, format="parquet", filesystem=filesystem).to_table(columns=columns)


def _without_duplicates(rows: pa.Table, pairs: pa.Table) -> pa.Array:
    """Of cases that are alike the best scored is kept, of equal ones the one with the smaller key."""
    ids = rows["case_id"].to_pylist()
    place = {case_id: number for number, case_id in enumerate(ids)}
    alike: dict[int, list[int]] = {}
    keep = np.ones(len(ids), bool)
    for case_id, other, kind in zip(*(pairs[name].to_pylist() for name in ("case_id", "other", "kind")), strict=True):
        if case_id not in place:
            continue
        if kind.startswith(_OF_REFERENCE):
            keep[place[case_id]] = False
        elif other in place and other != case_id:
            alike.setdefault(place[case_id], []).append(place[other])
            alike.setdefault(place[other], []).append(place[case_id])
    keys, scores = rows["case_key"].to_pylist(), rows["score"].to_pylist()
    kept: set[int] = set()
    for number in sorted(alike, key=lambda n: (-scores[n], keys[n])):
        if keep[number] and kept.isdisjoint(alike[number]):
            kept.add(number)
        else:
            keep[number] = False
    return pa.array(keep)


def _balanced(rows: pa.Table, selection: Selection) -> tuple[pa.Array, dict[str, int]]:
    """Which rows to take, and how many of each stratum."""
    stratum = [" | ".join(values) for values in zip(*(_STRATUM[name](rows) for name in selection.balance), strict=True)]
    counts = Counter(stratum)
    most = selection.per_stratum or min(counts.values(), default=0)
    keys = rows["case_key"].to_pylist()
    taken: Counter[str] = Counter()
    keep = np.zeros(len(keys), bool)
    for number in sorted(range(len(keys)), key=keys.__getitem__):
        if taken[stratum[number]] < most:
            taken[stratum[number]] += 1
            keep[number] = True
    return pa.array(keep), dict(sorted(taken.items()))


def _texts(column: str) -> Any:
    return lambda rows: [value or "-" for value in rows[column].to_pylist()]


def _lesions(rows: pa.Table) -> list[str]:
    lists: list[list[Mapping[str, Any]] | None] = rows["lesions"].to_pylist()
    return ["+".join(sorted({lesion["label"] for lesion in lesions or ()})) or "none" for lesions in lists]


def _spacing(rows: pa.Table) -> list[str]:
    """Bin of the greatest spacing, ``<=1 mm`` ... ``>5 mm``."""
    greatest = np.asarray([max(values) for values in rows["spacing"].to_pylist()], float)
    names = [*(f"<={limit:g} mm" for limit in SPACING_BINS), f">{SPACING_BINS[-1]:g} mm"]
    return [names[index] for index in np.searchsorted(SPACING_BINS, greatest - 1e-9)]


def _bodies(rows: pa.Table) -> list[str]:
    return ["template" if body.startswith("template:") else body for body in rows["body"].to_pylist()]


_STRATUM = {
    "sequences": _texts("sequence_set"),
    "center": _texts("center"),
    "lesions": _lesions,
    "spacing": _spacing,
    "split": _texts("split"),
    "body": _bodies,
    "engine": _texts("engine"),
}
