"""The manifest as an Arrow table: its columns, and how its cells become cases and case keys."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from ctmr_core.cases.case import SCHEMA_VERSION, Case

LESION_TYPE = pa.struct([pa.field("label", pa.string(), nullable=False), pa.field("diameter", pa.float64(), nullable=False)])

#: One row per case. engine_parameters and checks hold JSON objects.
SCHEMA = pa.schema(
    [
        pa.field(name, kind, nullable=False)
        for name, kind in (
            ("case_id", pa.string()),
            ("body", pa.string()),
            ("body_seed", pa.int64()),
            ("split", pa.string()),
            ("sequences", pa.list_(pa.string())),
            ("size", pa.list_(pa.int32())),
            ("spacing", pa.list_(pa.float64())),
            ("center", pa.string()),
            ("lesions", pa.list_(LESION_TYPE)),
            ("deformation", pa.float64()),
            ("pose", pa.list_(pa.float64())),
            ("engine", pa.string()),
            ("engine_parameters", pa.string()),
            ("checks", pa.string()),
            ("max_attempts", pa.int32()),
            ("seed", pa.int64()),
            ("template_digest", pa.string()),
            ("engine_identity", pa.string()),
        )
    ]
)
COLUMNS = tuple(SCHEMA.names)
JSON_COLUMNS = ("engine_parameters", "checks")
_READ_AHEAD = 8192  # rows turned into Python objects at a time


def canonical_json(value: Any) -> str:
    """JSON as ``Case.canonical_row`` writes it: sorted keys, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number a case can hold")


def parse_json_object(text: str) -> dict[str, Any]:
    """A JSON object; ``ValueError`` for anything else, NaN and infinities included."""
    value = json.loads(text, parse_constant=_refuse_constant)
    if not isinstance(value, dict):
        raise ValueError(f"a JSON object is needed, found {type(value).__name__}")
    return value


def table_of_cases(cases: list[Case]) -> pa.Table:
    """The cases as rows of ``SCHEMA``."""
    rows = [case.model_dump(mode="json") for case in cases]
    for row in rows:
        for column in JSON_COLUMNS:
            row[column] = canonical_json(row[column])
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def with_pose(table: pa.Table) -> pa.Table:
    """The table of a manifest that was written without the column ``pose``, with an empty one; any other as it is."""
    if "pose" in table.column_names or table.column_names != [name for name in COLUMNS if name != "pose"]:
        return table
    field = SCHEMA.field("pose")
    empty = pa.ListArray.from_arrays(pa.array([0] * (table.num_rows + 1), pa.int32()), pa.array([], pa.float64()))
    return table.add_column(COLUMNS.index("pose"), field, empty)


def without_empty_pose(table: pa.Table) -> pa.Table:
    """The table as it is written: without the column ``pose`` where no row has one."""
    return table if len(table["pose"].combine_chunks().flatten()) else table.drop_columns(["pose"])


def iter_rows(table: pa.Table, start: int, stop: int) -> Iterator[dict[str, Any]]:
    """Rows ``start`` to ``stop`` as the keyword arguments of ``Case``."""
    for first in range(start, stop, _READ_AHEAD):
        for row in table.slice(first, min(_READ_AHEAD, stop - first)).to_pylist():
            for column in JSON_COLUMNS:
                row[column] = parse_json_object(row[column])
            yield row


def distinct_rows(table: pa.Table) -> Iterator[int]:
    """One row of each combination of what bodies, engines and checks look at: all but ids, seeds, split and lesion diameters."""
    names = ("body", "sequences", "size", "spacing", "center", "deformation", "pose", "engine", *JSON_COLUMNS)
    seen = set()
    for first in range(0, table.num_rows, _READ_AHEAD):
        part = table.slice(first, _READ_AHEAD)
        columns = [part.column(name).to_pylist() for name in names]
        for index, (lesions, *cells) in enumerate(zip(part.column("lesions").to_pylist(), *columns, strict=True)):
            labels = tuple(lesion["label"] for lesion in lesions)
            combination = (labels, *(tuple(cell) if isinstance(cell, list) else cell for cell in cells))
            if combination not in seen:
                seen.add(combination)
                yield first + index


class _Texts(dict[Any, str]):
    """Canonical JSON of cells that repeat; forgets everything when it has grown too large."""

    def __init__(self, text: Callable[[Any], str]) -> None:
        super().__init__()
        self._text = text

    def __missing__(self, cell: Any) -> str:
        if len(self) >= 1 << 14:
            self.clear()
        text = self[cell] = self._text(cell)
        return text


def _posed(pose: list[float]) -> str:
    return f'"pose":{_numbers(pose)},' if pose else ""


def _numbers(cell: list[float]) -> str:
    return "[" + ",".join(map(repr, cell)) + "]"


