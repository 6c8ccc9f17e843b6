"""Codes of many volumes in files, and the nearest of them to each other: a block at a time, whatever their number."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

BLOCK = 2048  # rows multiplied with as many: 16 MB of products
NEAREST = 8  # kept per row


class CodeFile:
    """Rows of one kind: ``codes`` float32 [rows, width] and ``cells`` uint8 [rows, cells], in files; owners in memory.

    owners: int64, whose row it is. persons: int64, rows with equal numbers are relatives and never compared.
    """

    def __init__(self, path: Path) -> None:
        self._paths = {"codes": path.with_suffix(".codes"), "cells": path.with_suffix(".cells")}
        self._files = {name: file.open("wb") for name, file in self._paths.items()}
        self._widths = {"codes": 0, "cells": 0}
        self._owners: list[int] = []
        self._persons: list[int] = []

    def append(self, owner: int, person: int, code: np.ndarray, cells: np.ndarray) -> None:
        for name, row in (("codes", np.asarray(code, np.float32)), ("cells", np.asarray(cells, np.uint8))):
            self._files[name].write(row.tobytes())
            self._widths[name] = row.size
        self._owners.append(owner)
        self._persons.append(person)

    def close(self) -> None:
        """No more rows; they can be read now."""
        for file in self._files.values():
            file.close()

    def __len__(self) -> int:
        return len(self._owners)

    @property
    def owners(self) -> np.ndarray:
        return np.array(self._owners, np.int64)

    @property
    def persons(self) -> np.ndarray:
        return np.array(self._persons, np.int64)

    def codes(self, start: int, stop: int) -> np.ndarray:
        """float32 [rows, width]."""
        return self._read("codes", np.dtype(np.float32), start, stop)

    def cells(self, row: int) -> np.ndarray:
        """uint8 [cells]."""
        return self._read("cells", np.dtype(np.uint8), row, row + 1)[0]

    def _read(self, name: str, dtype: np.dtype, start: int, stop: int) -> np.ndarray:
        width, stop = self._widths[name], min(stop, len(self))
        count = max(stop - start, 0) * width
        values = np.fromfile(self._paths[name], dtype, count, offset=start * width * dtype.itemsize)
        return values.reshape(-1, width)


def nearest(rows: CodeFile, others: CodeFile, *, counted: bool, count: int = NEAREST) -> tuple[np.ndarray, np.ndarray]:
    """For every row the ``count`` others of the highest dot product: (places int64, -1 = none; products float32) [rows, count].

    counted: the last number of a code is a size, by the larger of which the product of the others is divided (label codes);
    else it takes part as it is (image codes). A row is never compared with itself or its relatives.
    Memory: two blocks, their products, and the result.
    """
    places = np.full((len(rows), count), -1, np.int64)
    products = np.full((len(rows), count), -np.inf, np.float32)
    mine, theirs = rows.persons, others.persons
    for a in _blocks(len(rows)):
        left = rows.codes(a.start, a.stop)
        for b in _blocks(len(others)):
            right = others.codes(b.start, b.stop)
            if counted:
                block = left[:, :-1] @ right[:, :-1].T
                block /= np.maximum(np.maximum(left[:, -1:], right[:, -1]), 1)
            else:
                block = left @ right.T
            block[mine[a, None] == theirs[None, b]] = -np.inf
            best = min(count, block.shape[1])
            top = np.argpartition(block, block.shape[1] - best, axis=1)[:, -best:]
            found = np.concatenate([products[a], np.take_along_axis(block, top, 1)], axis=1)
            where = np.concatenate([places[a], top + b.start], axis=1)
            order = np.lexsort((where, -found), axis=1)[:, :count]
            products[a] = np.take_along_axis(found, order, 1)
            places[a] = np.take_along_axis(where, order, 1)
    places[~np.isfinite(products)] = -1
    return places, products


def _blocks(rows: int) -> Iterator[slice]:
    return (slice(start, min(start + BLOCK, rows)) for start in range(0, rows, BLOCK))
