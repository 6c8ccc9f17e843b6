"""Verdicts kept with a dataset: ``quality/verdicts-<policy16>-<digest12>.parquet``, one row per committed case."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ctmr_core.assessment import layout
from ctmr_core.assessment.measuring import stored_by_key
from ctmr_core.assessment.stored_scores import ScoreJudge, Stored, stored_rows
from ctmr_core.errors import StoreError
from ctmr_core.quality.policy import Policy
from ctmr_core.store.catalog import parts_dataset
from ctmr_core.store.dataset import Dataset
from ctmr_core.store.keys import find_keys, key_numbers
from ctmr_core.store.storage import Storage

#: accepted: whether the policy accepts the case; score: 0..1, the share of its checks (by weight) that passed. status: of the
#: case in the dataset; ``rejected`` ones have no voxels. policy: digest of the policy over the case's own settings.
#: checks: ``"<check>@<version>"``.
VERDICTS = pa.schema(
    [
        ("case_id", pa.string()),
        ("case_key", pa.string()),
        ("status", pa.string()),
        ("accepted", pa.bool_()),
        ("score", pa.float64()),
        ("reasons", pa.list_(pa.string())),
        ("policy", pa.string()),
        ("checks", pa.list_(pa.string())),
    ]
)
#: The same on its way: what repeats from row to row is kept once.
JUDGED = pa.schema(
    [
        pa.field(field.name, pa.dictionary(pa.int32(), pa.string())) if field.name in ("status", "policy", "checks") else field
        for field in VERDICTS
    ]
)


def judge_table(
    judge: ScoreJudge, rows: pa.Table, measured: pa.Table | None, problems: Mapping[str, str]
) -> tuple[pa.Table, pa.Table]:
    """Verdicts (:data:`JUDGED`) on the catalog rows that are measured, and the others with a column ``missing`` of check names.

    measured: later scores of these cases. problems: case_key -> why its voxels can't be read; such a case is not accepted.
    """
    policy, later = judge.policy, stored_by_key(measured)
    columns: dict[str, list[Any]] = {name: [] for name in JUDGED.names}
    pending: list[int] = []
    missing: list[list[str]] = []
    for place, (row, stored) in enumerate(stored_rows(rows)):
        key = row["case_key"]
        known: Stored = stored.joined(later[key]) if key in later else stored
        verdict, lacking = judge.judge(row, known)
        reasons = list(verdict.reasons)
        accepted = policy.accepts(verdict.results)
        if lacking and key in problems:
            accepted = False
            reasons.append(f"voxels: {problems[key]}")
        elif lacking and row["status"] == "accepted":
            pending.append(place)
            missing.append(lacking)
            continue
        elif lacking and accepted:
            accepted = False  # nothing is accepted unseen
            reasons += [f"{name}: was not measured, and there are no voxels" for name in lacking]
        values = (
            row["case_id"], key, row["status"], accepted, policy.score(verdict.results), reasons, verdict.policy,
            " ".join(verdict.checks),
        )  # fmt: skip
        for name, value in zip(JUDGED.names, values, strict=True):
            columns[name].append(value)
    judged = pa.table([pa.array(columns[field.name], field.type) for field in JUDGED], schema=JUDGED)
    left = rows.take(pa.array(pending, pa.int64())).append_column("missing", pa.array(missing, pa.list_(pa.string())))
    return judged, left


def write(storage: Storage, policy: Policy, judged: pa.Table) -> str:
    """Keep verdicts, sorted by case id and key; the name of the table."""
    ordered = judged.unify_dictionaries().sort_by([("case_id", "ascending"), ("case_key", "ascending")])
    return layout.write_table(storage, f"verdicts-{policy.digest[: layout.POLICY_DIGITS]}", _spelt_out(ordered))


def _spelt_out(judged: pa.Table) -> pa.Table:
    """:data:`VERDICTS` of :data:`JUDGED`."""
    arrays = []
    for field in VERDICTS:
        column = judged[field.name]
        if field.name == "checks":
            column = pa.chunked_array([_split(chunk) for chunk in column.chunks], field.type)
        arrays.append(column.cast(field.type))
    return pa.table(arrays, schema=VERDICTS)


def _split(chunk: pa.DictionaryArray) -> pa.Array:
    lists = [text.split() for text in chunk.dictionary.to_pylist()]
    return pa.array(lists, pa.list_(pa.string())).take(chunk.indices)


def read_verdicts(dataset: Dataset, policy: Policy | str) -> pa.Table:
    """The verdicts (:data:`VERDICTS`) under a policy (or its digest, 16 digits or more) on the cases ``dataset`` has now, by id.

    Empty for a policy that was never applied. Cases committed since are missing; ``rejudge`` adds them.
    """
    digest = policy if isinstance(policy, str) else policy.digest
    if len(digest) < layout.POLICY_DIGITS:
        raise StoreError("too few digits of a policy's digest", found=digest, allowed=f"{layout.POLICY_DIGITS} or more")
    keys, index = np.empty((0, 4), np.uint64), dataset.index
    current = index.keys[index.current]
    found = []
    for name in layout.tables(dataset.storage, f"verdicts-{digest[: layout.POLICY_DIGITS]}"):
        table = parts_dataset(dataset.storage, [name], VERDICTS).to_table()
        numbers = key_numbers(table["case_key"])
        new = (find_keys(numbers, current) >= 0) & (find_keys(numbers, keys) < 0)
        found.append(table.filter(pa.array(new)))
        keys = np.concatenate([keys, numbers[new]])
    return pa.concat_tables(found).sort_by("case_id") if found else VERDICTS.empty_table()


def policies_applied(storage: Storage) -> list[dict[str, Any]]:
    """The documents of the policies the dataset was judged under, by name and digest."""
    from ctmr_core.store.storage import read_json

    documents = [read_json(storage, entry.name) for entry in storage.list(layout.POLICIES)]
    return sorted(documents, key=lambda document: (document["policy"]["name"], document["digest"]))


def share_accepted(verdicts: pa.Table) -> float:
    """Share of the cases with voxels that the policy accepts."""
    published = verdicts.filter(pc.equal(verdicts["status"], "accepted"))
    return float(pc.mean(published["accepted"].cast(pa.int8())).as_py() or 0.0) if published.num_rows else 0.0
