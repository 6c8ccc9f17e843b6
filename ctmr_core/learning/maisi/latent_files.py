"""A folder of latents: one NIfTI file per image as NVIDIA's scripts write and read it, a sidecar file each, and an index of all.

::

    <name>_emb.nii.gz        float32 [x, y, z, 4], a quarter of the image's voxels per axis; the affine is the image's
    <name>_emb.nii.gz.json   dim, spacing (of the image, mm), modality, regions; what it was made of
    <name>_labels.nii.gz     uint8 [x, y, z] on the grid of the image, where label maps are kept
    latents.json             all of them, and the images that were refused; also a list for NVIDIA's ControlNet training
"""

from __future__ import annotations

import gzip
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import nibabel
import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ctmr_core.anatomy.sequences import MODALITY_CODES
from ctmr_core.engines.maisi.digests import write_json
from ctmr_core.errors import LearningError
from ctmr_core.learning.maisi.sources import UNREADABLE, read_list

INDEX = "latents.json"
LATENT_ENDING = "_emb.nii.gz"
LABELS_ENDING = "_labels.nii.gz"
OneHot = Annotated[list[Annotated[int, Field(ge=0, le=1)]], Field(min_length=4, max_length=4)]
Spacing = tuple[float, float, float]
_GZIP_LEVEL = 1  # latents are nearly noise: more takes ten times as long for 1 %


class LatentItem(BaseModel):
    """One latent, as its sidecar file and the index have it; names that are not here are kept, too.

    image, label: paths relative to the index. dim: latent voxels. spacing: mm of the image's voxels. made_of: digest of image,
    autoencoder and settings.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    image: str = ""
    label: str | None = None
    modality: str
    dim: tuple[int, int, int]
    spacing: Spacing
    fold: int = 1
    top_region_index: OneHot | None = None
    bottom_region_index: OneHot | None = None
    licences: tuple[str, ...] = ()
    made_of: str = ""

    @property
    def code(self) -> int:
        return MODALITY_CODES[self.modality]


class LatentSet(BaseModel):
    """Several latents to train on. root: of their paths. autoencoder: SHA-256 of what encoded them, "" where unknown."""

    model_config = ConfigDict(frozen=True)

    root: Path
    autoencoder: str
    items: tuple[LatentItem, ...]


def write_latent(path: Path, latent: np.ndarray, affine: np.ndarray) -> None:
    """latent: float32 [4, x, y, z]; written whole or not at all."""
    _write_nifti(path, np.moveaxis(latent.astype(np.float32), 0, -1), affine)


def write_labels(path: Path, labels: np.ndarray, affine: np.ndarray) -> None:
    """labels: uint8 [x, y, z]; written whole or not at all."""
    _write_nifti(path, labels, affine)


def read_latent(path: Path) -> np.ndarray:
    """float32 [4, x, y, z]; ``LearningError`` where the file is none."""
    values = _read_nifti(path)
    if values.ndim != 4:
        raise LearningError("not a latent", where=str(path), found=values.shape, allowed="[x, y, z, channels]")
    return np.ascontiguousarray(np.moveaxis(values, -1, 0), np.float32)


def read_labels(path: Path) -> np.ndarray:
    """uint8 [x, y, z]; ``LearningError`` for other values."""
    values = _read_nifti(path)
    if values.dtype != np.uint8:
        if values.min() < 0 or values.max() > 255 or (values != np.rint(values)).any():
            raise LearningError("labels are whole numbers 0-255", where=str(path), found=(values.min(), values.max()))
        values = values.astype(np.uint8)
    return np.ascontiguousarray(values.reshape(values.shape[:3]))


def sidecar_of(latent: Path) -> Path:
    """The sidecar file of a latent's file."""
    return latent.with_name(latent.name + ".json")


def write_sidecar(latent: Path, item: LatentItem) -> None:
    """Written last: a latent with a sidecar file is complete."""
    write_json(sidecar_of(latent), item.model_dump(exclude_none=True, exclude={"image"}))


def read_sidecar(latent: Path) -> LatentItem | None:
    """The sidecar file of a latent's file; None where there is none that can be used."""
    try:
        return LatentItem.model_validate_json(sidecar_of(latent).read_text(encoding="utf-8"))
    except (FileNotFoundError, UnicodeDecodeError, ValidationError):
        return None


def write_index(folder: Path, items: Sequence[LatentItem], facts: dict[str, Any]) -> None:
    """All latents of a folder, by name."""
    entries = [item.model_dump(exclude_none=True) for item in sorted(items, key=lambda item: item.image)]
    write_json(folder / INDEX, {**facts, "training": entries})


def read_latents(places: Sequence[Path]) -> list[LatentSet]:
    """Folders of latents, or JSON lists in NVIDIA's format, whose entries may name the images or their latents.

    Raises ``LearningError`` where a file is not there (all of them named, none passed over) and where a fact is missing.
    """
    return [_read_set(place / INDEX if place.is_dir() else place) for place in places]


def _read_set(path: Path) -> LatentSet:
    if not path.is_file():
        raise LearningError("there are no latents", where=str(path), fix="make them with `ctmr train latents`")
    entries = read_list(path)
    document = json.loads(path.read_text(encoding="utf-8"))
    items, problems = [], []
    for number, entry in enumerate(entries):
        name = str(entry["image"])
        name = name if name.endswith(LATENT_ENDING) else f"{name.removesuffix('.gz').removesuffix('.nii')}{LATENT_ENDING}"
        file, label = path.parent / name, entry.get("label")
        missing = [str(one) for one in (file, path.parent / label if label else file) if not one.is_file()]
        if missing:
            problems.append(f"training[{number}]: {missing[0]} is not there")
            continue
        known = read_sidecar(file)
        facts = {**(known.model_dump(exclude_none=True) if known else {}), **entry, "image": name}
        facts["dim"] = nibabel.load(file).shape[:3]  # type: ignore[attr-defined]
        try:
            item = LatentItem.model_validate(facts)
        except ValidationError as error:
            first = error.errors()[0]
            problems.append(f"training[{number}].{first['loc'][0]}: {first['msg'].lower()}, neither here nor in its sidecar file")
            continue
        if item.modality not in MODALITY_CODES:
            problems.append(f"training[{number}].modality: {item.modality!r} is unknown")
        items.append(item)
    if problems:
        shown = "; ".join(problems[:8]) + (f"; and {len(problems) - 8} more" if len(problems) > 8 else "")
        raise LearningError("latents are missing or incomplete", where=str(path), found=shown)
    return LatentSet(root=path.parent, autoencoder=str(document.get("autoencoder", "")), items=tuple(items))


def _write_nifti(path: Path, values: np.ndarray, affine: np.ndarray) -> None:
    image = nibabel.Nifti1Image(values, affine)
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    image.header.set_xyzt_units("mm")
    content = io.BytesIO()
    with gzip.GzipFile(fileobj=content, mode="wb", compresslevel=_GZIP_LEVEL, mtime=0) as stream:
        stream.write(image.to_bytes())
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_bytes(content.getbuffer())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _read_nifti(path: Path) -> np.ndarray:
    try:
        return np.asarray(nibabel.load(path).dataobj)  # type: ignore[attr-defined]
    except UNREADABLE as error:
        raise LearningError("the file can not be read", where=str(path), found=str(error)) from error
