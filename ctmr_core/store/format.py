"""Which format a dataset has, and whether this software may read and write it.

``dataset.json``::

    {"kind": "ctmr-dataset", "schema": 1, "minimum_reader": 1, "written_by": "ctmr-factory 0.1.0"}

schema: the format in which it was begun. minimum_reader: the lowest schema a reader must know to read it rightly; what came
later can be passed over. Datasets of the first releases have ``kind`` and ``schema`` only: their reader must know the schema.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ctmr_core.errors import StoreError
from ctmr_core.store import layout
from ctmr_core.store.storage import Storage, json_bytes, read_json

KIND = "ctmr-dataset"
DATASET_SCHEMA = 1  # what this software writes, and the highest it knows
MINIMUM_READER = 1  # what a reader must know for what this software writes
_SOFTWARE = "ctmr-factory"


@dataclass(frozen=True)
class DatasetFormat:
    """The format of a dataset. written_by: the software that began it, "" when it doesn't say."""

    schema: int
    minimum_reader: int
    written_by: str


def begin_dataset(storage: Storage) -> DatasetFormat:
    """Make ``dataset.json`` unless there is one; the format found. A ``StoreError`` when this software may not write it."""
    document = {
        "kind": KIND,
        "schema": DATASET_SCHEMA,
        "minimum_reader": MINIMUM_READER,
        "written_by": _software(),
    }
    storage.create(layout.DATASET, json_bytes(document))
    found = read_format(storage)
    if found.schema > DATASET_SCHEMA:
        raise _too_new(storage, found, "write into")
    return found


def read_format(storage: Storage) -> DatasetFormat:
    """The format of the dataset; a ``StoreError`` when it is none, or one that this software can't read."""
    try:
        document = read_json(storage, layout.DATASET)
    except FileNotFoundError as error:
        raise StoreError(
            "this folder is not a dataset", where=storage.uri, fix="check the path; `ctmr generate` makes datasets"
        ) from error
    found = _parsed(document)
    if found is None:
        raise StoreError(
            "not the description of a dataset",
            where=f"{storage.uri}/{layout.DATASET}",
            found=document,
            allowed=f'kind "{KIND}" with a schema number from 1 on',
            fix="restore the file; it is written once and never changes",
        )
    if found.minimum_reader > DATASET_SCHEMA:
        raise _too_new(storage, found, "read")
    return found


def _parsed(document: Any) -> DatasetFormat | None:
    if not isinstance(document, dict) or document.get("kind", KIND) != KIND:
        return None
    schema = document.get("schema")
    reader = document.get("minimum_reader", schema)
    if type(schema) is not int or type(reader) is not int or min(schema, reader) < 1:
        return None
    return DatasetFormat(schema, reader, str(document.get("written_by", "")))


def _too_new(storage: Storage, found: DatasetFormat, deed: str) -> StoreError:
    return StoreError(
        f"the dataset was begun by a newer version ({found.written_by or 'unknown'}), {_software()} can not {deed} it",
        where=f"{storage.uri}/{layout.DATASET}, field schema",
        found=found.schema,
        allowed=str(DATASET_SCHEMA),
        fix="pip install --upgrade ctmr-factory",
    )


@cache
def _software() -> str:
    try:
        return f"{_SOFTWARE} {version(_SOFTWARE)}"
    except PackageNotFoundError:
        return _SOFTWARE
