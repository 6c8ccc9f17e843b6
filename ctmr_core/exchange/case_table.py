"""The table of an export: one row per case with its files."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pyarrow as pa

from ctmr_core.exchange.base import ExportPlan, Record

_PLAIN = ["case_id", "case_key", "split", "body_identity", "body", "engine", "vocabulary", "sequences", "size", "spacing"]


def case_table(plan: ExportPlan, records: Callable[[], Iterator[Record]], prefix: str = "") -> pa.Table:
    """Rows by case id: what the catalog says, and ``files`` (name without ``prefix``, bytes, sha256), images first."""
    kind = pa.list_(pa.struct([("name", pa.string()), ("bytes", pa.int64()), ("sha256", pa.string())]))
    files = [[{**file, "name": file["name"].removeprefix(prefix)} for file in record["files"]] for record in records()]
    return plan.table.select(_PLAIN).append_column("files", pa.array(files, kind))