def iter_keys(table: pa.Table, start: int, stop: int) -> Iterator[str]:
    """``Case.key`` of rows ``start`` to ``stop`` without building the cases (about 10 microseconds a row).

    Writes the canonical row by hand, in alphabetical order of the fields; ``Case.key`` stays the definition.
    """
    texts = _Texts(json.dumps)
    parameters = _Texts(lambda cell: canonical_json(parse_json_object(cell)))
    prefix = f"{SCHEMA_VERSION}\n"
    order = tuple(sorted(COLUMNS))
    for first in range(start, stop, _READ_AHEAD):
        part = table.slice(first, min(_READ_AHEAD, stop - first))
        columns = [part.column(name).to_pylist() for name in order]
        for (
            body, body_seed, case_id, center, checks, deformation, engine, identity, engine_parameters, lesions,
            max_attempts, pose, seed, sequences, size, spacing, split, digest,
        ) in zip(*columns, strict=True):  # fmt: skip
            tumors = ",".join(f'{{"diameter":{lesion["diameter"]!r},"label":{texts[lesion["label"]]}}}' for lesion in lesions)
            row = (
                f'{prefix}{{"body":{texts[body]},"body_seed":{body_seed},"case_id":"{case_id}","center":{texts[center]},'
                f'"checks":{parameters[checks]},"deformation":{deformation!r},"engine":{texts[engine]},'
                f'"engine_identity":{texts[identity]},"engine_parameters":{parameters[engine_parameters]},"lesions":[{tumors}],'
                f'"max_attempts":{max_attempts},{_posed(pose)}"seed":{seed},'
                f'"sequences":[{",".join(texts[name] for name in sequences)}],'
                f'"size":{_numbers(size)},"spacing":{_numbers(spacing)},"split":"{split}","template_digest":{texts[digest]}}}'
            )
            yield hashlib.sha256(row.encode()).hexdigest()


def rows_are_valid(table: pa.Table) -> bool:
    """Whether every row of a table of ``SCHEMA`` is a valid case, judged on the distinct values of each column.

    The rules of ``Case`` hold per field (per axis for size and spacing), so that a row is valid exactly when each of its
    cells is. True is certain; False may also mean that there were too many distinct values to look at: go row by row then.
    """
    import pyarrow.compute as pc

    from ctmr_core.cases.case import CASE_ID_PATTERN

    if any(column.null_count for column in table.columns):
        return False
    if pc.any(pc.starts_with(table["body"], "unlabelled:")).as_py():
        return False  # these allow no lesions, centre or warp: a rule across columns
    if not pc.all(pc.match_substring_regex(table["case_id"], CASE_ID_PATTERN.removesuffix("$") + r"\z")).as_py():
        return False
    for name in ("sequences", "size", "spacing", "lesions", "pose"):
        if pc.list_flatten(table[name]).null_count:
            return False
    for name in ("size", "spacing"):
        if pc.min_max(pc.list_value_length(table[name])).as_py() != {"min": 3, "max": 3}:
            return False
    tumors = pc.list_flatten(table["lesions"])
    diameters = pc.struct_field(tumors, "diameter")
    cells: dict[str, list[Any]] = {
        name: pc.unique(table[name]).to_pylist()
        for name in ("body", "split", "center", "engine", "template_digest", "engine_identity", "max_attempts")
    }
    for name in ("body_seed", "seed", "deformation"):
        cells[name] = list(pc.min_max(table[name]).as_py().values()) if not _has_nan(table[name]) else [math.nan]
    cells["sequences"] = [list(names) for names in {tuple(names) for names in table["sequences"].to_pylist()}]
    for name in ("size", "spacing"):
        cells[name] = [(value, value, value) for value in pc.unique(pc.list_flatten(table[name])).to_pylist()]
    if not pc.all(pc.is_in(pc.list_value_length(table["pose"]), pa.array([0, 3], pa.int32()))).as_py():
        return False
    angles = pc.list_flatten(table["pose"]).to_numpy()
    if angles.size:
        if not angles.reshape(-1, 3).any(axis=1).all() or np.signbit(angles[angles == 0]).any():
            return False  # three zeros are no pose, and -0 is written as 0: the rows are read one by one
        cells["pose"] = [(float(angle), 1.0, 0.0) for angle in (angles.min(), angles.max())]  # NaN if any is
    lesion_labels = pc.unique(pc.struct_field(tumors, "label")).to_pylist()
    limits = [value for value in pc.min_max(diameters).as_py().values() if value is not None]
    if _has_nan(diameters):
        limits.append(math.nan)
    cells["lesions"] = [[{"label": label, "diameter": value}] for label in lesion_labels for value in limits]
    for name in JSON_COLUMNS:
        cells[name] = pc.unique(table[name]).to_pylist()
    if sum(len(values) for name, values in cells.items() if name not in JSON_COLUMNS) > 20_000:
        return False
    return _every_cell_is_valid(cells)


def _has_nan(column: Any) -> bool:
    import pyarrow.compute as pc

    return pa.types.is_floating(column.type) and bool(pc.any(pc.invert(pc.is_finite(column))).as_py())


def _every_cell_is_valid(cells: dict[str, list[Any]]) -> bool:
    base = {"case_id": "a", "body": "parametric:torso", "sequences": ("ct",), "size": (64, 64, 64), "spacing": (1.0, 1.0, 1.0)}
    try:
        for name, values in cells.items():
            for value in values:
                if name in JSON_COLUMNS:
                    parse_json_object(value)
                else:
                    Case.model_validate({**base, name: value})
    except ValueError:  # pydantic's ValidationError is one
        return False
    return True
