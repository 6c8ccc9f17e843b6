"""The dataset: what readers see. Committed and accepted cases only; voxels and rows together or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from io import BytesIO
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from ctmr_core.errors import IntegrityError, StoreError
from ctmr_core.store import layout
from ctmr_core.store.catalog import catalog_state, first_of_each, parquet_bytes, parts_dataset, read_parts
from ctmr_core.store.drills import reach
from ctmr_core.store.format import begin_dataset, read_format
from ctmr_core.store.keys import all_distinct, find_keys, key_numbers
from ctmr_core.store.lazy import Volume
from ctmr_core.store.snapshots import Snapshot, read_snapshot
from ctmr_core.store.storage import Storage, open_storage

if TYPE_CHECKING:
    import pandas as pd

_INDEX = ("case_id", "case_key", "status")


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
        old = self.manifest
        if old is not None:
            others = old.filter(pc.invert(pc.is_in(old["case_id"], value_set=manifest["case_id"].combine_chunks())))
            if others.num_rows:
                manifest = pa.concat_tables([others, manifest], promote_options="permissive")
        ordered = manifest.sort_by("case_id").replace_schema_metadata(None)
        data = parquet_bytes(ordered)
        if old is None or self.storage.read(layout.MANIFEST) != data:
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
        if self.snapshot is not None:
            return None
        try:
            return pq.read_table(BytesIO(self.storage.read(layout.MANIFEST)))
        except FileNotFoundError:
            return None
        except pa.ArrowInvalid as error:
            raise IntegrityError(
                "the manifest can not be read", where=f"{self.uri}/{layout.MANIFEST}", found=str(error)
            ) from error

    @cached_property
    def index(self) -> pa.Table:
        """case_id, case_key and status of every sealed case, one row per key, and whether it is ``current``."""
        table = self.snapshot.table(_INDEX) if self.snapshot is not None else read_parts(self.storage, _INDEX)
        keys = key_numbers(table["case_key"])
        if not all_distinct(keys):
            table = table.take(first_of_each(table["case_key"]))
            keys = key_numbers(table["case_key"])
        manifest = self.manifest
        if manifest is None:
            current: Any = pa.array([True] * table.num_rows, pa.bool_())
        else:
            current = pa.array(find_keys(keys, key_numbers(manifest["case_key"])) >= 0)
        return table.append_column("current", current)

    @cached_property
    def ledger(self) -> pads.Dataset:
        """Every current committed row, accepted and rejected, as a lazy ``pyarrow.dataset``."""
        if self.snapshot is not None:
            return self.snapshot.rows()
        index = self.index
        parts = catalog_state(self.storage).parts
        whole = parts_dataset(self.storage, parts)
        if whole.count_rows() != index.num_rows:  # a case sealed twice: rare
            table = read_parts(self.storage)
            whole = pads.dataset(table.take(first_of_each(table["case_key"])))
        superseded = index.filter(pc.invert(index["current"]))["case_key"]
        if len(superseded):
            return whole.filter(~pads.field("case_key").isin(superseded.combine_chunks()))
        return whole

    @cached_property
    def catalog(self) -> pads.Dataset:
        """The rows of the accepted cases as a lazy ``pyarrow.dataset`` (columns: ``ctmr_core.store.catalog.SCHEMA``)."""
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
    def _volumes(self) -> dict[str, str]:
        seen = self.catalog.to_table(columns=["case_id", "volume"]).sort_by("case_id")
        return dict(zip(seen["case_id"].to_pylist(), seen["volume"].to_pylist(), strict=True))

    def __len__(self) -> int:
        return len(self._volumes)

    def __iter__(self) -> Iterator[str]:
        return iter(self._volumes)

    def __contains__(self, case_id: object) -> bool:
        return case_id in self._volumes

    def __getitem__(self, case_id: str) -> Volume:
        if case_id not in self._volumes:
            raise KeyError(f"{case_id!r} is not an accepted case of {self.uri}")
        return DatasetVolume(self, case_id, self._volumes[case_id])

    def __getstate__(self) -> dict[str, Any]:
        return {"storage": self.storage, "snapshot": self.snapshot}  # a spawned worker reads the catalog itself

    def __repr__(self) -> str:
        return f"Dataset({self.uri!r}, {len(self)} cases)"

    def row(self, case_id: str) -> dict[str, Any]:
        """The catalog row of one accepted case."""
        found = self.catalog.to_table(filter=pads.field("case_id") == case_id).to_pylist(maps_as_pydicts="strict")
        if not found:
            raise KeyError(f"{case_id!r} is not an accepted case of {self.uri}")
        return dict(found[0])

    def refresh(self) -> None:
        """See what was committed since."""
        for name in ("manifest", "index", "ledger", "catalog", "_volumes"):
            self.__dict__.pop(name, None)


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
