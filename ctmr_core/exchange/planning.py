"""What to export: the cases of a dataset or snapshot that a selection leaves."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ctmr_core.errors import ExchangeError
from ctmr_core.exchange.base import ExportPlan, Selection
from ctmr_core.store import Dataset

_LIGHT = ["case_id", "case_key", "content_digest", "split", "body_identity", "vocabulary", "sequences"]
_DETAILS = ["size", "spacing", "body", "engine"]


def plan_export(dataset: Dataset, selection: Selection, name: str = "") -> ExportPlan:
    """The plan; ``ExchangeError`` when nothing is left, or a case that was asked for is not there.

    Reads a few columns of the catalog, no voxels; about 300 bytes per case stay in memory.
    """
    rows = dataset.catalog
    table = _chosen(
        rows.to_table(columns=[*_LIGHT, *_DETAILS, "label_ids", "licences"]).sort_by("case_id"), selection, dataset.uri
    )
    digest = hashlib.sha256()
    for case_id, key, content in zip(*(table[column].to_pylist() for column in _LIGHT[:3]), strict=True):
        digest.update(f"{case_id} {key} {content}\n".encode())
    return ExportPlan(
        name=name or dataset.uri.rstrip("/").rpartition("/")[2],
        dataset=dataset.uri,
        snapshot=dataset.snapshot.digest if dataset.snapshot else "",
        snapshot_name=dataset.snapshot.name if dataset.snapshot else "",
        content_digest=digest.hexdigest(),
        label_ids=_label_ids(table),
        licences=tuple(sorted(value for value in pc.unique(pc.list_flatten(table["licences"])).to_pylist() if value)),
        table=_light(table, selection.sequences),
    )


def _chosen(table: pa.Table, selection: Selection, where: str) -> pa.Table:
    if selection.cases:
        wanted = pa.array(sorted(set(selection.cases)))
        missing = wanted.filter(pc.invert(pc.is_in(wanted, value_set=table["case_id"].combine_chunks())))
        if len(missing):
            raise ExchangeError("not an accepted case of the dataset", where=where, found=missing[0].as_py())
        table = table.filter(pc.is_in(table["case_id"], value_set=wanted))
    if selection.splits:
        table = table.filter(pc.is_in(table["split"], value_set=pa.array(selection.splits)))
    if selection.vocabulary:
        table = table.filter(pc.equal(table["vocabulary"], selection.vocabulary))
    if selection.sequences:
        wanted_set = set(selection.sequences)
        table = table.filter(pa.array([wanted_set <= set(row) for row in table["sequences"].to_pylist()], pa.bool_()))
    if selection.limit is not None:
        table = table.slice(0, selection.limit)
    if not table.num_rows:
        raise ExchangeError("no case to export", where=where, found=selection, fix="see `ctmr status`; ask for fewer things")
    return table


def _light(table: pa.Table, sequences: tuple[str, ...]) -> pa.Table:
    light = table.select([*_LIGHT, *_DETAILS])
    if not sequences:
        return light
    same = pa.array([list(sequences)] * table.num_rows, pa.list_(pa.string()))
    return light.set_column(light.column_names.index("sequences"), "sequences", same)


def _label_ids(table: pa.Table) -> dict[str, tuple[int, ...]]:
    found = {}
    for vocabulary in sorted(pc.unique(table["vocabulary"]).to_pylist()):
        of_it = table.filter(pc.equal(table["vocabulary"], vocabulary))["label_ids"]
        flat = np.unique(pc.list_flatten(of_it).to_numpy())
        found[str(vocabulary)] = tuple(int(label) for label in flat)
    return found


def one_vocabulary(plan: ExportPlan, name: str) -> str:
    """The vocabulary of all cases; ``ExchangeError`` when there are several."""
    if len(plan.label_ids) > 1:
        raise ExchangeError(
            f"the {name} format has one list of labels, the cases have several vocabularies",
            found=sorted(plan.label_ids),
            fix="export them one by one: --vocabulary " + next(iter(plan.label_ids)),
        )
    return next(iter(plan.label_ids))


def one_sequence_set(plan: ExportPlan, name: str) -> tuple[str, ...]:
    """The images that every case has; ``ExchangeError`` when they differ from case to case."""
    if len(plan.sequence_sets) > 1:
        raise ExchangeError(
            f"the {name} format has the same channels in every case",
            found=_listed(plan.sequence_sets),
            fix="name what to export, cases without it are left out: --sequence " + plan.sequence_sets[0][0],
        )
    return plan.sequence_sets[0]


def _listed(sets: Iterable[tuple[str, ...]]) -> str:
    return ", ".join("+".join(sequences) for sequences in sets)
