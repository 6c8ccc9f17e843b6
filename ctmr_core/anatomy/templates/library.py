"""A library of templates: a folder of label maps and a Parquet index that answers every question about them.

``<library>/index.parquet``            one row per template
``<library>/templates/<id>.nii.gz``    the label map, true ids, RAS+

The index is written to a temporary file, synced and renamed, under a lock, after the label map: a reader sees the
old library or the new one. A label map without an index row is not part of the library.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import SpatialImage
from pydantic import BaseModel, ConfigDict

from ctmr_core.anatomy.label_census import LabelCensus, take_census
from ctmr_core.anatomy.label_map import LabelIntensity, LabelMap
from ctmr_core.anatomy.regions import regions_present
from ctmr_core.anatomy.vocabulary import load_vocabulary
from ctmr_core.errors import AnatomyError

TEMPLATE_ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,79}$"  # a file name on every system: no dots, no separators
#: lesions a template is free of with ``tumor_free``: MAISI's tumour labels (``find_masks``) and the brain tumour parts.
TUMOR_LABELS = {"maisi": frozenset({23, 24, 26, 27, 128}), "brain": frozenset({401, 402, 403})}

INDEX = "index.parquet"
FOLDER = "templates"
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("digest", pa.string()),
        ("vocabulary", pa.string()),
        ("size", pa.list_(pa.int32())),
        ("spacing", pa.list_(pa.float64())),
        ("affine", pa.list_(pa.float64())),
        ("labels", pa.list_(pa.int32())),
        ("volumes_ml", pa.list_(pa.float64())),
        ("regions", pa.list_(pa.string())),
        ("lesions", pa.list_(pa.int32())),
        ("has_tumor", pa.bool_()),
        ("source", pa.string()),
        ("licence", pa.string()),
        ("imported_with", pa.string()),
        ("intensities", pa.string()),
        ("notes", pa.list_(pa.string())),
    ]
)

Size = tuple[int, int, int]
Spacing = tuple[float, float, float]


class TemplateRow(BaseModel):
    """What the library knows of one template without opening it.

    digest: ``LabelMap.digest()`` of the stored map. size, spacing: voxels and mm along [x, y, z], RAS+.
    affine: 4x4, row by row, voxel index -> RAS+ mm. labels: ids in the map. volumes_ml: label id -> mL in the field of view.
    lesions: ids of lesion labels in the map; has_tumor: whether any of them is a tumour.
    intensities: sequence -> label id -> median and spread in the template's own image.
    imported_with: name of the mapping. notes: what the import found remarkable.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    digest: str
    vocabulary: str
    size: Size
    spacing: Spacing
    affine: tuple[float, ...]
    labels: tuple[int, ...]
    volumes_ml: dict[int, float]
    regions: tuple[str, ...]
    lesions: tuple[int, ...] = ()
    has_tumor: bool = False
    source: str = ""
    licence: str = ""
    imported_with: str = ""
    intensities: dict[str, dict[int, LabelIntensity]] = {}
    notes: tuple[str, ...] = ()


