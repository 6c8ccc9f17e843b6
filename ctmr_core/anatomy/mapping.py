"""Mappings: from the ids of somebody else's label map to the ids of a house vocabulary.

A mapping is a table ``source,name,target``: source id (or a range ``1000-1035``), the name the source gives it, and
the name or id of a label of the vocabulary. ``background`` (0) drops a structure. A target ``left hip|right hip`` is
for sources that do not tell the sides apart; such voxels are divided at the midline of the body. A target ``vertebrae``
is for sources with one label for the whole spine; the importer numbers them.

Built in: ``totalsegmentator_v2`` and ``totalsegmentator_mr`` (class lists of TotalSegmentator's ``total`` and
``total_mr`` tasks), ``freesurfer`` (FreeSurferColorLUT: aseg, aparc, a2009s and wmparc parcels; head tissues as SimNIBS
and SynthSeg number them), ``spl_abdominal_atlas`` (SPL/Open Anatomy abdominal atlas), and the identities ``maisi`` and ``brain``.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import numpy as np
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from ctmr_core.anatomy.vocabulary import BACKGROUND, DTYPES, Vocabulary, load_vocabulary
from ctmr_core.errors import AnatomyError

#: built-in table -> vocabulary it maps to.
BUILT_IN = {
    "totalsegmentator_v2": "maisi",
    "totalsegmentator_mr": "maisi",
    "spl_abdominal_atlas": "maisi",
    "freesurfer": "brain",
}
VERTEBRAE = "vertebrae"
UNNUMBERED_VERTEBRA = "vertebrae L1"  # stands for all of them until the importer has numbered them
LARGEST_ID = 2**24  # a look-up table of 16 million entries is still cheap; label ids above it are not label ids


@dataclass(frozen=True)
class LabelMapping:
    """Source id -> label of ``vocabulary``.

    table: source id -> target id (0 drops the structure). names: source id -> the source's own name.
    sides: source id -> (left target id, right target id), for sources that do not tell the sides apart.
    unnumbered: source ids that hold several vertebrae in one; their target is ``vertebrae L1`` for all of them.
    """

    name: str
    vocabulary: Vocabulary
    table: Mapping[int, int]
    names: Mapping[int, str] = field(default_factory=dict)
    sides: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    unnumbered: frozenset[int] = frozenset()

    def __contains__(self, source: int) -> bool:
        return source == BACKGROUND or source in self.table or source in self.sides

    def describe(self, source: int) -> str:
        """The source id with its name, for messages."""
        return f"{source} ({self.names[source]})" if source in self.names else str(source)


def mapping_names() -> tuple[str, ...]:
    """Names ``load_mapping`` knows without a file."""
    return (*sorted(BUILT_IN), *sorted(DTYPES))


def load_mapping(name_or_path: str | Path) -> LabelMapping:
    """A built-in mapping by name, or a custom one from a ``.csv``, ``.yaml`` or ``.yml`` file.

    CSV: a header ``id,label`` (or ``source,name,target``), one row per source id, targets in the ``maisi`` vocabulary.
    YAML: ``vocabulary: maisi`` (or ``brain``) and ``labels: {5: liver, 7: aorta, 9: body, 12: background}``; with
    ``color_table: atlas.ctbl`` the keys of ``labels`` may be names of the colour table.
    """
    name = str(name_or_path)
    if name in DTYPES:
        vocabulary = load_vocabulary(name)
        identity = {label.id: label.id for label in vocabulary}
        return LabelMapping(name, vocabulary, identity, {label.id: label.name for label in vocabulary})
    if name in BUILT_IN:
        source = resources.files("ctmr_core.anatomy.data").joinpath(f"{name}.csv")
        return _from_csv(source, name, load_vocabulary(BUILT_IN[name]))
    path = Path(name)
    readers = {".csv": lambda: _from_csv(path, path.stem, load_vocabulary("maisi")), ".yaml": lambda: _from_yaml(path)}
    readers[".yml"] = readers[".yaml"]
    reader = readers.get(path.suffix.lower())
    if reader is None or not path.is_file():
        problem = "there is no such mapping file" if reader else "unknown mapping"
        raise AnatomyError(problem, found=name, allowed=[*mapping_names(), "a .csv, .yaml or .yml file"])
    return reader()


def mapping_from_color_table(path: str | Path, rules: Mapping[str, str | int], vocabulary: Vocabulary) -> LabelMapping:
    """A mapping for the ids of a 3D Slicer colour table (``.ctbl``: id, name, red, green, blue, alpha).

    rules: name in the colour table -> target label. Names equal to a label of the vocabulary (case and underscores
    aside) need no rule; entries that are neither stay unmapped.
    """
    path = Path(path)
    entries = _read_color_table(path)
    unused = set(rules) - set(entries.values())
    if unused:
        raise AnatomyError(
            "the colour table has no such name", where=str(path), found=sorted(unused)[0], allowed=entries.values()
        )
    rows: list[tuple[str, str, str]] = []
    for source, name in entries.items():
        target = rules.get(name, name if _plain(name) in _plain_names(vocabulary) else None)
        if target is not None:
            rows.append((str(source), name, str(target)))
    return _from_rows(rows, path.stem, vocabulary, str(path))


def count_ids(voxels: np.ndarray) -> dict[int, int]:
    """Voxels per id of a non-negative integer array; one pass, one plane at a time."""
    top = int(voxels.max(initial=0))
    if top > LARGEST_ID:
        ids, counts = np.unique(voxels, return_counts=True)
        return {int(i): int(n) for i, n in zip(ids, counts, strict=True)}
    totals = np.zeros(top + 1, np.int64)
    for plane in np.moveaxis(voxels, int(np.argmax(voxels.strides)), 0):
        totals += np.bincount(plane.ravel(order="K"), minlength=top + 1)
    return {int(i): int(totals[i]) for i in np.flatnonzero(totals)}


def apply_mapping(
    voxels: np.ndarray, mapping: LabelMapping, drop_unknown: bool = False, midline: float | None = None
) -> np.ndarray:
    """The label map in ``mapping.vocabulary``: same shape, the vocabulary's dtype, C-contiguous.

    voxels: [x, y, z] non-negative integers in the source's ids, RAS+ axis order.
    drop_unknown: ids without a mapping become background; otherwise they are refused with their voxel counts.
    midline: x index of the body's mid-sagittal plane; voxels of unsided sources right of it (greater x) get the
        right label. Without it, unsided sources are refused.
    """
    counts = count_ids(voxels)
    unknown = {source: n for source, n in counts.items() if source not in mapping}
    if unknown and not drop_unknown:
        listed = ", ".join(f"{source} ({n} voxels)" for source, n in list(unknown.items())[:20])
        more = f" and {len(unknown) - 20} more" if len(unknown) > 20 else ""
        raise AnatomyError(
            f"{len(unknown)} label ids are not in the mapping {mapping.name!r}: {listed}{more}",
            fix="choose another mapping, map them in a YAML or CSV file (label `background` drops one), "
            "or drop all of them (--drop-unknown)",
        )
    unsided = [source for source in counts if source in mapping.sides]
    if unsided and midline is None:
        raise AnatomyError(
            "these labels do not say which side they are on: " + ", ".join(mapping.describe(source) for source in unsided),
            fix="divide them at the midline of the body (--split-sides)",
        )
    plane = 0.0 if midline is None else midline
    known = [source for source in counts if source in mapping.table and source <= LARGEST_ID]
    lut = np.zeros(min(max(counts), LARGEST_ID) + 1, mapping.vocabulary.dtype)
    lut[known] = [mapping.table[source] for source in known]
    if max(counts) > LARGEST_ID:
        voxels = np.where(voxels > LARGEST_ID, 0, voxels)
    mapped = np.ascontiguousarray(lut[voxels])
    for source in unsided:
        left, right = mapping.sides[source]
        x, y, z = np.nonzero(voxels == source)
        mapped[x, y, z] = np.where(x > plane, right, left)
    return mapped


def _from_csv(source: Traversable | Path, name: str, vocabulary: Vocabulary) -> LabelMapping:
    where = name if name in BUILT_IN else str(source)
    try:
        text = source.read_text(encoding="utf-8-sig")
        rows = [[cell.strip() for cell in row] for row in csv.reader(text.splitlines()) if row and not row[0].startswith("#")]
    except (UnicodeDecodeError, csv.Error) as error:
        raise AnatomyError(f"not a CSV text file: {error}", where=where) from error
    if not rows:
        raise AnatomyError("the mapping is empty", where=where, allowed="rows of id,label")
    columns = {"id": "source", "label": "target"}
    header = [columns.get(cell.lower(), cell.lower()) for cell in rows[0]]
    if "source" in header and "target" in header:
        rows = rows[1:]
    else:
        header = ["source", "target"]
    table = []
    for line, row in enumerate(rows, start=1):
        if len(row) < len(header):
            raise AnatomyError(
                "a row of the mapping is too short", where=f"{where} row {line}", found=row, allowed=",".join(header)
            )
        cells = dict(zip(header, row, strict=False))
        table.append((cells["source"], cells.get("name", ""), cells["target"]))
    return _from_rows(table, name, vocabulary, where)


def _from_yaml(path: Path) -> LabelMapping:
    try:
        document = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except (YAMLError, UnicodeDecodeError) as error:
        raise AnatomyError(f"not a YAML mapping: {error}", where=str(path)) from error
    if not isinstance(document, dict) or not isinstance(document.get("labels"), dict) or not document["labels"]:
        raise AnatomyError(
            "a mapping file has the fields `vocabulary` and `labels`", where=str(path), allowed="labels: {5: liver, 7: aorta}"
        )
    unknown = set(document) - {"vocabulary", "labels", "color_table"}
    if unknown:
        raise AnatomyError(
            "unknown field", where=str(path), found=str(sorted(unknown, key=str)[0]), allowed="vocabulary, labels, color_table"
        )
    vocabulary = load_vocabulary(str(document.get("vocabulary", "maisi")))
    labels: dict[Any, Any] = document["labels"]
    if "color_table" in document:
        rules = {str(name): target for name, target in labels.items()}
        mapping = mapping_from_color_table(path.parent / str(document["color_table"]), rules, vocabulary)
        return replace(mapping, name=path.stem)
    return _from_rows(((str(source), "", str(target)) for source, target in labels.items()), path.stem, vocabulary, str(path))


def _from_rows(rows: Iterable[tuple[str, str, str]], name: str, vocabulary: Vocabulary, where: str) -> LabelMapping:
    table: dict[int, int] = {}
    names: dict[int, str] = {}
    sides: dict[int, tuple[int, int]] = {}
    unnumbered: set[int] = set()
    for source, source_name, target in rows:
        place = f"{where}, id {source}"
        spine = _plain(target) == VERTEBRAE and vocabulary.name == "maisi"
        parts = (UNNUMBERED_VERTEBRA,) if spine else target.split("|")
        targets = tuple(_target_id(part, vocabulary, place) for part in parts)
        if len(targets) > 2:
            raise AnatomyError("a target is one label, or `left ...|right ...`", where=place, found=target)
        for identifier in _source_ids(source, where):
            if identifier in table or identifier in sides:
                raise AnatomyError("this id is mapped twice", where=place, found=identifier)
            if len(targets) == 2:
                sides[identifier] = (targets[0], targets[1])
            else:
                table[identifier] = targets[0]
            if spine:
                unnumbered.add(identifier)
            if source_name:
                names[identifier] = source_name
    return LabelMapping(name, vocabulary, table, names, sides, frozenset(unnumbered))


def _source_ids(text: str, where: str) -> range:
    first, dash, last = text.partition("-")
    try:
        start, stop = int(first), int(last if dash else first)
    except ValueError:
        raise AnatomyError(
            "a source id is a whole number or a range", where=where, found=text, allowed="5 or 1000-1035"
        ) from None
    if start < 0 or stop < start or stop > LARGEST_ID:
        raise AnatomyError("a source id is out of range", where=where, found=text, allowed=f"0..{LARGEST_ID}")
    return range(start, stop + 1)


def _target_id(text: str, vocabulary: Vocabulary, where: str) -> int:
    text = text.strip()
    if text in ("0", "background"):
        return BACKGROUND
    try:
        if text.isdecimal():
            return vocabulary.label(int(text)).id
        plain = _plain_names(vocabulary)
        return plain[_plain(text)] if _plain(text) in plain else vocabulary.label(text).id
    except AnatomyError as error:
        raise error.located(where) from None


def _plain(name: str) -> str:
    return " ".join(name.lower().replace("_", " ").split())


def _plain_names(vocabulary: Vocabulary) -> dict[str, int]:
    return {_plain(label.name): label.id for label in vocabulary}


def _read_color_table(path: Path) -> dict[int, str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise AnatomyError(f"cannot read the colour table: {error}", where=str(path)) from error
    entries: dict[int, str] = {}
    for number, line in enumerate(lines, start=1):
        cells = line.split()
        if not cells or cells[0].startswith("#"):
            continue
        if len(cells) < 2 or not cells[0].isdecimal():
            raise AnatomyError("a line of the colour table is not `id name r g b a`", where=f"{path} line {number}", found=line)
        if int(cells[0]) != BACKGROUND:
            entries[int(cells[0])] = cells[1]
    return entries
