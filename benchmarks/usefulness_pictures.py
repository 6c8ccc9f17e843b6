"""Real scans in three planes, with their labels and with what a network of ``usefulness.py`` found in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from scipy import ndimage

from ctmr_core.anatomy.templates.reading import read_scan
from ctmr_core.learning.segmentation.pictures import class_colours
from ctmr_core.learning.segmentation.predict import TrainedSegmenter
from ctmr_core.learning.segmentation.scans import LabelledVolume
from ctmr_core.report.figures import STYLE
from ctmr_core.report.slices import PLANES, cut, pixel_size, window_of

_COLUMN = 2.9  # inches


def draw_scan(segmenter: TrainedSegmenter, volume: LabelledVolume, path: Path) -> None:
    """Scan, its labels, and what was found."""
    (name, voxels), *_ = volume.images
    found = segmenter.segment([voxels], volume.spacing, [name])
    _draw(name, voxels, volume.spacing, {"its labels": volume.labels, "found": found}, segmenter.classes, path)


def draw_unlabelled(segmenter: TrainedSegmenter, file: Path, sequence: str, path: Path) -> None:
    """A scan no one labelled, and what was found in it."""
    scan = read_scan(file)
    found = segmenter.segment([scan.voxels], scan.spacing, [sequence])
    _draw(sequence, scan.voxels, scan.spacing, {"found": found}, segmenter.classes, path)


def _draw(
    sequence: str,
    voxels: np.ndarray,
    spacing: tuple[float, float, float],
    labels: Mapping[str, np.ndarray],
    classes: Sequence[str],
    path: Path,
) -> None:
    """The planes through the middle of the first label map, without the air around the scan."""
    window = window_of(sequence, voxels)
    box = _box(window.apply(voxels) > 0)
    voxels, labels = voxels[box], {title: numbers[box] for title, numbers in labels.items()}
    middle = [(side.start + side.stop) // 2 for side in _box(next(iter(labels.values())) > 0)]
    where = dict(zip(("sagittal", "coronal", "axial"), middle, strict=True))
    with mpl.rc_context(STYLE):
        pictures = {plane: cut(voxels, plane, where[plane]) for plane in PLANES}
        sizes = {plane: np.multiply(picture.shape, pixel_size(plane, spacing)) for plane, picture in pictures.items()}
        heights = [height for height, _ in sizes.values()]
        inches = _COLUMN * sum(heights) / max(width for _, width in sizes.values())
        figure = Figure(figsize=(_COLUMN * (1 + len(labels)) + 1.5, inches + 0.3), layout="constrained")
        grid = figure.subplots(len(PLANES), 1 + len(labels), height_ratios=heights, squeeze=False)
        for row, plane in zip(grid, PLANES, strict=True):
            rows_mm, columns_mm = pixel_size(plane, spacing)
            for axes, numbers in zip(row, (None, *labels.values()), strict=True):
                axes.imshow(window.apply(pictures[plane]), cmap="gray", vmin=0, vmax=255, aspect=rows_mm / columns_mm)
                if numbers is not None:
                    axes.imshow(_painted(cut(numbers, plane, where[plane])), aspect=rows_mm / columns_mm)
                axes.set_axis_off()
        for axes, title in zip(grid[0], ("scan", *labels), strict=True):
            axes.set_title(title, fontsize=9)
        seen = [number for number in np.unique(np.stack(list(labels.values()))) if number]
        keys = [Patch(color=class_colours()[number], label=classes[number]) for number in seen]
        figure.legend(handles=keys, loc="outside right center", fontsize=7, frameon=False)
        figure.savefig(path, dpi=100)


def _box(mask: np.ndarray) -> tuple[slice, ...]:
    """The box around a mask; the whole volume, if it is empty."""
    (box,) = ndimage.find_objects(mask.astype(np.uint8), max_label=1)
    return box or tuple(slice(0, n) for n in mask.shape)


def _painted(numbers: np.ndarray) -> np.ndarray:
    """float32 [rows, columns, 4]: the classes in their colours, half transparent, nothing elsewhere."""
    return np.dstack([class_colours()[numbers], np.where(numbers > 0, 0.5, 0.0)]).astype(np.float32)
