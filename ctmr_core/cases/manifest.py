"""The manifest: one row per case. Planned or written by hand, in Parquet, CSV or JSON Lines."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import ValidationError

from ctmr_core.cases.case import SCHEMA_VERSION, Case
from ctmr_core.cases.manifest_rows import CellError, Row, arguments, check_columns, csv_rows, json_rows, table_rows
from ctmr_core.cases.manifest_table import (
    SCHEMA,
    distinct_rows,
    iter_keys,
    iter_rows,
    rows_are_valid,
    table_of_cases,
    with_pose,
    without_empty_pose,
)
from ctmr_core.cases.problems import field_name, gather, near, problems_of
from ctmr_core.errors import ManifestError

META_SCHEMA = b"ctmr.schema_version"
META_RECIPE = b"ctmr.recipe"
META_DIGEST = b"ctmr.recipe_digest"
META_PLANNER = b"ctmr.planner_version"
META_LIBRARY = b"ctmr.library"
META_TARGETS = b"ctmr.targets"  # JSON of ``cases.targets.Targets``, where the recipe has any

SUFFIXES = (".parquet", ".csv", ".jsonl")
_ROW_GROUP = 65_536
_MOST_ERRORS = 100  # one file of a million broken rows must not become an error of a gigabyte


@dataclass(frozen=True, eq=False)
class Manifest:
    """Cases in the order they are made. ``table`` has the columns of ``manifest_table.SCHEMA``.

    source: the file it was read from. skipped: the errors of rows that ``skip_invalid`` left out.
    """

    table: pa.Table
    source: str = ""
    skipped: tuple[ManifestError, ...] = ()

    @classmethod
    def from_cases(cls, cases: Iterable[Case]) -> Manifest:
        """A manifest of these cases."""
        return cls(table_of_cases(list(cases)))

    @property
    def rows(self) -> int:
        """Number of cases."""
        return int(self.table.num_rows)

    def __len__(self) -> int:
        return self.rows

    @property
    def metadata(self) -> dict[str, str]:
        """What the planner wrote along: schema_version, recipe, recipe_digest, planner_version, library, targets, if any."""
        found = self.table.schema.metadata or {}
        return {key.decode().removeprefix("ctmr."): value.decode() for key, value in found.items() if key.startswith(b"ctmr.")}

    def case(self, row: int) -> Case:
        """The case of one row, counted from 0."""
        return next(self.iter_cases(row, row + 1))

    def iter_cases(self, start: int = 0, stop: int | None = None) -> Iterator[Case]:
        """Cases of rows ``start`` to ``stop`` (exclusive), built as they are asked for."""
        start, stop = self._span(start, stop)
        for cells in iter_rows(self.table, start, stop):
            yield Case(**cells)

    def distinct_cases(self) -> Iterator[Case]:
        """One case of each combination of body, sequences, grid, center, lesion labels, engine and settings, in row order."""
        return (self.case(row) for row in distinct_rows(self.table))

    def iter_keys(self, start: int = 0, stop: int | None = None) -> Iterator[str]:
        """``Case.key`` of rows ``start`` to ``stop``, far faster than through the cases."""
        return iter_keys(self.table, *self._span(start, stop))

    def case_keys(self, start: int = 0, stop: int | None = None) -> list[str]:
        """The keys as a list."""
        return list(self.iter_keys(start, stop))

    def _span(self, start: int, stop: int | None) -> tuple[int, int]:
        stop = self.rows if stop is None else min(stop, self.rows)
        if not 0 <= start <= max(stop, start) <= max(self.rows, start):
            raise ManifestError("no such rows", where=self.source or None, found=(start, stop), allowed=f"0..{self.rows}")
        return start, stop

    def completed(
        self,
        engine_identity: Callable[[str], str] | None = None,
        template_digest: Callable[[str], str] | None = None,
        body_digest: Callable[[str, str], str] | None = None,
    ) -> Manifest:
        """This manifest with empty identities and digests filled in.

        Engine identities by engine name, template digests by template id, and those of generated bodies by engine name and body.
        """
        table = self.table
        if engine_identity is not None:
            table = _filled(table, "engine_identity", table["engine"], engine_identity)
        if template_digest is not None:
            table = _filled(table, "template_digest", table["body"], lambda body: _of_template(body, template_digest))
        if body_digest is not None and pc.any(pc.starts_with(table["body"], "generated:")).as_py():
            names = pc.binary_join_element_wise(table["engine"], table["body"], "\n")
            table = _filled(table, "template_digest", names, lambda name: _of_generated(name, body_digest))
        return replace(self, table=table)

    def write(self, path: Path | str) -> None:
        """Write Parquet (zstd), the same bytes for the same rows and metadata; appears whole or not at all."""
        path = Path(path)
        if path.suffix != ".parquet":
            raise ManifestError("a manifest is written as Parquet", found=path.name, allowed="a name that ends in .parquet")
        table = self.table.combine_chunks()
        metadata = {META_SCHEMA: str(SCHEMA_VERSION).encode(), **(table.schema.metadata or {})}
        # The cast gives list items one name again: Parquet calls them "element", Arrow "item".
        table = without_empty_pose(table.cast(SCHEMA)).replace_schema_metadata(dict(sorted(metadata.items())))
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(table, partial, compression="zstd", row_group_size=_ROW_GROUP, write_page_checksum=True)
            os.replace(partial, path)  # noqa: PTH105 - replace() across an open reader must be the atomic system call
        except OSError as error:
            with contextlib.suppress(OSError):
                partial.unlink()
            raise ManifestError(f"the manifest cannot be written: {error.strerror or error}", where=str(path)) from error

    def summary(self) -> dict[str, Any]:
        """Counts for people: cases, bodies, and cases by group, sequence, split, engine, spacing, size, with lesions."""
        groups = pc.replace_substring_regex(self.table["case_id"], r"-\d{7}$", "")
        bodies = self.table.select(["body", "body_seed"]).group_by(["body", "body_seed"]).aggregate([])
        return {
            "cases": self.rows,
            "bodies": bodies.num_rows,
            "images": int(pc.sum(pc.list_value_length(self.table["sequences"])).as_py() or 0),
            "with_lesions": int(pc.sum(pc.greater(pc.list_value_length(self.table["lesions"]), 0)).as_py() or 0),
            "groups": _counts(groups),
            "splits": _counts(self.table["split"]),
            "sequences": _counts(pc.list_flatten(self.table["sequences"])),
            "engines": _counts(self.table["engine"]),
            "lesions": _counts(pc.struct_field(pc.list_flatten(self.table["lesions"]), "label")),
            "spacings": _triples(self.table["spacing"]),
            "sizes": _triples(self.table["size"]),
        }


def _counts(column: Any) -> dict[str, int]:
    return {
        pair["values"]: pair["counts"]
        for pair in sorted(pc.value_counts(column).to_pylist(), key=lambda pair: str(pair["values"]))
    }


def _triples(column: Any, shown: int = 8) -> dict[str, int]:
    """Counts of the most frequent triples, ``"1.5 x 1.5 x 2"``; the rest under ``"other"``."""
    cells = [pc.list_element(column, axis) for axis in range(3)]
    counted = pa.table(cells, names=["x", "y", "z"]).group_by(["x", "y", "z"]).aggregate([([], "count_all")]).to_pylist()
    counted.sort(key=lambda row: (-row["count_all"], row["x"], row["y"], row["z"]))
    counts = {f"{row['x']:g} x {row['y']:g} x {row['z']:g}": row["count_all"] for row in counted[:shown]}
    if len(counted) > shown:
        counts["other"] = sum(row["count_all"] for row in counted[shown:])
    return counts


def _of_template(body: str, template_digest: Callable[[str], str]) -> str:
    return template_digest(body.removeprefix("template:")) if body.startswith("template:") else ""


def _of_generated(name: str, body_digest: Callable[[str, str], str]) -> str:
    engine, _, body = name.partition("\n")
    return body_digest(engine, body) if body.startswith("generated:") else ""


def _filled(table: pa.Table, column: str, by: Any, value: Callable[[str], str]) -> pa.Table:
    names = pc.unique(by)
    values = pa.array([value(name) for name in names.to_pylist()], pa.string())
    filled = pc.if_else(pc.equal(table[column], ""), values.take(pc.index_in(by, names)), table[column])
    return table.set_column(table.schema.get_field_index(column), SCHEMA.field(column), filled)


def read_manifest(path: Path | str, skip_invalid: bool = False) -> Manifest:
    """Read and validate a manifest (``.parquet``, ``.csv``, ``.jsonl``).

    ``ManifestError`` names file, row, field, found and allowed of everything that is wrong. With ``skip_invalid`` bad rows are
    left out and their errors kept in ``Manifest.skipped``; a file that cannot be read at all is refused all the same.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise ManifestError("unknown kind of manifest", where=str(path), found=path.suffix, allowed=SUFFIXES)
    try:
        if path.suffix != ".parquet":
            return _from_rows(path, csv_rows(path) if path.suffix == ".csv" else json_rows(path), skip_invalid, None)
        table = _read_parquet(path)
    except FileNotFoundError:
        raise ManifestError(
            "there is no such manifest", where=str(path), fix="check the path, or make one with `ctmr plan`"
        ) from None
    except OSError as error:
        raise ManifestError(f"the manifest cannot be read: {error.strerror or error}", where=str(path)) from error
    _check_version(path, table.schema.metadata or {})
    check_columns(table.column_names, str(path))
    if table.num_rows and table.schema.equals(SCHEMA) and _all_differ(table["case_id"]) and rows_are_valid(table):
        return Manifest(table, str(path))
    return _from_rows(path, table_rows(table), skip_invalid, table.schema.metadata)


