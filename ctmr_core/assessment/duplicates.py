"""Cases of a set that are alike, and cases that are copies of reference volumes or templates.

Three ways to be alike: ``exact``, the same voxels; ``image``, the pictures of 24^3 cells over the box of the labels correlate;
``labels``, the structures agree over the same cells. Cases of one body (``body_identity``) with other seeds or sequences are
relatives, as planned: they are counted apart and never called duplicates unless every voxel is the same.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ctmr_core.assessment import layout
from ctmr_core.assessment.code_files import CodeFile, nearest
from ctmr_core.assessment.streaming import Loaded, Volumes, mapped
from ctmr_core.assessment.thumbnails import agreement, image_code, label_code, thumbnails, unit
from ctmr_core.store import Dataset

#: Correlation from which two pictures are called the same. Pairs of different parametric persons stay below 0.97.
IMAGE_ALARM = 0.99
#: Agreement of structures from which two label maps are called the same, by vocabulary. No two of 12 real brains (SynthSeg's
#: training label maps) reach more than 0.53, and no two parametric torsos of one region more than 0.67 in 42 pairs.
LABEL_ALARMS = {"brain": 0.60, "maisi": 0.85}
_OTHER_ALARM = 0.85  # of vocabularies nobody measured
_CODE_ERROR = 0.2  # how far a label code may be off, five times its standard error
_WORST = 20
SCHEMA = pa.schema([("case_id", pa.string()), ("other", pa.string()), ("kind", pa.string()), ("similarity", pa.float64())])
Thumbnails = tuple[dict[str, np.ndarray], np.ndarray | None]


@dataclass
class Gallery:
    """Thumbnails of one set on disk, by what can be compared: images of a sequence, label maps of a vocabulary."""

    folder: Path
    prefix: str
    names: list[str] = field(default_factory=list)
    files: dict[str, CodeFile] = field(default_factory=dict)

    def add(self, name: str, person: int, made: Thumbnails, vocabulary: str) -> None:
        """One volume. person: equal numbers are relatives."""
        images, labels = made
        owner = len(self.names)
        self.names.append(name)
        for sequence, cells in images.items():
            self._file(f"image/{sequence}").append(owner, person, image_code(cells), cells)
        if labels is not None:
            self._file(f"labels/{vocabulary}").append(owner, person, label_code(labels), labels)

    def close(self) -> None:
        for file in self.files.values():
            file.close()

    def _file(self, group: str) -> CodeFile:
        if group not in self.files:
            self.files[group] = CodeFile(self.folder / f"{self.prefix}-{group.replace('/', '-')}")
        return self.files[group]


class DuplicateSearch:
    """Takes volumes one by one (:meth:`add`), then finds what is alike (:meth:`finished`).

    Same voxels are looked for in the whole catalog, whatever ``names`` are compared.
    Memory: a few numbers per volume and two blocks of codes; the rest is in files in a temporary folder (about 35 kB per
    sequence and label map), removed by :meth:`close`.
    """

    def __init__(self, dataset: Dataset, names: Sequence[str]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="ctmr-duplicates-")
        self._own = Gallery(Path(self._folder.name), "set")
        self._reference = Gallery(Path(self._folder.name), "reference")
        rows = dataset.catalog.to_table(columns=["case_id", "body_identity", "voxel_digest"]).sort_by("case_id")
        self._exact = _exact_pairs(rows)
        rows = rows.filter(pc.is_in(rows["case_id"], value_set=pa.array(list(names), pa.string())))
        coded = rows["body_identity"].combine_chunks().dictionary_encode()
        self._persons = dict(zip(rows["case_id"].to_pylist(), np.asarray(coded.indices).tolist(), strict=True))

    def add(self, name: str, made: Thumbnails, vocabulary: str) -> None:
        """Thumbnails of one case of the set."""
        self._own.add(name, self._persons[name], made, vocabulary)

    def add_reference(self, name: str, made: Thumbnails, vocabulary: str) -> None:
        """Thumbnails of one reference volume."""
        self._reference.add(name, -1, made, vocabulary)

    def close(self) -> None:
        """Remove the files."""
        for gallery in (self._own, self._reference):
            gallery.close()
        self._folder.cleanup()

    def finished(self) -> tuple[pa.Table, dict[str, Any]]:
        """The pairs (columns of :data:`SCHEMA`, most alike first) and the summary (see ``set_measures``, without table)."""
        for gallery in (self._own, self._reference):
            gallery.close()
        pairs: dict[tuple[str, str, str], float] = {(*pair, "exact"): 1.0 for pair in self._exact}
        closest: dict[str, list[float]] = {}
        for group in sorted(self._own.files):
            kind = group.partition("/")[0]
            for gallery, prefix in ((self._own, ""), (self._reference, "reference-")):
                if group in gallery.files:
                    found, best = self._alike(group, kind, gallery)
                    closest.setdefault(f"{prefix}{kind}", []).extend(best)
                    for (case_id, other), similarity in found.items():
                        pair = (case_id, other, f"{prefix}{kind}")
                        pairs[pair] = max(similarity, pairs.get(pair, 0.0))
        return _table(pairs), self._summary(pairs, closest)

    def _alike(self, group: str, kind: str, gallery: Gallery) -> tuple[dict[tuple[str, str], float], list[float]]:
        """Pairs above the alarm, the later case first; and of every row how alike its nearest is (NaN-free)."""
        rows, others = self._own.files[group], gallery.files[group]
        alarm = IMAGE_ALARM if kind == "image" else LABEL_ALARMS.get(group.partition("/")[2], _OTHER_ALARM)
        bound = alarm - (_CODE_ERROR if kind == "labels" else 0.001)
        places, products = nearest(rows, others, counted=kind == "labels")
        own, theirs = rows.owners, others.owners
        found: dict[tuple[str, str], float] = {}
        best = []
        for row in np.flatnonzero(places[:, 0] >= 0).tolist():
            cells = rows.cells(row)
            ready = cells if kind == "labels" else unit(cells)
            top = 0.0
            for rank, place in enumerate(places[row]):
                if place < 0 or (rank and products[row, rank] < bound):
                    break
                other = others.cells(place)
                similarity = agreement(ready, other) if kind == "labels" else float(ready @ unit(other))
                top = max(top, similarity)
                if similarity >= alarm:
                    a, b = self._own.names[own[row]], gallery.names[theirs[place]]
                    pair = (max(a, b), min(a, b)) if gallery is self._own else (a, b)
                    found[pair] = max(similarity, found.get(pair, 0.0))
            best.append(top)
        return found, best

    def _summary(self, pairs: dict[tuple[str, str, str], float], closest: dict[str, list[float]]) -> dict[str, Any]:
        kinds = ["exact", "image", "labels"] + (["reference-image", "reference-labels"] if self._reference.names else [])
        family = np.bincount([self._persons[name] for name in self._own.names]) if self._own.names else np.zeros(0, int)
        worst = sorted(pairs.items(), key=lambda item: (-item[1], item[0]))[:_WORST]
        return {
            "cases": len(self._own.names),
            "reference": len(self._reference.names),
            "alarms": {"image": IMAGE_ALARM, "labels": LABEL_ALARMS},
            "counts": {kind: sum(pair[2] == kind for pair in pairs) for kind in kinds},
            "relatives": {"pairs": int((family * (family - 1) // 2).sum()), "cases": int(family[family > 1].sum())},
            "nearest": {kind: _spread(values) for kind, values in closest.items() if values},
            "worst": [{"case_id": a, "other": b, "kind": kind, "similarity": value} for (a, b, kind), value in worst],
        }


def find_duplicates(
    dataset: Dataset, volumes: Volumes, reference: Volumes | None = None, *, workers: int = 2
) -> tuple[pa.Table, dict[str, Any]]:
    """Pairs and summary (see :class:`DuplicateSearch`) of ``volumes`` of the dataset among each other and with a reference."""
    search = DuplicateSearch(dataset, volumes.names)
    try:
        for volume, add in ((volumes, search.add), (reference, search.add_reference)):
            if volume is not None:
                for made in mapped(partial(_small_of, volume), volume.names, workers):
                    add(*made)
        return search.finished()
    finally:
        search.close()


def _small_of(volumes: Volumes, name: str) -> tuple[str, Thumbnails, str]:
    return small(volumes.load(name))


def small(volume: Loaded) -> tuple[str, Thumbnails, str]:
    """(name, thumbnails, vocabulary) of one volume."""
    return volume.name, thumbnails(volume), volume.vocabulary.name if volume.vocabulary else ""


def keep(dataset: Dataset, table: pa.Table) -> str:
    """Write the pairs into the dataset as ``quality/duplicates-<digest>.parquet``; the name."""
    return layout.write_table(dataset.storage, "duplicates", table)


def _exact_pairs(rows: pa.Table) -> list[tuple[str, str]]:
    """(case id, the first case id with the same voxels) of all that come again; rows sorted by case id."""
    digests = rows["voxel_digest"].combine_chunks().dictionary_encode()
    codes = np.asarray(digests.indices.fill_null(-1))
    known, first, counts = np.unique(codes, return_index=True, return_counts=True)
    again = {int(code): int(place) for code, place, count in zip(known, first, counts, strict=True) if count > 1 and code >= 0}
    ids = rows["case_id"]
    return [
        (ids[int(row)].as_py(), ids[again[int(codes[row])]].as_py())
        for row in np.flatnonzero(np.isin(codes, list(again)))
        if again[int(codes[row])] != row
    ]


def _table(pairs: dict[tuple[str, str, str], float]) -> pa.Table:
    ordered = sorted(pairs.items(), key=lambda item: (-item[1], item[0]))
    columns = [[pair[i] for pair, _ in ordered] for i in range(3)]
    return pa.table([*columns, [value for _, value in ordered]], schema=SCHEMA)


def _spread(values: list[float]) -> dict[str, float]:
    p50, p95 = np.percentile(values, (50, 95))
    return {"p50": float(p50), "p95": float(p95), "max": float(max(values))}
