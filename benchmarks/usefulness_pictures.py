"""Real scans in three planes, with their labels and with what a network of ``usefulness.py`` found in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import nibabel
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ctmr_core.learning.segmentation.pictures import class_colours
from ctmr_core.learning.segmentation.predict import TrainedSegmenter
from ctmr_core.learning.segmentation.scans import LabelledVolume
from ctmr_core.report.figures import STYLE

#: Plane -> the axis that is cut, and the axes that run across and upwards.
_PLANES = {"axial": (2, (0, 1)), "coronal": (1, (0, 2)), "sagittal": (0, (1, 2))}


def draw_scan(segmenter: TrainedSegmenter, volume: LabelledVolume, path: Path) -> None:
    """Scan, its labels, and what was found, in the planes through the middle of the labels."""
    (name, voxels), *_ = volume.images
    found = segmenter.segment([voxels], volume.spacing, [name])
    _draw(
        voxels,
        volume.spacing,
        {"its labels": volume.labels, "found": found},
        segmenter.classes,
        _middle(volume.labels > 0),
        _window(segmenter, name, voxels),
        path,
    )


def draw_unlabelled(segmenter: TrainedSegmenter, scan: Path, sequence: str, path: Path) -> None:
    """A scan no one labelled, and what was found in it."""
    image = nibabel.as_closest_canonical(nibabel.load(scan))
    voxels = np.asarray(image.dataobj, np.float32)
    spacing = tuple(float(mm) for mm in image.header.get_zooms()[:3])
    found = segmenter.segment([voxels], spacing, [sequence])
    window = _window(segmenter, sequence, voxels)
    _draw(voxels, spacing, {"found": found}, segmenter.classes, _middle(found > 0), window, path)


def _box(mask: np.ndarray) -> tuple[slice, ...]:
    """The box around a mask; the whole volume, if it is empty."""
    if not mask.any():
        return tuple(slice(0, n) for n in mask.shape)
    sides = [np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis))) for axis in range(3)]
    return tuple(slice(int(side[0]), int(side[-1]) + 1) for side in sides)


def _middle(mask: np.ndarray) -> list[int]:
    return [(side.start + side.stop) // 2 for side in _box(mask)]


def _window(segmenter: TrainedSegmenter, name: str, voxels: np.ndarray) -> tuple[float, float]:
    if name.startswith("ct"):
        return segmenter.config.intensity.ct_window
    return 0.0, float(np.percentile(voxels[voxels > 0], 99.5))


def _draw(
    voxels: np.ndarray,
    spacing: Sequence[float],
    labels: Mapping[str, np.ndarray],
    classes: Sequence[str],
    where: Sequence[int],
    window: tuple[float, float],
    path: Path,
) -> None:
    box = _box(voxels > window[0] + 0.05 * (window[1] - window[0]))
    where = [index - side.start for index, side in zip(where, box, strict=True)]
    voxels, labels = voxels[box], {name: numbers[box] for name, numbers in labels.items()}
    columns: dict[str, np.ndarray | None] = {"scan": None, **labels}
    heights = [voxels.shape[up] * spacing[up] for _, (_, up) in _PLANES.values()]
    width = max(voxels.shape[right] * spacing[right] for _, (right, _) in _PLANES.values())
    scale = 2.9 / width  # inches per mm
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(2.9 * len(columns) + 1.5, sum(heights) * scale + 0.3), layout="constrained")
        grid = figure.subplots(len(_PLANES), len(columns), height_ratios=heights, squeeze=False)
        for axes, title in zip(grid[0], columns, strict=True):
            axes.set_title(title, fontsize=9)
        for row, (cut, (right, up)) in zip(grid, _PLANES.values(), strict=True):
            for axes, numbers in zip(row, columns.values(), strict=True):
                plane = _plane(voxels, cut, where[cut])
                shown = {"aspect": spacing[up] / spacing[right], "interpolation": "nearest"}
                axes.imshow(plane, cmap="gray", vmin=window[0], vmax=window[1], **shown)
                if numbers is not None:
                    axes.imshow(_painted(_plane(numbers, cut, where[cut])), **shown)
                axes.set_axis_off()
        seen = np.unique(np.concatenate([np.unique(numbers) for numbers in labels.values()]))
        keys = [Patch(color=class_colours()[number], label=classes[number]) for number in seen[seen > 0]]
        figure.legend(handles=keys, loc="outside right center", fontsize=7, frameon=False)
        figure.savefig(path, dpi=100)


def _plane(volume: np.ndarray, cut: int, index: int) -> np.ndarray:
    """Rows from the top, columns from the left; left is the patient's right, in sagittal planes the front."""
    return np.take(volume, index, axis=cut).T[::-1, ::-1]


def _painted(numbers: np.ndarray) -> np.ndarray:
    """float32 [rows, columns, 4]: the classes in their colours, half transparent, nothing elsewhere."""
    return np.dstack([class_colours()[numbers], np.where(numbers > 0, 0.5, 0.0)]).astype(np.float32)