def _read_parquet(path: Path) -> pa.Table:
    try:
        with path.open("rb") as stream:  # a path would be read through a file system that hides why it failed
            table = pq.read_table(stream, page_checksum_verification=True)
        _ = _names(table.schema), table.schema.metadata  # decoded on first use
        table.validate(full=True)
        return with_pose(table)
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
        if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError):
            raise
        raise ManifestError(
            f"this is not a complete Parquet file: {str(error).splitlines()[0]}",
            where=str(path),
            fix="plan it again; it may have been truncated while it was copied",
        ) from error


def _names(fields: Iterable[pa.Field]) -> list[str]:
    """The names of fields and of the fields inside their lists and structs."""
    found = []
    for field in fields:
        nested = [field.type.field(index) for index in range(field.type.num_fields)]
        found += [field.name, *_names(nested)]
    return found


def _check_version(path: Path, metadata: dict[bytes, bytes]) -> None:
    version = metadata.get(META_SCHEMA, str(SCHEMA_VERSION).encode()).decode(errors="replace")
    if version != str(SCHEMA_VERSION):
        raise ManifestError(
            "the manifest has another schema version",
            where=str(path),
            found=version,
            allowed=str(SCHEMA_VERSION),
            fix="plan it again with this version of ctmr-factory",
        )


