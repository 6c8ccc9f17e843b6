"""The contract between the driver, which streams cases, and the formats, which write them."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from ctmr_core.anatomy.vocabulary import Vocabulary
from ctmr_core.store import Volume
from ctmr_core.store.storage import checked_name

Record = Mapping[str, Any]  #: one line of ``export.jsonl``


class FormatOptions(BaseModel):
    """What can be set for a format (``--set name=value``); every format has its own subclass."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True)
class Selection:
    """Which cases are exported, and which of their images; empty means all.

    sequences: only cases that have all of these, and only these images, in this order. splits: train, val, test.
    vocabulary: only cases labelled in it. cases: case ids. limit: the first so many by case id.
    """

    sequences: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()
    vocabulary: str = ""
    cases: tuple[str, ...] = ()
    limit: int | None = None


@dataclass(frozen=True)
class CaseEntry:
    """What the plan knows of a case: who it is, and which images of it are exported."""

    case_id: str
    case_key: str
    content_digest: str
    split: str
    body_identity: str
    vocabulary: str
    sequences: tuple[str, ...]


@dataclass(frozen=True)
class ExportPlan:
    """The cases to export, by case id.

    name: of the dataset, for people and metadata. snapshot: its digest, "" for a dataset that is still growing. content_digest:
    SHA-256 over (case id, key, content digest) of the cases. label_ids: vocabulary -> ids that occur in any of them, ascending.
    table: one row per case: columns of :class:`CaseEntry`, and size, spacing (mm), body and engine as in the catalog.
    """

    name: str
    dataset: str
    snapshot: str
    snapshot_name: str
    content_digest: str
    label_ids: Mapping[str, tuple[int, ...]]
    licences: tuple[str, ...]
    table: pa.Table

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def entries(self) -> Iterator[CaseEntry]:
        """The cases, by case id; a few thousand in memory at a time."""
        names = [field.name for field in fields(CaseEntry)]
        for batch in self.table.select(names).to_batches(max_chunksize=4096):
            for row in batch.to_pylist():
                checked_name(row["case_id"])  # it becomes a file name
                for sequence in row["sequences"]:
                    checked_name(sequence)
                yield CaseEntry(**{**row, "sequences": tuple(row["sequences"])})

    @cached_property
    def sequence_sets(self) -> list[tuple[str, ...]]:
        """The different lists of images that cases have."""
        import pyarrow.compute as pc

        joined = pc.binary_join(self.table["sequences"].combine_chunks(), "+")
        return sorted(tuple(text.split("+")) for text in pc.unique(joined).to_pylist())


@dataclass(frozen=True)
class ExportUnit:
    """Cases that are written together and are there together; ``name`` is made of plain path segments."""

    name: str
    cases: tuple[CaseEntry, ...]


class ExportCase:
    """One case with its voxels, read when asked for. Arrays are [x, y, z], RAS+, in the memory order of the store."""

    def __init__(self, entry: CaseEntry, volume: Volume, read_row: Callable[[], Mapping[str, Any]]) -> None:
        self.entry = entry
        self.volume = volume
        self._read_row = read_row

    @cached_property
    def row(self) -> Mapping[str, Any]:
        """The catalog row."""
        return self._read_row()

    def acquisition(self, sequence: str) -> Mapping[str, Any]:
        """What the engine recorded of the scan of a sequence (``tr_ms``, ``kernel`` ...); empty where it recorded nothing."""
        recorded = json.loads(self.row["image_parameters"] or "{}")
        found: Mapping[str, Any] = recorded.get("images", {}).get(sequence, {})
        return found

    @property
    def affine(self) -> np.ndarray:
        """4x4 float64, voxel index -> RAS+ mm."""
        return self.volume.affine

    @property
    def spacing(self) -> tuple[float, float, float]:
        """mm per voxel along [x, y, z]."""
        return self.volume.spacing

    @property
    def vocabulary(self) -> Vocabulary:
        """What the label ids mean."""
        return self.volume.vocabulary

    @property
    def synthetic(self) -> bool:
        """False for imported scans of people; they are not marked as synthetic."""
        return bool(self.volume.attributes.get("synthetic", True))

    def image(self, sequence: str) -> np.ndarray:
        """int16 [x, y, z]: CT in HU, MR in arbitrary units."""
        return self.volume.images[sequence][...]

    def labels(self) -> np.ndarray:
        """Label map [x, y, z] in the ids and dtype of the vocabulary."""
        return self.volume.labels[...]


class Exporter(ABC):
    """A format. Made once per export from its options, prepared, then sent to every worker by pickle.

    name: what ``--format`` says. consumer: who reads it, for people. version: changes when the same cases give other files.
    Options: the class of ``options``, what was set. Heavy libraries are imported inside the methods that need them.
    """

    name: ClassVar[str] = ""
    consumer: ClassVar[str] = ""
    version: ClassVar[str] = "1"
    Options: ClassVar[type[FormatOptions]] = FormatOptions
    options: FormatOptions

    def __init__(self, options: FormatOptions | None = None) -> None:
        self.options = options if options is not None else self.Options()

    def prepare(self, plan: ExportPlan) -> Mapping[str, Any]:  # noqa: ARG002 - formats with needs of their own see to them here
        """Look at the plan once, in the driver. Refuse (``ExchangeError``) what this format can't hold.

        Returns JSON-able facts that, with the options, decide the files of a case (a label table, say): when they change, cases
        are written anew. Runs before anything is written.
        """
        return {}

    def units(self, plan: ExportPlan) -> Iterator[ExportUnit]:
        """The cases in the portions they are written in; here, every case is one."""
        for entry in plan.entries():
            yield ExportUnit(entry.case_id, (entry,))

    @abstractmethod
    def write(self, unit: ExportUnit, cases: Iterator[ExportCase], folder: Path) -> None:
        """Write the unit's files below ``folder`` under the names they shall have below the export; in a worker process."""

    def finish(self, plan: ExportPlan, records: Callable[[], Iterator[Record]], folder: Path) -> None:  # noqa: B027
        """Write the files that tell about all cases (an index, metadata) below ``folder``; in the driver, at the end.

        records: gives the lines of ``export.jsonl``, by case id, as often as it is called.
        """


class CaseExporter(Exporter):
    """A format that writes one case after the other."""

    def write(self, unit: ExportUnit, cases: Iterator[ExportCase], folder: Path) -> None:  # noqa: ARG002 - the name is not needed
        for case in cases:
            self.write_case(case, folder)

    @abstractmethod
    def write_case(self, case: ExportCase, folder: Path) -> None:
        """Write the files of one case below ``folder``."""


def file_names(record: Record) -> Sequence[str]:
    """The names of the files of a line of ``export.jsonl``, below the export."""
    return [str(file["name"]) for file in record["files"]]
