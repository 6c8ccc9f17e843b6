"""Scores measured after the fact: the voxels of a committed case, and the checks that were not run on it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from ctmr_core.anatomy.label_map import LabelMap
from ctmr_core.anatomy.tissue_map import with_tissues
from ctmr_core.assessment.stored_scores import Stored, grouped_scores, validated_case
from ctmr_core.cases.case import Case
from ctmr_core.cases.label_maps import build_label_map
from ctmr_core.cases.seeds import body_rng
from ctmr_core.errors import CtmrError
from ctmr_core.quality.base import Candidate, Check, ScoredCheck, versioned
from ctmr_core.store.catalog import parts_dataset
from ctmr_core.store.lazy import Volume
from ctmr_core.store.storage import Storage

#: A case's scores from one later measurement; columns as in the catalog. reasons: of checks that have them beside scores.
MEASURED = pa.schema(
    [
        ("case_id", pa.string()),
        ("case_key", pa.string()),
        ("judged", pa.list_(pa.string())),
        ("scores", pa.map_(pa.string(), pa.float64())),
        ("reasons", pa.list_(pa.string())),
    ]
)


@dataclass(frozen=True)
class Task:
    """A case to be measured: where its voxels are, and the names of the checks."""

    case: Case
    case_key: str
    volume: str
    attempt: int
    checks: tuple[str, ...]

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Task:
        """From a catalog row with a column ``missing``."""
        return cls(validated_case(row), row["case_key"], row["volume"], int(row["attempt"] or 0), tuple(row["missing"]))


@dataclass(frozen=True)
class Measured:
    """What was found; ``problem``: why the voxels could not be read, "" when they could."""

    case_id: str
    case_key: str
    judged: tuple[str, ...]
    scores: dict[str, float]
    reasons: tuple[str, ...] = ()
    problem: str = ""


def measure_case(storage: Storage, checks: Sequence[Check], task: Task) -> Measured:
    """Read the case's voxels and run the checks it lacks."""
    case = task.case
    wanted = [check for check in checks if check.name in task.checks]
    try:
        candidate = _candidate(storage, task, tissues=any(getattr(check, "uses_tissues", False) for check in wanted))
    except (CtmrError, OSError) as error:
        return Measured(case.case_id, task.case_key, (), {}, problem=str(error).splitlines()[0])
    judged: list[str] = []
    scores: dict[str, float] = {}
    reasons: list[str] = []
    for check in wanted:
        if isinstance(check, ScoredCheck):
            found: Mapping[str, float] = check.measure(candidate)
        else:
            result = check.run(candidate)
            found = result.scores
            reasons += [f"{check.name}: {reason}" for reason in result.reasons]
        scores |= {f"{check.name}/{name}": float(value) for name, value in found.items()}
        judged.append(versioned(check))
    return Measured(case.case_id, task.case_key, tuple(judged), scores, tuple(reasons))


def _candidate(storage: Storage, task: Task, *, tissues: bool) -> Candidate:
    volume = Volume(storage, task.case.case_id, task.volume)
    label_map = LabelMap(volume.labels.read(), volume.affine, volume.vocabulary)
    if tissues and task.case.unlabelled_region is None:
        label_map = _with_its_tissues(label_map, task)
    return Candidate(task.case, label_map, {name: image.read() for name, image in volume.images.items()})


def _with_its_tissues(label_map: LabelMap, task: Task) -> LabelMap:
    """Tissues are not stored: those of a parametric body are made again, others derived from the labels as when it was made."""
    case = task.case
    if case.body.startswith("parametric:"):
        made, _ = build_label_map(case, None, task.attempt)
        if made.tissues is not None and np.array_equal(made.voxels, label_map.voxels):
            return replace(label_map, tissues=made.tissues)
    return with_tissues(label_map, body_rng(case.body, case.body_seed, "tissues"))


def measured_table(found: Iterable[Measured]) -> pa.Table:
    """Rows of :data:`MEASURED`, by case id and key."""
    ordered = sorted(found, key=lambda each: (each.case_id, each.case_key))
    columns: dict[str, list[Any]] = {
        "case_id": [each.case_id for each in ordered],
        "case_key": [each.case_key for each in ordered],
        "judged": [list(each.judged) for each in ordered],
        "scores": [sorted(each.scores.items()) for each in ordered],
        "reasons": [list(each.reasons) for each in ordered],
    }
    return pa.table([pa.array(columns[field.name], field.type) for field in MEASURED], schema=MEASURED)


def measured_between(storage: Storage, files: Sequence[str], rows: pa.Table) -> pa.Table | None:
    """What ``files`` (the last written first) hold on the cases of ``rows``, the first measured first; None when nothing."""
    if not files:
        return None
    ends = pc.min_max(rows["case_id"])
    within = (pads.field("case_id") >= ends["min"]) & (pads.field("case_id") <= ends["max"])
    table = parts_dataset(storage, files[::-1], MEASURED).to_table(filter=within)
    table = table.filter(pc.is_in(table["case_key"], value_set=rows["case_key"].combine_chunks()))
    return table if table.num_rows else None


def stored_by_key(measured: pa.Table | None) -> dict[str, Stored]:
    """case_key -> what was measured later."""
    found: dict[str, Stored] = {}
    if measured is None:
        return found
    columns = (measured["case_key"].to_pylist(), measured["judged"].to_pylist(), measured["reasons"].to_pylist())
    for key, judged, reasons, scores in zip(*columns, grouped_scores(measured["scores"]), strict=True):
        later = Stored(scores, frozenset(judged), tuple(reasons))
        found[key] = found[key].joined(later) if key in found else later
    return found