def _all_differ(column: Any) -> bool:
    return bool(pc.count_distinct(column).as_py() == len(column))


def _from_rows(path: Path, rows: Iterator[Row], skip_invalid: bool, metadata: dict[bytes, bytes] | None) -> Manifest:
    """Row by row, with every error in its place."""
    tables: list[pa.Table] = []
    cases: list[Case] = []
    errors: list[ManifestError] = []
    places: dict[str, str] = {}
    read = 0
    for row in rows:
        read += 1
        outcome = row.error or _case_of(path, row)
        if isinstance(outcome, Case) and outcome.case_id in places:
            outcome = ManifestError(
                "two rows have the same case_id",
                where=f"{path} {places[outcome.case_id]} and {row.place}, field case_id",
                found=outcome.case_id,
                allowed="one row per case_id",
            )
        if isinstance(outcome, Case):
            places[outcome.case_id] = row.place
            cases.append(outcome)
        else:
            errors.append(outcome)
            if not skip_invalid and len(errors) >= _MOST_ERRORS:
                break
        if len(cases) == _ROW_GROUP:
            tables.append(table_of_cases(cases))
            cases = []
    if read == 0:
        raise ManifestError("the manifest holds no rows", where=str(path), fix="is the file complete?")
    if errors and not skip_invalid:
        raise gather(errors)
    table = pa.concat_tables([*tables, table_of_cases(cases)]).replace_schema_metadata(metadata)
    return Manifest(table, str(path), tuple(errors))


def _case_of(path: Path, row: Row) -> Case | ManifestError:
    where = f"{path} {row.place}"
    unknown = [name for name in row.cells if name not in SCHEMA.names]
    if unknown:
        meant = near(unknown[0], SCHEMA.names)
        fix = f"did you mean {meant!r}?" if meant else None
        return ManifestError("unknown field", where=where, found=unknown[0], allowed=SCHEMA.names, fix=fix)
    try:
        given = arguments(row.cells)
    except CellError as error:
        name = error.__notes__[0]
        return ManifestError(error.wrong, where=f"{where}, field {name}", found=row.cells[name], allowed=error.allowed)
    try:
        return Case(**given)
    except ValidationError as error:
        problem = problems_of(error, given)[0]
        place = f"{where}, field {field_name(problem.path)}" if problem.path else where
        found = None if problem.found is given else problem.found
        return ManifestError(problem.what, where=place, found=found, allowed=problem.allowed, fix=problem.fix)