class TemplateLibrary:
    """Templates on disk. Open one with ``TemplateLibrary.open``; the index is read once, rows are made when asked for.

    index: table of ``SCHEMA``, ordered by id.
    """

    def __init__(self, path: Path, index: pa.Table) -> None:
        self.path = path
        self._use(index)

    def _use(self, index: pa.Table) -> None:
        self._index = index
        self._made: dict[int, TemplateRow] = {}
        self._places = {template_id: place for place, template_id in enumerate(index["id"].to_pylist())}

    @classmethod
    def open(cls, path: str | Path, create: bool = False) -> TemplateLibrary:
        """The library in the folder ``path``; with ``create`` an empty one is made where there is none."""
        path = Path(path)
        if not (path / INDEX).is_file():
            if not create:
                raise AnatomyError(
                    "there is no template library here", where=str(path), fix="import a label map first (`ctmr templates import`)"
                )
            (path / FOLDER).mkdir(parents=True, exist_ok=True)
            with _locked(path):
                if not (path / INDEX).is_file():
                    _write_index(path, rows_to_index([]))
        return cls(path, _read_index(path))

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, template_id: str) -> bool:
        return template_id in self._places

    def ids(self) -> tuple[str, ...]:
        """Every id, in order."""
        return tuple(self._places)

    def rows(self) -> tuple[TemplateRow, ...]:
        """Every row, ordered by id."""
        for place, record in enumerate(self._index.to_pylist()):
            if place not in self._made:
                self._made[place] = _row(record)
        return tuple(self._made[place] for place in range(len(self)))

    def row(self, template_id: str) -> TemplateRow:
        """The row of one template; ``AnatomyError`` that lists near ids if there is none."""
        import difflib

        if template_id in self._places:
            return self._row_at(self._places[template_id])
        near = difflib.get_close_matches(template_id, self._places, n=8, cutoff=0.3) or self.ids()[:8]
        raise AnatomyError(
            "the library has no such template",
            where=str(self.path),
            found=template_id,
            allowed=near,
            fix="see `ctmr templates list`",
        )

    def get(self, template_id: str) -> LabelMap:
        """The label map of a template; ``AnatomyError`` if its file is missing, damaged or not what was imported."""
        row = self.row(template_id)
        file = self._file(template_id)
        fix = "import the template again"
        try:
            image = nib.load(file)
            if not isinstance(image, SpatialImage):
                raise ImageFileError(f"{type(image).__name__} holds no volume")
            voxels = np.ascontiguousarray(image.dataobj)
        except (ImageFileError, OSError, EOFError, ValueError, zlib.error) as error:
            raise AnatomyError(f"cannot read the template: {error}", where=str(file), fix=fix) from error
        affine = np.array(row.affine, np.float64).reshape(4, 4)
        vocabulary = load_vocabulary(row.vocabulary)
        changed = AnatomyError("the file of the template was changed after it was imported", where=str(file), fix=fix)
        if voxels.dtype != vocabulary.dtype or voxels.ndim != 3 or not np.allclose(image.affine, affine, rtol=1e-5, atol=1e-3):
            raise changed
        label_map = LabelMap(voxels, affine, vocabulary, intensities=row.intensities)
        if label_map.digest() != row.digest:
            raise changed
        return label_map

    def add(
        self,
        template_id: str,
        label_map: LabelMap,
        *,
        source: str = "",
        licence: str = "",
        imported_with: str = "",
        notes: Sequence[str] = (),
        replace: bool = False,
        census: LabelCensus | None = None,
    ) -> TemplateRow:
        """Store ``label_map`` (labels only, no tissues) under ``template_id`` and return its row.

        An id in use is refused unless ``replace``. census: that of ``label_map``, if it was taken already.
        """
        check_template_id(template_id)
        bare = LabelMap(label_map.voxels, label_map.affine, label_map.vocabulary, intensities=label_map.intensities)
        row = _describe(template_id, bare, census or take_census(bare), source, licence, imported_with, notes)
        with _locked(self.path):
            self._use(_read_index(self.path))
            if template_id in self and not replace:
                raise AnatomyError(
                    "the library has a template of this id",
                    where=str(self.path),
                    found=template_id,
                    fix="choose another --id, or --replace it",
                )
            _write_label_map(self._file(template_id), bare)
            self._write(pa.concat_tables([self._without(template_id), rows_to_index([row])]).sort_by("id"))
        return row

    def remove(self, template_id: str) -> None:
        """Take a template out of the index, then delete its file."""
        with _locked(self.path):
            self._use(_read_index(self.path))
            self.row(template_id)
            self._write(self._without(template_id))
            self._file(template_id).unlink(missing_ok=True)

    def find(
        self,
        regions: Iterable[str] = (),
        labels: Iterable[int] = (),
        tumor_free: bool = False,
        size: Size | None = None,
        spacing: Spacing | None = None,
        limit: int | None = None,
        vocabulary: str | None = None,
    ) -> list[TemplateRow]:
        """Templates that show every one of ``regions`` and ``labels`` (ids), nearest to ``size`` and ``spacing`` first.

        tumor_free: leave out templates with a tumour that is not among ``labels``.
        size, spacing: the grid asked for (voxels, mm; each optional). Nearness is MAISI's (``find_closest_masks``): the
        sum over the axes of \\|dim spacing - size spacing\\| / 10 + \\|dim - size\\| / 100 + \\|spacing - spacing asked\\|;
        templates with any axis of ``size - 128`` voxels or fewer are left out. Ties and no grid: by id.
        """
        fits = np.ones(len(self), bool)
        if vocabulary is not None:
            fits &= self._column("vocabulary") == vocabulary
        for region in regions:
            fits &= self._listed("regions", region)
        wanted = frozenset(labels)
        for label in wanted:
            fits &= self._listed("labels", label)
        if tumor_free:
            for name, tumors in TUMOR_LABELS.items():
                sick = np.logical_or.reduce([self._listed("lesions", label) for label in sorted(tumors - wanted)])
                fits &= ~(sick & (self._column("vocabulary") == name))
        score = self._distances(size, spacing)
        fits &= np.isfinite(score)
        places = np.flatnonzero(fits)
        nearest = places[np.argsort(score[places], kind="stable")]
        return [self._row_at(int(place)) for place in nearest[:limit]]

    def _row_at(self, place: int) -> TemplateRow:
        if place not in self._made:
            self._made[place] = _row(self._index.slice(place, 1).to_pylist()[0])
        return self._made[place]

    def _column(self, name: str) -> np.ndarray:
        return self._index[name].to_numpy(zero_copy_only=False)

    def _listed(self, name: str, value: str | int) -> np.ndarray:
        """Which rows have ``value`` in their list column ``name``: bool [rows]."""
        column = self._index[name].combine_chunks()
        parents = pc.list_parent_indices(column).to_numpy()
        here = pc.equal(pc.list_flatten(column), value).to_numpy(zero_copy_only=False).astype(bool)
        listed = np.zeros(len(self), bool)
        listed[parents[here]] = True
        return listed

    def _triples(self, name: str) -> np.ndarray:
        return pc.list_flatten(self._index[name].combine_chunks()).to_numpy().reshape(-1, 3)

    def _distances(self, size: Size | None, spacing: Spacing | None) -> np.ndarray:
        """How far each template's grid is from the one asked for; infinite when it is far too small. float64 [rows]."""
        dims, mm = self._triples("size"), self._triples("spacing")
        score = np.zeros(len(self))
        if size is not None:
            asked_mm = mm if spacing is None else np.asarray(spacing)
            score += (np.abs(dims * mm - np.multiply(size, asked_mm)) / 10 + np.abs(dims - size) / 100).sum(axis=1)
            score[(dims <= np.subtract(size, 128)).any(axis=1)] = np.inf
        if spacing is not None:
            score += np.abs(mm - spacing).sum(axis=1)
        return score

    def _without(self, template_id: str) -> pa.Table:
        return self._index.filter(pc.not_equal(self._index["id"], template_id))

    def _write(self, index: pa.Table) -> None:
        _write_index(self.path, index)
        self._use(index)

    def _file(self, template_id: str) -> Path:
        check_template_id(template_id)
        return self.path / FOLDER / f"{template_id}.nii.gz"


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with (path / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _write_index(path: Path, index: pa.Table) -> None:
    with _replacing(path / INDEX) as temporary:
        pq.write_table(index.combine_chunks(), temporary, compression="zstd")


def rows_to_index(rows: Iterable[TemplateRow]) -> pa.Table:
    """The rows as a table of ``SCHEMA``, ordered by id."""
    records = [_record(row) for row in sorted(rows, key=lambda row: row.id)]
    return pa.Table.from_pylist(records, schema=SCHEMA)


def check_template_id(template_id: str) -> str:
    """``template_id`` if it is a usable id, ``AnatomyError`` otherwise."""
    if not re.match(TEMPLATE_ID_PATTERN, template_id) or template_id.endswith("\n"):
        raise AnatomyError(
            "not a template id", found=template_id, allowed="1-80 letters, digits, - and _, starting with a letter or digit"
        )
    return template_id


def _describe(
    template_id: str,
    label_map: LabelMap,
    census: LabelCensus,
    source: str,
    licence: str,
    imported_with: str,
    notes: Sequence[str],
) -> TemplateRow:
    vocabulary = label_map.vocabulary
    lesions = tuple(label for label in census.labels if label in vocabulary and vocabulary.label(label).group == "lesion")
    return TemplateRow(
        id=template_id,
        digest=label_map.digest(),
        vocabulary=vocabulary.name,
        size=label_map.size,
        spacing=label_map.spacing,
        affine=tuple(float(value) for value in label_map.affine.ravel()),
        labels=census.labels,
        volumes_ml={label: entry.volume_ml for label, entry in census.entries.items()},
        regions=regions_present(vocabulary, census.labels),
        lesions=lesions,
        has_tumor=not TUMOR_LABELS.get(vocabulary.name, frozenset()).isdisjoint(lesions),
        source=source,
        licence=licence,
        imported_with=imported_with,
        intensities={sequence: dict(values) for sequence, values in label_map.intensities.items()},
        notes=tuple(notes),
    )


def _record(row: TemplateRow) -> dict[str, Any]:
    record = dict(row)
    record["volumes_ml"] = [row.volumes_ml[label] for label in row.labels]
    plain = {
        sequence: {str(label): [value.median, value.spread] for label, value in values.items()}
        for sequence, values in row.intensities.items()
    }
    record["intensities"] = json.dumps(plain, sort_keys=True)
    return record


def _row(record: Mapping[str, Any]) -> TemplateRow:
    fields: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in record.items()}
    fields["volumes_ml"] = dict(zip(record["labels"], record["volumes_ml"], strict=True))
    fields["intensities"] = {
        sequence: {int(label): LabelIntensity(*value) for label, value in values.items()}
        for sequence, values in json.loads(record["intensities"]).items()
    }
    return TemplateRow.model_construct(None, **fields)


