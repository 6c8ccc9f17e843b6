"""A small mask bank on disk, in the released format."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

TOP = "all_masks_flexible_size_and_spacing_4000"
HOT = {"head": [1, 0, 0, 0], "chest": [0, 1, 0, 0], "abdomen": [0, 0, 1, 0], "pelvis": [0, 0, 0, 1]}


def entry(
    name: str, mask: np.ndarray, spacing: Sequence[float], span: tuple[str, str] | None = ("chest", "abdomen")
) -> dict[str, Any]:
    """One entry of the index."""
    regions = {} if span is None else {"top_region_index": HOT[span[0]], "bottom_region_index": HOT[span[1]]}
    return {
        "pseudo_label_filename": f"./{name}",
        "label_list": [int(label) for label in np.unique(mask) if label],
        "dim": list(mask.shape),
        "spacing": list(spacing),
        **regions,
    }


def write_bank(
    folder: Path, masks: Sequence[tuple[dict[str, Any], np.ndarray]], *, zipped: bool, flip: bool = False
) -> tuple[Path, Path]:
    """Write label maps and index; the paths of both. flip: store x from right to left (LAS) instead of RAS."""
    index = folder / "candidate_masks.json"
    folder.mkdir(parents=True, exist_ok=True)
    index.write_text(json.dumps([part for part, _ in masks]))
    root = folder / TOP
    for part, mask in masks:
        file = root / part["pseudo_label_filename"]
        file.parent.mkdir(parents=True, exist_ok=True)
        affine = np.diag([*part["spacing"], 1.0])
        if flip:
            affine[0, 0] *= -1
        nibabel.save(nibabel.Nifti1Image(mask[::-1] if flip else mask, affine), file)
    if not zipped:
        return index, root
    archive = folder / f"{TOP}.zip"
    with zipfile.ZipFile(archive, "w") as handle:
        for file in sorted(root.rglob("*.nii.gz")):
            handle.write(file, f"{TOP}/{file.relative_to(root).as_posix()}")
    return index, archive
