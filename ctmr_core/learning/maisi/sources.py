"""Images to learn from: cases of a dataset, or files of a JSON list in NVIDIA's format; whole, with axes turned to RAS+."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import nibabel
import numpy as np
import pyarrow.dataset as pads
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from ctmr_core.anatomy.sequences import MODALITY_CODES
from ctmr_core.engines.maisi.digests import hash_once
from ctmr_core.errors import LearningError
from ctmr_core.learning.maisi.settings import Images
from ctmr_core.store import Dataset

UNREADABLE = (OSError, EOFError, ValueError, ImageFileError, HeaderDataError, zlib.error)
"""What a damaged NIfTI file may raise."""
_COLUMNS = ["case_id", "sequences", "split", "body_identity", "content_digest", "licences", "vocabulary"]
HELD_OUT, TRAINED_ON = 0, 1
"""Folds of the ``val`` and ``train`` cases of a dataset."""


@dataclass(frozen=True)
class Scan:
    """voxels: [x, y, z], RAS+. affine: 4x4 float64, mm. stored_size: voxels along the axes as the file has them."""

    voxels: np.ndarray
    affine: np.ndarray
    stored_size: tuple[int, int, int]


@dataclass(frozen=True)
class Source:
    """One image that can be read.

    name: unique, a relative path without ending. sequence: modality name. fold: what it is held out with. digest: of its content.
    regions: top and bottom body region (one-hots of head, chest, abdomen, pelvis) where the list names them.
    read, read_labels: image, label map (None: it has none; ids of ``vocabulary``, "" where unknown).
    """

    name: str
    sequence: str
    fold: int
    digest: str
    licences: tuple[str, ...]
    vocabulary: str
    read: Callable[[], Scan]
    read_labels: Callable[[], Scan] | None
    regions: tuple[list[int], list[int]] | None = None

    @property
    def modality(self) -> int:
        return MODALITY_CODES[self.sequence]


def sources_of(images: Images, folds: int) -> list[Source]:
    """Every image, by name. folds: into how many those are divided that come without; a body is never in two.

    Raises ``LearningError`` for lists that can't be read, files that are not there and sequences that no image has.
    """
    found = _of_dataset(images, folds) if images.dataset is not None else _of_list(images, folds)
    if not found:
        raise LearningError("there are no images", where=images.dataset or str(images.list), fix="look at sequences and splits")
    names = Counter(source.name for source in found)
    if len(names) < len(found):
        again = [name for name, times in names.items() if times > 1]
        raise LearningError("images have the same name", found=again[:8], fix="name each image once")
    return sorted(found, key=lambda source: source.name)


def fold_of(name: str, folds: int) -> int:
    """0 .. folds - 1 from the name alone: it stays when others are added."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % folds


def _of_dataset(images: Images, folds: int) -> list[Source]:
    dataset = Dataset.open(str(images.dataset), snapshot=images.snapshot)
    table = dataset.catalog.to_table(columns=_COLUMNS, filter=pads.field("split").isin(list(images.splits)))
    rows = [row for row in table.to_pylist() if images.vocabulary in (None, row["vocabulary"])]
    has_val = any(row["split"] == "val" for row in rows)
    found = []
    for row in rows:
        fold = (HELD_OUT if row["split"] == "val" else TRAINED_ON) if has_val else fold_of(row["body_identity"], folds)
        for sequence in row["sequences"]:
            if images.sequences is None or sequence in images.sequences:
                case_id = row["case_id"]
                read = partial(_case_image, dataset, case_id, sequence)
                labels = partial(_case_labels, dataset, case_id)
                digest = f"{row['content_digest']}/{sequence}"
                licences = tuple(row["licences"] or ())
                name = f"{case_id}_{sequence}"
                found.append(Source(name, sequence, fold, digest, licences, row["vocabulary"], read, labels))
    return found


def _case_image(dataset: Dataset, case_id: str, sequence: str) -> Scan:
    volume = dataset[case_id]
    voxels = volume.images[sequence][...]
    return Scan(np.ascontiguousarray(voxels), volume.affine, voxels.shape)


def _case_labels(dataset: Dataset, case_id: str) -> Scan:
    volume = dataset[case_id]
    voxels = volume.labels[...]
    return Scan(np.ascontiguousarray(voxels), volume.affine, voxels.shape)


def _of_list(images: Images, folds: int) -> list[Source]:
    path = Path(str(images.list))
    folder = images.folder or path.parent
    found = []
    for number, entry in enumerate(read_list(path)):
        where = f"{path}, training[{number}]"
        sequence = str(entry.get("modality", ""))
        if sequence not in MODALITY_CODES:
            raise LearningError("unknown modality", where=where, found=sequence, allowed=MODALITY_CODES)
        if images.sequences is not None and sequence not in images.sequences:
            continue
        image, labels = _file(folder, entry["image"], where), entry.get("label")
        label_file = _file(folder, labels, where) if labels else None
        name = _name_of(str(entry["image"]))
        fold = int(entry["fold"]) if "fold" in entry else fold_of(str(entry.get("subject", name)), folds)
        digest = hash_once(image) + ("/" + hash_once(label_file) if label_file else "")
        read_labels = partial(read_scan, label_file) if label_file else None
        found.append(Source(name, sequence, fold, digest, (), "", partial(read_scan, image), read_labels, regions_in(entry)))
    return found


def _name_of(image: str) -> str:
    """The image's path without ending, and without what would lead out of a folder of latents."""
    parts = PurePosixPath(image.removesuffix(".gz").removesuffix(".nii")).parts
    return "/".join(part for part in parts if part not in ("/", ".."))


def regions_in(entry: dict[str, Any]) -> tuple[list[int], list[int]] | None:
    """Top and bottom region of an entry of a list or sidecar file, None where it names none."""
    top, bottom = (entry.get(f"{end}_region_index") for end in ("top", "bottom"))
    return None if top is None or bottom is None else (top, bottom)


def read_list(path: Path) -> list[dict[str, Any]]:
    """The entries below ``training`` of a JSON list, each with ``image``; ``LearningError`` where there are none."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise LearningError("the list can not be read", where=str(path), found=str(error)) from error
    entries = document.get("training") if isinstance(document, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) and "image" in entry for entry in entries):
        raise LearningError("not a list of images", where=str(path), allowed='{"training": [{"image": ..., "modality": ...}]}')
    return entries


def _file(folder: Path, name: str, where: str) -> Path:
    path = folder / name
    if not path.is_file():
        raise LearningError("a file of the list is not there", where=where, found=str(path), fix="give its folder as `folder`")
    return path


def read_scan(path: Path) -> Scan:
    """A NIfTI volume, axes turned to RAS+; ``LearningError`` where it can't be read or has not three axes."""
    try:
        stored: Any = nibabel.load(path)
        image: Any = nibabel.as_closest_canonical(stored)
        voxels = np.asarray(image.dataobj)
        affine = np.asarray(image.affine, np.float64)
    except UNREADABLE as error:
        raise LearningError("the file can not be read", where=str(path), found=str(error)) from error
    if voxels.ndim > 3 and set(voxels.shape[3:]) == {1}:
        voxels = voxels.reshape(voxels.shape[:3])
    if voxels.ndim != 3:
        raise LearningError("an image has 3 axes", where=str(path), found=voxels.shape, fix="choose one channel")
    if voxels.dtype.kind == "f" and not np.isfinite(voxels).all():
        raise LearningError("the image has voxels that are no numbers", where=str(path), found="NaN or infinite")
    x, y, z = stored.shape[:3]
    return Scan(np.ascontiguousarray(voxels), affine, (int(x), int(y), int(z)))
