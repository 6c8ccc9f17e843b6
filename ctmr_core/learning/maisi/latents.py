"""Images -> latents to train on: resumable, with everything that could not be used named."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ctmr_core.anatomy.label_map import LabelMap
from ctmr_core.anatomy.resample import resample
from ctmr_core.anatomy.vocabulary import load_vocabulary
from ctmr_core.engines.maisi.behaviour import behaviour
from ctmr_core.engines.maisi.conditioning import regions_of_mask
from ctmr_core.engines.maisi.encode import REFERENCE_WINDOW, Window, encode_values, normalised
from ctmr_core.engines.maisi.models import MaisiModels
from ctmr_core.engines.maisi.variants import AUTOENCODER, REGIONS
from ctmr_core.errors import CtmrError, LearningError
from ctmr_core.learning.maisi.base import base_models
from ctmr_core.learning.maisi.latent_files import (
    LABELS_ENDING,
    LATENT_ENDING,
    LatentItem,
    read_sidecar,
    write_index,
    write_labels,
    write_latent,
    write_sidecar,
)
from ctmr_core.learning.maisi.settings import LatentsConfig
from ctmr_core.learning.maisi.sources import UNREADABLE, Scan, Source, sources_of

Size = tuple[int, int, int]
_IDS = 1 << 16
_BITS = 256  # what the ControlNet's 8-bit code can hold


@dataclass
class Made:
    """What came of it. made, kept: latents by name, new and from before. refused: name -> why."""

    made: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)


def make_latents(config: LatentsConfig, out: Path, on_image: Callable[[str, str], None] | None = None) -> Made:
    """Write the latents of all images of ``config`` into folder ``out`` (see ``latent_files``); the same bytes every time.

    Latents of the same image, autoencoder and settings are not made again. An image that can't be used is named in the index
    and in the result, with the reason; the others are made. on_image: name, and ``made``, ``kept`` or the reason.
    Raises ``EngineError`` for missing weights, ``LearningError`` where there is nothing to encode.
    """
    sources = sources_of(config.images, config.folds)
    models = base_models(config, device=config.device)
    autoencoder = next(iter(models.digests([AUTOENCODER]).values()))
    done, items = Made(), []
    for source in sources:
        path = out / f"{source.name}{LATENT_ENDING}"
        made_of = _made_of(config, source, autoencoder)
        item = read_sidecar(path)
        told = "kept"
        if item is None or item.made_of != made_of or not _files_are_there(out, path, item):
            try:
                item = _make(config, models, source, out, made_of)
            except (CtmrError, *UNREADABLE) as error:
                done.refused[source.name] = told = _one_line(error)
                item = None
            else:
                told = "made"
                done.made.append(source.name)
        else:
            done.kept.append(source.name)
        if item is not None:
            items.append(item.model_copy(update={"image": f"{source.name}{LATENT_ENDING}", "fold": source.fold}))
        if on_image is not None:
            on_image(source.name, told)
    models.close()
    facts = {"variant": config.variant, "mode": config.mode, "autoencoder": autoencoder, "refused": done.refused}
    write_index(out, items, facts)
    return done


def latent_grid(size: Size, multiple: int) -> Size:
    """The size an image is brought to: the nearest multiple along each axis, at least one; halves go to the even multiple."""
    x, y, z = (max(1, round(n / multiple)) * multiple for n in size)
    return (x, y, z)


def resized(values: np.ndarray, affine: np.ndarray, size: Size) -> tuple[np.ndarray, np.ndarray]:
    """An image [x, y, z] on another grid over the same field of view (trilinear, as MONAI's ``Resize``), and its affine."""
    from monai.data import MetaTensor
    from monai.transforms import Resize

    volume: Any = MetaTensor(torch.from_numpy(values)[None], affine=torch.from_numpy(affine))
    volume = Resize(size, mode="trilinear")(volume)
    return np.ascontiguousarray(np.asarray(volume)[0], np.float32), np.asarray(volume.affine, np.float64)


def _make(config: LatentsConfig, models: MaisiModels, source: Source, out: Path, made_of: str) -> LatentItem:
    path = out / f"{source.name}{LATENT_ENDING}"
    scan = source.read()
    size = latent_grid(scan.stored_size if config.compat else _size(scan.voxels), config.multiple)
    values, affine = resized(normalised(scan.voxels, source.modality), scan.affine, size)
    latent = encode_values(models, values, window=_window(config), sampled=_seed(config, source) if config.compat else None)
    spacing = _spacing(affine)
    labels = _labels(config, source, size, spacing)
    regions = source.regions or (_regions(labels, compat=config.compat) if models.has_region_input else None)
    if models.has_region_input and regions is None:
        raise LearningError(f"{config.variant} is told the body region, which nothing tells here", fix="give labels, or a list")
    write_latent(path, latent[0].cpu().numpy(), affine)
    label_name = f"{source.name}{LABELS_ENDING}" if config.labels else None
    if label_name is not None and labels is not None:
        write_labels(out / label_name, labels, affine)
    item = LatentItem(
        label=label_name,
        modality=source.sequence,
        dim=tuple(int(n) for n in latent.shape[2:]),  # type: ignore[arg-type]
        spacing=spacing,
        fold=source.fold,
        top_region_index=regions[0] if regions else None,
        bottom_region_index=regions[1] if regions else None,
        licences=source.licences,
        made_of=made_of,
    )
    write_sidecar(path, item)
    return item


def _labels(config: LatentsConfig, source: Source, size: Size, spacing: tuple[float, float, float]) -> np.ndarray | None:
    """The label map on the image's new grid, uint8; None where it is not needed."""
    if source.read_labels is None:
        if config.labels:
            raise LearningError("the image has no label map", fix="leave `labels` off, or name one in the list")
        return None
    if not config.labels and config.variant != "ddpm-ct":
        return None
    scan = source.read_labels()
    voxels = _as_bytes(scan, config.label_ids, source.vocabulary)
    if config.compat:
        from monai.transforms import Resize

        nearest = Resize(size, mode="nearest")(torch.from_numpy(voxels[None].astype(np.float32)))
        return np.ascontiguousarray(np.asarray(nearest)[0].astype(np.uint8))
    return resample(LabelMap(voxels, scan.affine, load_vocabulary("maisi")), size, spacing).voxels


def _as_bytes(scan: Scan, changes: dict[int, int], vocabulary: str) -> np.ndarray:
    """Ids that the ControlNet's code can hold, uint8 [x, y, z]; refused where two labels would become one by accident."""
    if scan.voxels.min() < 0 or scan.voxels.max() >= _IDS or (scan.voxels != np.rint(scan.voxels)).any():
        raise LearningError("a label map holds whole numbers", found=(float(scan.voxels.min()), float(scan.voxels.max())))
    labels = scan.voxels.astype(np.uint16)
    present = set(np.flatnonzero(np.bincount(labels.ravel(), minlength=_IDS)).tolist())
    beyond = sorted(label for label in present if label >= _BITS and label not in changes)
    foreign = sorted(present - set(changes) - {0}) if vocabulary not in ("", "maisi") else []
    if foreign:
        fix = (
            "leave these cases out (`vocabulary: maisi` of images), or name an id for each in `label_ids`; "
            "133 to 199 and 201 to 255 are free"
        )
        raise LearningError(f"ids of the {vocabulary} vocabulary mean other structures here", found=foreign[:8], fix=fix)
    if beyond:
        fix = "name other ids in `label_ids`; 133 to 199 and 201 to 255 are free"
        raise LearningError("the ControlNet's code holds ids of 0 to 255", found=beyond[:8], fix=fix)
    taken = sorted({changes[label] for label in present if label in changes} & (present - set(changes)))
    if taken:
        raise LearningError("an id of `label_ids` is already that of another label", found=taken[:8])
    table = np.arange(_IDS).astype(np.uint8)
    for label, new in changes.items():
        table[label] = new
    return table[labels]


def _regions(labels: np.ndarray | None, *, compat: bool) -> tuple[list[int], list[int]] | None:
    if labels is None:
        return None
    top, bottom = regions_of_mask(labels, behaviour(compat))
    return [int(name == top) for name in REGIONS], [int(name == bottom) for name in REGIONS]


def _window(config: LatentsConfig) -> Window | None:
    if config.window is not None:
        return Window(config.window.window, config.window.overlap)
    return REFERENCE_WINDOW if config.compat else None


def _made_of(config: LatentsConfig, source: Source, autoencoder: str) -> str:
    facts = {
        "image": source.digest,
        "autoencoder": autoencoder,
        "mode": config.mode,
        "multiple": config.multiple,
        "window": config.window.model_dump() if config.window else None,
        "seed": config.seed if config.compat else None,
        "labels": config.labels,
        "label_ids": sorted(config.label_ids.items()),
        "regions": source.regions,
        "modality": source.sequence,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _seed(config: LatentsConfig, source: Source) -> int:
    digest = hashlib.sha256(f"{config.seed}|{source.name}|{source.digest}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _files_are_there(out: Path, path: Path, item: LatentItem) -> bool:
    return path.is_file() and (item.label is None or (out / item.label).is_file())


def _size(voxels: np.ndarray) -> Size:
    x, y, z = voxels.shape
    return (x, y, z)


def _spacing(affine: np.ndarray) -> tuple[float, float, float]:
    x, y, z = (round(float(step), 6) for step in np.linalg.norm(affine[:3, :3], axis=0))
    return (x, y, z)


def _one_line(error: Exception) -> str:
    return " ".join(part.strip() for part in str(error).splitlines()) or type(error).__name__
