"""The dataset: what readers see. Committed and accepted cases only; voxels and rows together or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from ctmr_core.errors import IntegrityError, StoreError
from ctmr_core.store import layout
from ctmr_core.store.case_list import CaseList, RowReader
from ctmr_core.store.catalog import catalog_state, first_of_each, parquet_bytes, parts_dataset, read_parts
from ctmr_core.store.drills import reach
from ctmr_core.store.format import begin_dataset, read_format
from ctmr_core.store.keys import all_distinct, find_keys, key_numbers, key_texts
from ctmr_core.store.lazy import Volume
from ctmr_core.store.snapshots import Snapshot, read_snapshot
from ctmr_core.store.storage import Storage, open_storage

if TYPE_CHECKING:
    import pandas as pd

_MANIFEST_ROW_GROUP = 65_536


class Dataset:
    """A dataset on a disk. Open it with :meth:`open`; what is seen is what was committed by then (:meth:`refresh`).

    Iterating gives the case ids in order; ``ds[case_id]`` gives a :class:`~ctmr_core.store.lazy.Volume`.
    """

    def __init__(self, storage: Storage, snapshot: Snapshot | None = None) -> None:
        self.storage = storage
        self.snapshot = snapshot

    @classmethod
    def open(cls, uri: str | os.PathLike[str], snapshot: str | None = None) -> Dataset:
        """The dataset at a path or URI; ``StoreError`` when there is none or it has another schema.

        snapshot: name or first digits of the digest: just the cases of that snapshot, as they were, whatever came since.
        """
        storage = open_storage(uri)
        read_format(storage)
        return cls(storage, read_snapshot(storage, snapshot) if snapshot is not None else None)

    @classmethod
    def create(cls, uri: str | os.PathLike[str], manifest: pa.Table | None = None) -> Dataset:
        """The dataset at ``uri``, made if it isn't there yet, with ``manifest`` adopted (see :meth:`adopt`)."""
        storage = open_storage(uri, make=True)
        begin_dataset(storage)
        dataset = cls(storage)
        if manifest is not None:
            dataset.adopt(manifest)
        return dataset

    def adopt(self, manifest: pa.Table) -> None:
        """Make ``manifest`` (columns case_id, case_key and any others) the plan; rows of case ids it doesn't name are kept.

        A committed case whose key is no longer the planned one is superseded: it stays on disk, and out of sight.
        Only the holder of the run lock may call this.
        """
        missing = [name for name in ("case_id", "case_key") if name not in manifest.column_names]
        if missing:
            raise StoreError("the manifest lacks a column", found=missing, allowed="case_id, case_key, ...")
        for name in ("case_id", "case_key"):  # a table made of empty lists has columns of no type
            position = manifest.column_names.index(name)
            manifest = manifest.set_column(position, name, manifest[name].cast(pa.string()))
        key_numbers(manifest["case_key"])
        if len(pc.unique(manifest["case_id"])) != manifest.num_rows:
            raise StoreError("the manifest names a case id twice", found=_first_repeated(manifest["case_id"]))
        standing = self._read_manifest(["case_id"])
        if standing is not None:
            others = pc.invert(pc.is_in(standing["case_id"], value_set=manifest["case_id"].combine_chunks()))
            if pc.any(others).as_py():
                old = self._read_manifest()
                assert old is not None  # noqa: S101
                manifest = pa.concat_tables([old.filter(others), manifest], promote_options="permissive")
        ordered = manifest.sort_by("case_id").replace_schema_metadata(None)
        data = parquet_bytes(ordered, _MANIFEST_ROW_GROUP)
        if standing is None or self.storage.read(layout.MANIFEST) != data:
            reach("adopt.begin", layout.MANIFEST)
            self.storage.write(layout.MANIFEST, data)
            reach("adopt.made", layout.MANIFEST)
        self.refresh()

    @property
    def uri(self) -> str:
        """Where it is."""
        return self.storage.uri

    @cached_property
    def manifest(self) -> pa.Table | None:
        """The planned cases, by case id; None when none was adopted."""
        return self._read_manifest()

    def _read_manifest(self, columns: Sequence[str] | None = None) -> pa.Table | None:
        if self.snapshot is not None:
            return None
        filesystem, (path,) = self.storage.arrow_files([layout.MANIFEST])
        try:
            with pq.ParquetFile(path, filesystem=filesystem) as file:
                return file.read(columns=columns)
        except FileNotFoundError:
            return None
        except (pa.ArrowException, OSError) as error:
            raise IntegrityError(
                "the manifest can not be read", where=f"{self.uri}/{layout.MANIFEST}", found=str(error)
            ) from error

    @cached_property
    def planned_keys(self) -> np.ndarray | None:
        """uint64 [cases, 4]: the keys of the planned cases, by case id (see ``keys.key_numbers``); None without a plan."""
        manifest = self._read_manifest(["case_key"])
        return None if manifest is None else key_numbers(manifest["case_key"])

    @cached_property
    def parts(self) -> tuple[str, ...]:
        """The catalog files that are read, in this order."""
        return self.snapshot.rows_files if self.snapshot is not None else catalog_state(self.storage).parts

    @cached_property
    def index(self) -> CaseIndex:
        """Id, key and status of every sealed case, one per key, and whether the plan still wants it."""
        table = read_parts(self.storage, ["case_id", "case_key", "status"], self.parts)
        keys = key_numbers(table["case_key"])
        places = np.arange(table.num_rows)
        if not all_distinct(keys):
            places = np.asarray(first_of_each(table["case_key"]))
            table, keys = table.take(pa.array(places)), keys[places]
        accepted = np.asarray(pc.equal(table["status"], "accepted"))
        planned = self.planned_keys
        current = np.ones(len(keys), bool) if planned is None else find_keys(keys, planned) >= 0
        return CaseIndex(table["case_id"], keys, accepted, current, places)

    @cached_property
    def ledger(self) -> pads.Dataset:
        """Every current committed row, accepted and rejected, as a lazy ``pyarrow.dataset``."""
        index = self.index
        whole = self._rows_once()
        superseded = key_texts(index.keys[~index.current])
        return whole.filter(~pads.field("case_key").isin(superseded)) if len(superseded) else whole

    @cached_property
    def _whole(self) -> pads.Dataset:
        return parts_dataset(self.storage, self.parts)

    @cached_property
    def _reader(self) -> RowReader:
        return RowReader(self._whole)

    def _rows_once(self) -> pads.Dataset:
        """The catalog files; of a case that was sealed twice one row: the files that hold the others are loaded."""
        rows = self._whole.count_rows()
        if rows == len(self.index):
            return self._whole
        again = np.setdiff1d(np.arange(rows), self.index.places, assume_unique=True)
        reader, tables = self._reader, []
        files = reader.file_of(again)
        for file in np.unique(files):
            kept = np.ones(reader.read_file(file).num_rows, bool)
            kept[again[files == file] - reader.first_place(file)] = False
            tables.append(reader.read_file(file).filter(pa.array(kept)))
        clean = [name for number, name in enumerate(self.parts) if number not in files]
        return pads.dataset([parts_dataset(self.storage, clean), pads.dataset(pa.concat_tables(tables))])

    @cached_property
    def catalog(self) -> pads.Dataset:
        """The rows of the accepted cases as a lazy ``pyarrow.dataset`` (columns: ``ctmr_core.store.catalog.SCHEMA``).

        Filters on case_id, sequence_set, body, split and other plain columns skip what they don't need. The files may be
        merged into others while a run goes on: what takes longer than a quarter of an hour reads a snapshot, or opens anew.
        """
        return self.ledger.filter(pads.field("status") == "accepted")

    def to_pandas(self, columns: Sequence[str] | None = None, filter: pads.Expression | None = None) -> pd.DataFrame:  # noqa: A002
        """The catalog, or some of its columns and rows, as a DataFrame sorted by case id."""
        wanted = list(columns) if columns is not None else None
        read = wanted if wanted is None or "case_id" in wanted else [*wanted, "case_id"]
        table = self.catalog.to_table(columns=read, filter=filter).sort_by("case_id")
        if wanted is not None:
            table = table.select(wanted)
        return table.to_pandas(maps_as_pydicts="strict")

    @cached_property
    def _cases(self) -> CaseList:
        index = self.index
        seen = np.flatnonzero(index.accepted & index.current)
        return CaseList(index.ids.take(pa.array(seen)), index.places[seen])

    @cached_property
    def _volumes(self) -> pa.Array:
        return read_parts(self.storage, ["volume"], self.parts)["volume"].combine_chunks()

    def __len__(self) -> int:
        return len(self._cases)

    def __iter__(self) -> Iterator[str]:
        return iter(self._cases)

    def __contains__(self, case_id: object) -> bool:
        return self._cases.find(case_id) is not None

    def __getitem__(self, case_id: str) -> Volume:
        return DatasetVolume(self, case_id, str(self._volumes[self._place(case_id)].as_py()))

    def __getstate__(self) -> dict[str, Any]:
        return {"storage": self.storage, "snapshot": self.snapshot}  # a spawned worker reads the catalog itself

    def __repr__(self) -> str:
        return f"Dataset({self.uri!r}, {len(self)} cases)"

    def row(self, case_id: str, columns: Sequence[str] | None = None) -> dict[str, Any]:
        """The catalog row of one accepted case, or some columns of it. Milliseconds; for many rows use ``catalog``."""
        place = self._place(case_id)
        try:
            return self._reader.row(place, columns)
        except FileNotFoundError:  # merged into another file since this was opened
            self.refresh()
            return self._reader.row(self._place(case_id), columns)

    def _place(self, case_id: str) -> int:
        place = self._cases.find(case_id)
        if place is None:
            raise KeyError(f"{case_id!r} is not an accepted case of {self.uri}")
        return place

    def refresh(self) -> None:
        """See what was committed since."""
        for name in (
            "manifest",
            "planned_keys",
            "parts",
            "index",
            "ledger",
            "catalog",
            "_whole",
            "_reader",
            "_cases",
            "_volumes",
        ):
            self.__dict__.pop(name, None)


@dataclass(frozen=True)
class CaseIndex:
    """Columns of equal length: ids; keys (uint64 [cases, 4], see ``keys.key_numbers``); accepted (else rejected) and current
    (the plan wants the case with this key), bool; places: row number in the catalog files read one after the other.
    """

    ids: pa.ChunkedArray
    keys: np.ndarray
    accepted: np.ndarray
    current: np.ndarray
    places: np.ndarray

    def __len__(self) -> int:
        return len(self.keys)


class DatasetVolume(Volume):
    """A volume of a dataset, with its catalog row."""

    def __init__(self, dataset: Dataset, case_id: str, path: str) -> None:
        super().__init__(dataset.storage, case_id, path)
        self._dataset = dataset

    @cached_property
    def row(self) -> dict[str, Any]:
        """The case's catalog row."""
        return self._dataset.row(self.case_id)


def _first_repeated(values: pa.ChunkedArray) -> str:
    counts = pc.value_counts(values)
    repeated = counts.filter(pc.greater(counts.field("counts"), 1))
    return str(repeated.field("values")[0])