def _read_index(path: Path) -> pa.Table:
    file = path / INDEX
    try:
        # One read: read_table opens a path more than once, and the file may be replaced in between.
        table = pq.read_table(pa.BufferReader(file.read_bytes()))
    except (pa.ArrowException, OSError) as error:
        raise AnatomyError(
            f"cannot read the index of the library: {error}", where=str(file), fix="import the templates again"
        ) from error
    if not table.schema.equals(SCHEMA):
        raise AnatomyError(
            "this is not an index of templates, or one of another version", where=str(file), fix="import the templates again"
        )
    return table


def _write_label_map(file: Path, label_map: LabelMap) -> None:
    image = nib.Nifti1Image(label_map.voxels, label_map.affine)
    image.set_qform(label_map.affine, code=1)
    image.set_sform(label_map.affine, code=1)
    image.header.set_xyzt_units("mm")
    file.parent.mkdir(parents=True, exist_ok=True)
    with _replacing(file) as temporary:
        nib.save(image, temporary)  # nibabel writes gzip level 1 without a time stamp


@contextlib.contextmanager
def _replacing(file: Path) -> Iterator[Path]:
    """A temporary path beside ``file`` that is synced and renamed onto it when the block ends well."""
    temporary = file.with_name(f".{os.getpid()}.{file.name}")
    try:
        yield temporary
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        temporary.replace(file)
        folder = os.open(file.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    finally:
        temporary.unlink(missing_ok=True)
