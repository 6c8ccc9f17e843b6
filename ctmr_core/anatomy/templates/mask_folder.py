"""A folder with one mask per structure (TotalSegmentator's default output), read as one label map."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ctmr_core.anatomy.mapping import LabelMapping
from ctmr_core.anatomy.templates.reading import Scan, is_readable_name, read_scan, scan_stem
from ctmr_core.errors import AnatomyError

SAME_GRID = 1e-3


def holds_masks(folder: Path, mapping: LabelMapping) -> bool:
    """Whether most label maps of ``folder`` are named like structures of the mapping: ``liver.nii.gz``, ``spleen.nii.gz``."""
    files = _files(folder)
    named = set(_ids_by_name(mapping))
    return bool(files) and 2 * sum(_plain(scan_stem(file)) in named for file in files) > len(files)


def read_mask_folder(folder: Path, mapping: LabelMapping, drop_unknown: bool = False) -> Scan:
    """One label map in the ids of the mapping's source, from one mask per structure; voxels above 0 are the structure.

    Where masks overlap the higher id counts, as in TotalSegmentator's own multi-label output. Files that are not named
    like a structure are refused unless ``drop_unknown``. All masks must lie on one grid.
    """
    ids = _ids_by_name(mapping)
    files = {file: ids.get(_plain(scan_stem(file))) for file in _files(folder)}
    unknown = [file.name for file, identifier in files.items() if identifier is None]
    if unknown and not drop_unknown:
        raise AnatomyError(
            f"{len(unknown)} masks are not named like a structure of the mapping {mapping.name!r}",
            where=str(folder),
            found=", ".join(unknown[:10]),
            fix="choose another mapping, move them elsewhere, or leave them out (--drop-unknown)",
        )
    known = sorted((identifier, file) for file, identifier in files.items() if identifier is not None)
    voxels: np.ndarray | None = None
    for identifier, file in known:
        mask = read_scan(file)
        if voxels is None:
            first = mask
            voxels = np.zeros(mask.voxels.shape, np.min_scalar_type(max(ids.values())))
        if mask.voxels.shape != voxels.shape or not np.allclose(mask.affine, first.affine, rtol=0, atol=SAME_GRID):
            raise AnatomyError(
                "the masks of the folder do not lie on one grid",
                where=str(file),
                found=mask.voxels.shape,
                allowed=f"{voxels.shape}",
            )
        voxels[mask.voxels > 0] = identifier
    if voxels is None or not voxels.any():
        raise AnatomyError("the masks of the folder are all empty", where=str(folder))
    return Scan(voxels, first.affine, first.orientation_known)


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.is_file() and is_readable_name(file))


def _ids_by_name(mapping: LabelMapping) -> dict[str, int]:
    """Name of the structure in the source -> its id; ranges and other shared names are left out."""
    names = [_plain(name) for name in mapping.names.values()]
    return {_plain(name): identifier for identifier, name in mapping.names.items() if names.count(_plain(name)) == 1}


def _plain(name: str) -> str:
    return " ".join(name.lower().replace("_", " ").split())
