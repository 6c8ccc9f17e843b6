"""Rows of hand-written manifests (CSV, JSON Lines, foreign Parquet), each with the place it was written at."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from ctmr_core.cases.manifest_table import COLUMNS, JSON_COLUMNS, parse_json_object
from ctmr_core.cases.problems import near
from ctmr_core.errors import ManifestError

REQUIRED = ("case_id", "body", "sequences", "size", "spacing")
_TRIPLES = {"size": int, "spacing": float, "pose": float}
_MEANT = {
    "size": "x, y and z, for example 128x128x64",
    "spacing": "x, y and z, for example 1.5x1.5x2",
    "pose": "nod, turn and tilt in degrees, for example -20 5 0",
}
_COMMENT = "#"


class CellError(ValueError):
    """A cell that cannot be read: what is ``wrong`` and what is ``allowed``."""

    def __init__(self, wrong: str, allowed: str) -> None:
        super().__init__(wrong)
        self.wrong = wrong
        self.allowed = allowed


@dataclass(frozen=True)
class Row:
    """One row as written. ``place`` is ``"line 7"`` or ``"row 7"`` (1-based); ``error`` is set when it is not a row at all."""

    place: str
    cells: dict[str, Any]
    error: ManifestError | None = None


def csv_rows(path: Path) -> Iterator[Row]:
    """Rows of a CSV file with a header. Commas, or tabs or semicolons if the header has no comma. ``#`` starts a comment line."""
    text = _text(path)
    header_line = next((line for line in text.splitlines() if line.strip() and not line.startswith(_COMMENT)), "")
    delimiter = next((mark for mark in ",\t;" if mark in header_line), ",")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise ManifestError(f"this is not valid CSV: {error}", where=f"{path} line {line}", fix="check the quotes") from error
        if not any(cell.strip() for cell in cells) or cells[0].startswith(_COMMENT):
            continue
        if header is None:
            header = [cell.strip() for cell in cells]
            check_columns(header, f"{path} line {line}")
            continue
        if len(cells) != len(header):
            wrong = ManifestError(
                "the row has not as many cells as the header",
                where=f"{path} line {line}",
                found=len(cells),
                allowed=f"{len(header)} cells",
                fix=f"put cells that hold a {delimiter!r} in double quotes",
            )
            yield Row(f"line {line}", {}, wrong)
            continue
        yield Row(f"line {line}", dict(zip(header, cells, strict=True)))


def json_rows(path: Path) -> Iterator[Row]:
    """Rows of a JSON Lines file: one object per line; empty lines are skipped."""
    for number, line in enumerate(_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        place = f"line {number}"
        try:
            cells = parse_json_object(line)
        except json.JSONDecodeError as error:
            wrong = ManifestError(
                f"this is not valid JSON: {error.msg} at column {error.colno}",
                where=f"{path} {place}",
                fix="is the file complete?",
            )
            yield Row(place, {}, wrong)
        except ValueError as error:
            yield Row(
                place, {}, ManifestError(str(error), where=f"{path} {place}", found=line[:60], allowed="one object per line")
            )
        else:
            yield Row(place, cells)


def table_rows(table: pa.Table) -> Iterator[Row]:
    """Rows of a table that came from Parquet; the first is ``row 1``."""
    number = 0
    for batch in table.to_batches(max_chunksize=4096):
        for cells in batch.to_pylist():
            number += 1
            yield Row(f"row {number}", cells)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ManifestError("the manifest is not text in UTF-8", where=str(path), fix="save it as UTF-8") from error


def check_columns(names: list[str], where: str) -> None:
    """Refuse unknown, doubled and missing columns."""
    for index, name in enumerate(names):
        if name not in COLUMNS:
            meant = near(name, COLUMNS)
            fix = f"did you mean {meant!r}?" if meant else None
            raise ManifestError("unknown column", where=where, found=name, allowed=COLUMNS, fix=fix)
        if name in names[:index]:
            raise ManifestError("a column is there twice", where=where, found=name)
    missing = [name for name in REQUIRED if name not in names]
    if missing:
        raise ManifestError(
            f"the manifest has no column {missing[0]!r}",
            where=where,
            found=", ".join(names),
            allowed=f"needed: {', '.join(REQUIRED)}",
        )


def arguments(cells: dict[str, Any]) -> dict[str, Any]:
    """Keyword arguments of ``Case`` from the cells of a row; empty cells take the defaults. ``CellError`` carries the column."""
    given: dict[str, Any] = {}
    for name, cell in cells.items():
        if isinstance(cell, str):
            cell = cell.strip()
        if cell is None or cell == "":
            continue
        try:
            given[name] = _value(name, cell)
        except CellError as error:
            error.add_note(name)
            raise
    return given


def _value(name: str, cell: Any) -> Any:
    if not isinstance(cell, str):
        return list(cell) if isinstance(cell, tuple) else cell
    if name in _TRIPLES:
        return _triple(name, cell)
    if name == "sequences":
        return _json_list(cell) if cell.startswith("[") else [part.strip() for part in cell.split(";") if part.strip()]
    if name == "lesions":
        return _json_list(cell) if cell.startswith("[") else [_lesion(part) for part in cell.split(";") if part.strip()]
    if name in JSON_COLUMNS:
        try:
            return parse_json_object(cell)
        except ValueError as error:
            raise CellError(f"this is not a JSON object: {error}", 'for example {"ct": {"kernel": "soft"}}') from error
    return cell


def _json_list(cell: str) -> list[Any]:
    try:
        return list(json.loads(cell))
    except ValueError as error:
        raise CellError(f"this is not a JSON list: {error}", "a JSON list, or items separated by ;") from error


def _triple(name: str, cell: str) -> list[Any]:
    allowed = f"three numbers for {_MEANT[name]}"
    for mark in "[](),;x×X":
        cell = cell.replace(mark, " ")
    parts = cell.split()
    if len(parts) != 3:
        raise CellError(f"{len(parts)} number(s) in place of three", allowed)
    try:
        return [_TRIPLES[name](part) for part in parts]
    except ValueError:
        raise CellError(
            "these are not three whole numbers" if name == "size" else "these are not three numbers", allowed
        ) from None


def _lesion(part: str) -> dict[str, Any]:
    label, separator, diameter = part.rpartition(":")
    allowed = "<label>:<diameter in mm>, separated by ;  for example hepatic tumor:20;lung tumor:12"
    if not separator or not label.strip():
        raise CellError(f"{part.strip()!r} is not a lesion", allowed)
    try:
        return {"label": label.strip(), "diameter": float(diameter)}
    except ValueError:
        raise CellError(f"{diameter.strip()!r} is not a diameter", allowed) from None
