"""The accepted cases of a dataset, a million of them in 30 MB, and their rows one at a time."""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

_BLOCK = 8_192


class CaseList:
    """Case ids in order, each with its place (row number) in the catalog files read one after the other."""

    def __init__(self, ids: pa.ChunkedArray, places: np.ndarray) -> None:
        self.ids = _combined(ids)
        self.places = places
        if len(ids) > 1 and not pc.all(pc.less_equal(self.ids[:-1], self.ids[1:])).as_py():
            order = pc.sort_indices(self.ids)
            self.ids = self.ids.take(order)
            self.places = places[np.asarray(order)]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> str:
        return str(self.ids[index].as_py())

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self.ids), _BLOCK):
            yield from self.ids[start : start + _BLOCK].to_pylist()

    def find(self, case_id: object) -> int | None:
        """The place of a case, None when it isn't in the list; by bisection, in microseconds."""
        if not isinstance(case_id, str):
            return None
        index = bisect.bisect_left(self, case_id)
        return int(self.places[index]) if index < len(self) and self[index] == case_id else None


class RowReader:
    """Single rows of catalog files: of each file the row group that holds the row is read, no more."""

    def __init__(self, parts: pads.Dataset) -> None:
        self._parts = parts

    @cached_property
    def _fragments(self) -> list[pads.ParquetFileFragment]:
        self._parts.count_rows()  # reads all footers at the same time; they are kept
        return list(self._parts.get_fragments())

    @cached_property
    def _ends(self) -> np.ndarray:
        return np.cumsum([fragment.count_rows() for fragment in self._fragments])

    def file_of(self, places: np.ndarray) -> np.ndarray:
        """Number of the file each place is in."""
        return np.searchsorted(self._ends, places, "right")

    def first_place(self, file: int) -> int:
        """Place of the first row of a file."""
        return int(self._ends[file - 1]) if file else 0

    def read_file(self, file: int) -> pa.Table:
        """All rows of a file."""
        return self._fragments[file].to_table(schema=self._parts.schema)

    def row(self, place: int, columns: Sequence[str] | None = None) -> dict[str, Any]:
        """The row at a place."""
        file = int(self.file_of(np.array([place]))[0])
        fragment = self._fragments[file]
        within = place - self.first_place(file)
        for group in fragment.row_groups:
            if within < group.num_rows:
                part = fragment.subset(row_group_ids=[group.id], schema=self._parts.schema)
                names = list(columns) if columns is not None else None
                table = part.to_table(schema=self._parts.schema, columns=names, use_threads=False)
                return dict(table.slice(within, 1).to_pylist(maps_as_pydicts="strict")[0])
            within -= group.num_rows
        raise IndexError(place)


def _combined(values: pa.ChunkedArray) -> pa.Array:
    combined = values.combine_chunks()
    return pa.concat_arrays(combined.chunks) if isinstance(combined, pa.ChunkedArray) else combined
