"""Finished images with label maps become cases of a dataset, so that scans of people and synthetic volumes are in one catalog."""

from __future__ import annotations

import csv
import hashlib
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ctmr_core.anatomy.label_census import take_census
from ctmr_core.anatomy.label_map import LabelMap
from ctmr_core.anatomy.mapping import load_mapping
from ctmr_core.anatomy.sequences import MODALITY_CODES, is_ct
from ctmr_core.anatomy.templates.importing import Envelope, map_scan, read_matching_image, with_envelope
from ctmr_core.anatomy.templates.reading import read_label_scan
from ctmr_core.cases.case import CASE_ID_PATTERN, IMPORTED, Case, Split
from ctmr_core.cases.manifest import Manifest
from ctmr_core.errors import CtmrError, ExchangeError
from ctmr_core.quality.base import Candidate, Verdict
from ctmr_core.quality.judge import judge
from ctmr_core.store import (
    CommitRecord,
    Dataset,
    RunLock,
    build_row,
    commit,
    new_attempt_id,
    read_commit,
    seal,
    volume_path,
    write_volume,
)

ENGINE = IMPORTED
ENGINE_VERSION = "1"
_INT16 = np.iinfo(np.int16)
_MR_TOP = 4095  # 12 bits, as scanners store magnetic resonance images
_OWN_COLUMNS = ("case_id", "labels", "split", "body", "licence", "source")

Checks = Literal["record", "enforce", "skip"]


class PairImport(BaseModel):
    """A label map and the images it was drawn on, all on one grid.

    images: sequence -> file. labels: a file, in the ids that ``mapping`` (a name or file, see ``anatomy.mapping``) translates.
    body: name of the person, who must not be in two splits; default the case id. checks: ``record`` scores and reasons with the
    case, ``enforce`` refuses cases that fail, ``skip`` asks nothing. envelope: ``none`` keeps the labels as they are; ``image``,
    ``labels`` and ``auto`` put label 200 "body" around them, as imports of templates do (the first CT shows the skin, or the
    first image).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    case_id: Annotated[str, Field(pattern=CASE_ID_PATTERN)]
    images: Annotated[Mapping[str, Path], Field(min_length=1)]
    labels: Path
    mapping: str = "maisi"
    split: Split = "train"
    body: Annotated[str, Field(pattern=rf"^$|{CASE_ID_PATTERN}")] = ""
    licence: str = ""
    source: str = ""
    split_sides: bool = False
    drop_unknown: bool = False
    envelope: Envelope = "none"
    checks: Checks = "record"


@dataclass(frozen=True)
class ImportedPair:
    """new: False where the same pair had been imported before. reasons: what the checks object to. notes: what was assumed."""

    case_id: str
    case_key: str
    new: bool
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def import_pair(dataset: Dataset, pair: PairImport) -> ImportedPair:
    """Import one pair (see :func:`import_pairs`)."""
    return import_pairs(dataset, [pair])[0]


def import_pairs(dataset: Dataset, pairs: Sequence[PairImport]) -> list[ImportedPair]:
    """Put pairs into the dataset as accepted cases of the engine ``import``; those that are there already stay as they are.

    CT is rounded to int16 HU; MR of other ranges is scaled linearly to 0..4095, and the factors are kept in the catalog
    (``image_parameters``). Label ids are mapped, axes brought to RAS+, nothing is resampled. Raises ``AnatomyError`` for files
    that can't be used, ``ExchangeError`` for cases that fail enforced checks; pairs before the one that fails stay imported.
    """
    imported: list[ImportedPair] = []
    with RunLock(dataset.storage) as lock:
        try:
            for pair in pairs:
                lock.check()
                try:
                    imported.append(_import(dataset, pair))
                except CtmrError as error:
                    raise error.located(f"case {pair.case_id}") from error
        finally:
            seen = [(one.case_id, one.case_key) for one in imported if one.new or one.case_id not in dataset]
            if seen:
                seal(dataset.storage, f"import-{seen[0][1][:16]}", seen)
                dataset.refresh()
    return imported


def read_pairs(path: Path, defaults: Mapping[str, Any]) -> list[PairImport]:
    """The pairs of a CSV file: columns case_id, labels, one per sequence (``ct``, ``mri_t1`` ...) with files, and if wanted
    split, body, licence, source. Files are relative to the CSV file. defaults: fields of :class:`PairImport` for all rows.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ExchangeError("can not read the table", where=str(path), found=str(error)) from error
    if not rows:
        raise ExchangeError("the table has no rows", where=str(path), allowed="case_id,labels,ct")
    unknown = [name for name in rows[0] if name not in _OWN_COLUMNS and name not in MODALITY_CODES]
    if unknown:
        raise ExchangeError("unknown column", where=str(path), found=unknown[0], allowed=[*_OWN_COLUMNS, *MODALITY_CODES])
    return [_pair(row, number, path, defaults) for number, row in enumerate(rows, start=2)]


def _pair(row: Mapping[str, str], number: int, path: Path, defaults: Mapping[str, Any]) -> PairImport:
    given = {name: value for name, value in row.items() if value}
    images = {name: path.parent / value for name, value in given.items() if name in MODALITY_CODES}
    own = {name: value for name, value in given.items() if name in _OWN_COLUMNS}
    if "labels" in own:
        own["labels"] = str(path.parent / own["labels"])
    return new_pair({**defaults, **own, "images": images}, f"{path} line {number}")


