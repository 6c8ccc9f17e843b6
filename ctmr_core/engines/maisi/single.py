"""One volume to files: NIfTI image, the label map it shows, and a record of how it was made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from ctmr_core.anatomy.grid import Grid
from ctmr_core.anatomy.label_map import LabelMap
from ctmr_core.anatomy.sequences import MODALITY_CODES
from ctmr_core.cases.case import Case
from ctmr_core.engines.maisi.engine import MaisiEngine
from ctmr_core.engines.maisi.mask_input import nearest_ct_grid, placed_on, read_mask
from ctmr_core.engines.maisi.sampling import DEFAULT_REGIONS
from ctmr_core.engines.maisi.starting_image import Start, read_start
from ctmr_core.engines.maisi.variants import variant
from ctmr_core.engines.registry import load_engine
from ctmr_core.errors import EngineError

SUFFIXES = (".nii.gz", ".nii")
Size = tuple[int, int, int]
Spacing = tuple[float, float, float]


@dataclass(frozen=True)
class SingleRequest:
    """What ``sample_to_files`` makes. size in voxels and spacing in mm may be left out with a mask; settings: engine parameters.

    sequence: default ``ct`` or ``mri_t1``. region: of an image without a mask. start: image to start from in place of noise
    alone, doing ``strength`` (0-1) of the steps. models, network_config: as of the engine.
    """

    variant: str
    size: Size | None = None
    spacing: Spacing | None = None
    sequence: str | None = None
    mask: Path | None = None
    region: str | None = None
    start: Path | None = None
    strength: float = 0.5
    seed: int = 0
    device: str = "cpu"
    models: Path | None = None
    network_config: Path | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


def sample_to_files(request: SingleRequest, out: Path) -> tuple[list[Path], dict[str, Any]]:
    """Write ``out`` (int16; HU, or arbitrary MR units), ``<out>.json`` and, with a mask, ``<out>_labels.nii.gz``.

    Returns the paths written and the record, which is what the JSON file holds.
    Raises ``EngineError`` and ``AnatomyError`` before any work for what can't be made.
    """
    stem = stem_of(out)
    chosen = variant(request.variant)
    remarks: list[str] = []
    label_map = None
    if request.mask is not None:
        label_map, remarks = _mask(request)
    size, spacing = (label_map.size, label_map.spacing) if label_map else (request.size, request.spacing)
    if size is None or spacing is None:
        raise EngineError("without a mask, size and spacing are needed", fix="give --size X Y Z and --spacing X Y Z")
    sequence = request.sequence or ("ct" if chosen.is_ct else "mri_t1")
    if sequence not in MODALITY_CODES:
        raise EngineError("unknown sequence", found=sequence, allowed=MODALITY_CODES)
    region = request.region or ("abdomen" if chosen.is_ct else "head")
    settings = dict(request.settings)
    if label_map is None and request.region is None and chosen.is_ct:
        settings.setdefault("regions", DEFAULT_REGIONS)
    case = Case.model_construct(
        case_id=stem.name,
        body="template:mask" if label_map else f"unlabelled:{region}",
        sequences=(sequence,),
        size=size,
        spacing=tuple(round(mm, 6) for mm in spacing),
        engine=request.variant,
        engine_parameters=settings,
        seed=request.seed,
    )
    engine = load_engine(request.variant, device=request.device, models=request.models, network_config=request.network_config)
    if not isinstance(engine, MaisiEngine):
        raise EngineError("not an engine of MAISI", found=request.variant)
    start = None
    if request.start is not None:
        start = Start(read_start(request.start, case.size, case.spacing, MODALITY_CODES[sequence]), request.strength)
    try:
        image, record = engine.sample(case, label_map, sequence, request.seed, start)
    finally:
        engine.close()
    affine = label_map.affine if label_map else Grid.centred(case.size, case.spacing).affine
    record = {
        **record,
        "sequence": sequence,
        "size": list(case.size),
        "spacing": list(case.spacing),
        "seed": request.seed,
        "mask": str(request.mask) if request.mask else None,
        "from": str(request.start) if request.start else None,
        "licences": list(engine.licences_of(case)),
        "remarks": remarks,
    }
    return write_volume(out, image, affine, record, label_map), record


def _mask(request: SingleRequest) -> tuple[LabelMap, list[str]]:
    assert request.mask is not None  # noqa: S101 - the caller made sure
    label_map, remarks = read_mask(request.mask)
    limited = request.settings.get("limits", True)
    compat = request.settings.get("mode") == "compat"
    if request.size is not None or request.spacing is not None:
        size, spacing = request.size or label_map.size, request.spacing or label_map.spacing
    elif limited and variant(request.variant).is_ct:
        size, spacing = nearest_ct_grid(label_map.size, label_map.spacing)
    else:
        size, spacing = label_map.size, label_map.spacing
    moved = placed_on(label_map, size, spacing, compat=compat)
    if moved is not label_map:
        voxels = "x".join(map(str, moved.size))
        mm = "x".join(f"{step:.4g}" for step in moved.spacing)
        remarks.append(f"the mask was moved to {voxels} voxels of {mm} mm")
    return moved, remarks


def stem_of(out: Path) -> Path:
    """The path without ``.nii.gz`` or ``.nii``; ``EngineError`` for other names."""
    for suffix in SUFFIXES:
        if out.name.endswith(suffix) and out.name != suffix:
            return out.with_name(out.name.removesuffix(suffix))
    raise EngineError("images are written as NIfTI", found=out.name, allowed=SUFFIXES)


def write_volume(
    out: Path, image: np.ndarray, affine: np.ndarray, record: dict[str, Any], label_map: LabelMap | None = None
) -> list[Path]:
    """Write image, label map (``<out>_labels`` with the suffix of ``out``) and record (``<out>.json``); return the paths."""
    stem = stem_of(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    written = [out]
    _save(out, image, affine)
    if label_map is not None:
        labels = stem.with_name(f"{stem.name}_labels{out.name.removeprefix(stem.name)}")
        _save(labels, label_map.voxels, affine)
        written.append(labels)
    note = stem.with_name(f"{stem.name}.json")
    note.write_text(json.dumps(record, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return [*written, note]


def _save(path: Path, voxels: np.ndarray, affine: np.ndarray) -> None:
    volume = nib.Nifti1Image(voxels, affine)
    volume.header.set_xyzt_units("mm")
    volume.set_sform(affine, 1)
    volume.set_qform(affine, 1)
    nib.save(volume, path)
