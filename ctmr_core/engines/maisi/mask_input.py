"""A label map in a file -> one that a CT variant can render: known labels, a body, and a grid of the sizes it makes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ctmr_core.anatomy.label_map import LabelMap
from ctmr_core.anatomy.templates.reading import read_label_scan
from ctmr_core.anatomy.vocabulary import load_vocabulary
from ctmr_core.engines.maisi.mask_files import on_grid
from ctmr_core.engines.maisi.variants import CT_DEPTHS, CT_PLANE_SIZES, VARIANTS
from ctmr_core.errors import AnatomyError

Size = tuple[int, int, int]
Spacing = tuple[float, float, float]
BODY = 200
_NAMED = 8


def read_mask(path: Path) -> tuple[LabelMap, list[str]]:
    """The label map (maisi vocabulary) of a file, and remarks on what the networks were not trained on.

    Raises ``AnatomyError`` for files that can't be read and for ids beyond 255, which the ControlNet's code can't hold.
    """
    scan = read_label_scan(path)
    vocabulary = load_vocabulary("maisi")
    if scan.voxels.dtype != np.uint8:
        raise AnatomyError(
            "ids beyond 255 can't be told to the ControlNet (it reads 8 bits)",
            where=str(path),
            found=int(scan.voxels.max()),
            fix="map the ids to the maisi vocabulary first: `ctmr templates import --mapping ...`",
        )
    present = np.flatnonzero(np.bincount(scan.voxels.ravel(), minlength=256)).tolist()
    remarks = []
    unknown = [label for label in present if label and label not in vocabulary]
    if unknown:
        remarks.append(f"ids outside the maisi vocabulary: {', '.join(map(str, unknown[:_NAMED]))}")
    if BODY not in present:
        remarks.append("no voxel is labelled 200 (body): everything outside the organs becomes air")
    return LabelMap(np.ascontiguousarray(scan.voxels), scan.affine, vocabulary), remarks


def nearest_ct_grid(size: Size, spacing: Spacing) -> tuple[Size, Spacing]:
    """The size and spacing among those of the CT variants that keep the field of view best.

    x and y: the size nearest to their mean, z: the nearest size (the smaller one when two are equally near); spacing:
    field of view over size, averaged over x and y, within the range of the weights. As NV-Generate-CTMR does
    (``scripts/infer_image_from_mask.py``). A grid that is allowed already stays as it is.
    """
    (low, high), (low_z, high_z) = VARIANTS["rflow-ct"].spacing_mm
    allowed = size[0] == size[1] and size[0] in CT_PLANE_SIZES and size[2] in CT_DEPTHS and spacing[0] == spacing[1]
    if allowed and low <= spacing[0] <= high and low_z <= spacing[2] <= high_z:
        return size, spacing
    plane = min(CT_PLANE_SIZES, key=lambda n: abs(n - (size[0] + size[1]) / 2))
    depth = min(CT_DEPTHS, key=lambda n: abs(n - size[2]))
    extent = (size[0] * spacing[0] + size[1] * spacing[1]) / 2
    in_plane = float(np.clip(extent / plane, low, high))
    along_z = float(np.clip(size[2] * spacing[2] / depth, low_z, high_z))
    return (plane, plane, depth), (in_plane, in_plane, along_z)


def placed_on(label_map: LabelMap, size: Size, spacing: Spacing, *, compat: bool) -> LabelMap:
    """The label map on another grid with the same middle; compat: nearest neighbour, as the reference."""
    voxels = on_grid(label_map, size, spacing, compat=compat)
    if voxels is label_map.voxels:
        return label_map
    middle = label_map.affine @ np.append((np.array(label_map.size) - 1) / 2, 1.0)
    affine = label_map.affine.copy()
    affine[:3, :3] *= np.asarray(spacing) / np.asarray(label_map.spacing)
    affine[:3, 3] = middle[:3] - affine[:3, :3] @ ((np.array(size) - 1) / 2)
    return LabelMap(voxels, affine, label_map.vocabulary)