def new_pair(fields: Mapping[str, Any], where: str = "") -> PairImport:
    """A :class:`PairImport`; ``ExchangeError`` that says which field can't be."""
    try:
        return PairImport.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ExchangeError(first["msg"], where=", ".join(filter(None, (where, place))), found=first.get("input")) from error


def _import(dataset: Dataset, pair: PairImport) -> ImportedPair:
    if unknown := [sequence for sequence in pair.images if sequence not in MODALITY_CODES]:
        raise ExchangeError("unknown sequence", found=unknown[0], allowed=MODALITY_CODES)
    notes: list[str] = []
    mapping = load_mapping(pair.mapping)
    scan = read_label_scan(pair.labels)
    if not scan.orientation_known:
        notes.append("the header does not say which way the axes run: taken as left, anterior, superior")
    scans = {sequence: read_matching_image(path, scan, sequence) for sequence, path in pair.images.items()}
    label_map = LabelMap(map_scan(scan, mapping, pair.split_sides, pair.drop_unknown, notes), scan.affine, mapping.vocabulary)
    shown = min(scans, key=lambda sequence: not is_ct(sequence))
    label_map, _ = with_envelope(label_map, take_census(label_map), scans[shown], shown, pair.envelope, notes)
    images, parameters = {}, {}
    for sequence, image in scans.items():
        images[sequence], parameters[sequence] = _stored(image.voxels, sequence)
    case = _case(pair, label_map, images)
    if read_commit(dataset.storage, case.case_id, case.key) is not None:
        return ImportedPair(case.case_id, case.key, new=False, notes=tuple(notes))
    candidate = Candidate(case, label_map, images)
    verdict = judge(candidate) if pair.checks != "skip" else None
    reasons = verdict.reasons if verdict else ()
    if reasons and pair.checks == "enforce":
        raise ExchangeError(
            "the case does not pass the checks", found="; ".join(reasons), fix="--checks record keeps it with these reasons"
        )
    _adopt(dataset, case)
    _commit(dataset, case, candidate, verdict, pair, parameters)
    return ImportedPair(case.case_id, case.key, True, reasons, tuple(notes))


def _case(pair: PairImport, label_map: LabelMap, images: Mapping[str, np.ndarray]) -> Case:
    digests = {sequence: hashlib.sha256(np.ascontiguousarray(image).data).hexdigest() for sequence, image in images.items()}
    try:
        return Case(
            case_id=pair.case_id,
            body=f"template:{pair.body or pair.case_id}",
            split=pair.split,
            sequences=tuple(images),
            size=label_map.size,
            spacing=tuple(round(mm, 6) for mm in label_map.spacing),  # type: ignore[arg-type] # three of them
            engine=ENGINE,
            engine_parameters={"images": digests, "source": pair.source, "licence": pair.licence},
            engine_identity=f"{ENGINE}/{ENGINE_VERSION}",
            template_digest=label_map.digest(),
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise ExchangeError("the pair makes no case", found=first["msg"]) from error


def _stored(voxels: np.ndarray, sequence: str) -> tuple[np.ndarray, dict[str, Any]]:
    """int16 [x, y, z], and what was done: stored = (value - offset) * scale."""
    if np.issubdtype(voxels.dtype, np.floating) and not np.isfinite(voxels).all():
        raise ExchangeError("the image has voxels that are no numbers", where=sequence)
    low, high = float(voxels.min()), float(voxels.max())
    whole = np.issubdtype(voxels.dtype, np.integer)
    if is_ct(sequence) or (whole and low >= _INT16.min and high <= _INT16.max):
        return np.clip(np.rint(voxels), _INT16.min, _INT16.max).astype(np.int16), {"offset": 0.0, "scale": 1.0}
    offset, scale = min(low, 0.0), _MR_TOP / max(high - min(low, 0.0), 1e-12)
    return np.rint((voxels - offset) * scale).astype(np.int16), {"offset": offset, "scale": scale}


def _adopt(dataset: Dataset, case: Case) -> None:
    """Add the case to the plan; a dataset without a plan shows all that is committed, and stays so."""
    if dataset.manifest is None and len(dataset.index):
        return
    table = Manifest.from_cases([case]).table
    if "case_key" not in table.column_names:
        table = table.append_column("case_key", pa.array([case.key]))
    dataset.adopt(table.cast(pa.schema([field.with_nullable(True) for field in table.schema])))  # other plans have other columns


def _commit(
    dataset: Dataset,
    case: Case,
    candidate: Candidate,
    verdict: Verdict | None,
    pair: PairImport,
    parameters: Mapping[str, Any],
) -> None:
    attempt_id = new_attempt_id()
    stored = write_volume(
        dataset.storage,
        volume_path(case.case_id, attempt_id),
        images=candidate.images,
        label_map=candidate.label_map,
        attributes={"case_id": case.case_id, "case_key": case.key, "attempt": 0, "synthetic": False},
    )
    row = build_row(
        case,
        label_map=candidate.label_map,
        census=candidate.census,
        verdict=verdict,
        image_parameters={"images": parameters},
        engine_version=ENGINE_VERSION,
        versions=_versions(("ctmr-factory", "nibabel", "SimpleITK", "numpy")),
        licences=[pair.licence] if pair.licence else [],
        host=socket.gethostname(),
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    commit(
        dataset.storage, CommitRecord.accepted(case.case_id, case.key, attempt=0, attempt_id=attempt_id, stored=stored, row=row)
    )


def _versions(libraries: Iterable[str]) -> dict[str, str]:
    return {name: version(name) for name in libraries}
