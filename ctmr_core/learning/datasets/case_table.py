"""What the catalog knows that is needed to draw patches, as flat tensors: no label map is read.

Loader workers share one copy: PyTorch sends tensors to other processes as shared memory. A million torsos take about
100 bytes each, and 60 bytes for every label of them that belongs to a class.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import torch

from ctmr_core.anatomy.vocabulary import DTYPES
from ctmr_core.errors import LearningError
from ctmr_core.learning.datasets.classes import AllLabels, Classes
from ctmr_core.store.dataset import Dataset

_COLUMNS = [
    "case_id",
    "sequences",
    "size",
    "affine",
    "vocabulary",
    "volume",
    "label_ids",
    "label_voxels",
    "label_boxes",
    "label_samples",
]
_BATCH = 2_048  # rows: their samples take about 50 MB
_VOCABULARIES = tuple(DTYPES)


@dataclass(frozen=True)
class CaseTable:
    """Cases by id, and their labels ("entries") by class.

    texts: uint8 [cases, bytes], "<case id>\\n<volume path>", zeros behind it. sizes: int32 [cases, 3]. affines: float64
    [cases, 16]. vocabularies: uint8 [cases]. bodies: int32 [cases, 6], the box around all labels, the whole volume where there
    are none.
    entry_class: uint16 [entries], ascending. entry_case: int32 [entries]. entry_voxels: int64 [entries].
    samples: int16 [all samples, 3] voxel indices; sample_ends: int64 [entries], where the samples of each entry end.
    """

    texts: torch.Tensor
    sizes: torch.Tensor
    affines: torch.Tensor
    vocabularies: torch.Tensor
    bodies: torch.Tensor
    entry_class: torch.Tensor
    entry_case: torch.Tensor
    entry_voxels: torch.Tensor
    samples: torch.Tensor
    sample_ends: torch.Tensor

    def __len__(self) -> int:
        return len(self.sizes)

    def name(self, case: int) -> tuple[str, str]:
        """Case id and volume path."""
        case_id, path = self.texts[case].numpy().tobytes().rstrip(b"\0").decode().split("\n")
        return case_id, path

    def vocabulary(self, case: int) -> str:
        return _VOCABULARIES[int(self.vocabularies[case])]

    def size(self, case: int) -> tuple[int, int, int]:
        x, y, z = self.sizes[case].tolist()
        return (x, y, z)

    def affine(self, case: int) -> np.ndarray:
        """4x4 float64, voxel index -> RAS+ mm."""
        return self.affines[case].numpy().reshape(4, 4)

    def class_voxels(self) -> dict[int, int]:
        """Training id -> voxels in all cases, for the weights of a loss."""
        ids, place = np.unique(self.entry_class.numpy(), return_inverse=True)
        sums = np.zeros(len(ids), np.int64)
        np.add.at(sums, place, self.entry_voxels.numpy())
        return {int(number): int(total) for number, total in zip(ids, sums, strict=True)}

    def entries_of(self, number: int) -> tuple[int, int]:
        """First and last + 1 of the entries of a class."""
        classes = self.entry_class.numpy()
        return int(np.searchsorted(classes, number, "left")), int(np.searchsorted(classes, number, "right"))

    def samples_of(self, entry: int) -> np.ndarray:
        """int16 [samples, 3]: voxels of one label of one case."""
        start = int(self.sample_ends[entry - 1]) if entry else 0
        return self.samples[start : int(self.sample_ends[entry])].numpy()


def read_case_table(
    dataset: Dataset,
    sequences: Sequence[str],
    classes: Classes | AllLabels,
    *,
    splits: Sequence[str] | None = None,
    filter: pads.Expression | None = None,  # noqa: A002
    min_voxels: int = 1,
) -> CaseTable:
    """The accepted cases that have all ``sequences``; of the labels those in a class with ``min_voxels`` voxels or more.

    Raises ``LearningError`` when no case is left, and when labels are taken as stored while the cases have two vocabularies.
    """
    if splits is not None:
        wanted = pads.field("split").isin(list(splits))
        filter = wanted if filter is None else filter & wanted  # noqa: A001
    parts = [
        part
        for batch in dataset.catalog.scanner(columns=_COLUMNS, filter=filter, batch_size=_BATCH).to_batches()
        for part in _parts(batch, sequences, classes, min_voxels)
    ]
    if not parts:
        raise LearningError(
            "no case fits",
            where=dataset.uri,
            found=f"{len(dataset)} accepted cases",
            allowed=f"with sequences {'+'.join(sequences)}" + (f", split {' or '.join(splits)}" if splits is not None else ""),
            fix="see `Dataset.to_pandas(columns=['sequence_set', 'split'])`",
        )
    table = _joined(parts)
    if isinstance(classes, AllLabels) and len(table.vocabularies.unique()) > 1:
        raise LearningError(
            "the cases have two vocabularies, whose label ids mean different things",
            where=dataset.uri,
            found=[_VOCABULARIES[code] for code in table.vocabularies.unique().tolist()],
            fix="name the labels to train on (labels=...), or filter on vocabulary",
        )
    return table


_Part = dict[str, np.ndarray]


def _parts(batch: pa.RecordBatch, sequences: Sequence[str], classes: Classes | AllLabels, min_voxels: int) -> Iterator[_Part]:
    """The rows of a batch that have the sequences, as arrays; entries name rows of their own part."""
    table = pa.Table.from_batches([batch])
    fits = [set(sequences) <= set(has) for has in table["sequences"].to_pylist()]
    table = table.filter(pa.array(fits, pa.bool_())).combine_chunks()
    if not table.num_rows:
        return
    unknown = pc.filter(table["vocabulary"], pc.invert(pc.is_in(table["vocabulary"], value_set=pa.array(_VOCABULARIES))))
    if len(unknown):
        raise LearningError("a vocabulary is not known to this version", found=unknown[0].as_py(), allowed=_VOCABULARIES)
    codes = np.asarray(pc.index_in(table["vocabulary"], value_set=pa.array(_VOCABULARIES))).astype(np.uint8)
    lengths = np.asarray(pc.list_value_length(table["label_ids"])).astype(np.int64)
    rows = np.repeat(np.arange(table.num_rows, dtype=np.int32), lengths)
    ids = np.asarray(pc.list_flatten(table["label_ids"])).astype(np.int64)
    voxels = np.asarray(pc.list_flatten(table["label_voxels"])).astype(np.int64)
    sizes = _flat(table["size"]).reshape(-1, 3).astype(np.int32)
    numbers = _class_numbers(codes[rows], ids, classes)
    yield {
        "texts": np.array(
            [f"{a}\n{b}" for a, b in zip(*(table[name].to_pylist() for name in ("case_id", "volume")), strict=True)], "S"
        ),
        "sizes": sizes,
        "affines": _flat(table["affine"]).reshape(-1, 16).astype(np.float64),
        "vocabularies": codes,
        "bodies": _bodies(sizes, rows, _flat(pc.list_flatten(table["label_boxes"])).reshape(-1, 6)),
        **_entries(table, numbers, rows, voxels, (numbers > 0) & (voxels >= min_voxels)),
    }


def _entries(table: pa.Table, numbers: np.ndarray, rows: np.ndarray, voxels: np.ndarray, kept: np.ndarray) -> _Part:
    of_labels = pc.list_flatten(table["label_samples"])
    counts = np.asarray(pc.list_value_length(of_labels)).astype(np.int64)
    samples = _flat(pc.list_flatten(of_labels)).reshape(-1, 3).astype(np.int16)
    kept &= counts > 0
    return {
        "entry_class": numbers[kept],
        "entry_case": rows[kept],
        "entry_voxels": voxels[kept],
        "sample_counts": counts[kept],
        "samples": samples[np.repeat(kept, counts)],
    }


def _class_numbers(codes: np.ndarray, ids: np.ndarray, classes: Classes | AllLabels) -> np.ndarray:
    """uint16 training id of every label entry."""
    numbers = ids.astype(np.uint16)
    for code, vocabulary in enumerate(_VOCABULARIES):
        table = classes.table(vocabulary)
        if table is not None:
            here = codes == code
            numbers[here] = table[ids[here]]
    return numbers


def _bodies(sizes: np.ndarray, rows: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    bodies = np.concatenate([sizes, np.zeros_like(sizes)], axis=1)
    np.minimum.at(bodies[:, :3], rows, boxes[:, :3])
    np.maximum.at(bodies[:, 3:], rows, boxes[:, 3:])
    empty = np.bincount(rows, minlength=len(sizes)) == 0
    bodies[empty, :3], bodies[empty, 3:] = 0, sizes[empty]
    return bodies


def _flat(values: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """The numbers of a column of lists of fixed length."""
    return np.asarray(pc.list_flatten(values))


def _joined(parts: list[_Part]) -> CaseTable:
    """The parts one behind the other, cases by id, entries by class and case."""
    starts = np.cumsum([0, *(len(part["sizes"]) for part in parts)])
    for start, part in zip(starts, parts, strict=False):
        part["entry_case"] = part["entry_case"] + np.int32(start)
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = np.argsort(whole["texts"], kind="stable")
    position = np.empty(len(order), np.int32)
    position[order] = np.arange(len(order), dtype=np.int32)
    entry_case = position[whole["entry_case"]]
    by_class = np.lexsort((np.arange(len(entry_case)), entry_case, whole["entry_class"]))
    counts = whole["sample_counts"]
    ends = np.cumsum(counts)
    moved = counts[by_class]
    picked = np.repeat(ends[by_class] - moved, moved) + (np.arange(moved.sum()) - np.repeat(np.cumsum(moved) - moved, moved))
    texts = whole["texts"][order]
    arrays = {
        "texts": texts.view(np.uint8).reshape(len(texts), -1),
        **{name: whole[name][order] for name in ("sizes", "affines", "vocabularies", "bodies")},
        "entry_class": whole["entry_class"][by_class],
        "entry_case": entry_case[by_class],
        "entry_voxels": whole["entry_voxels"][by_class],
        "samples": whole["samples"][picked],
        "sample_ends": np.cumsum(moved),
    }
    return CaseTable(**{name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()})
