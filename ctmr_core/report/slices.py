"""Slices of a volume as pictures: three planes, clinical windows, labels on top.

Pictures follow radiological convention: the patient's right is on the viewer's left, anterior and superior are up,
and pixels are square in mm whatever the spacing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from ctmr_core.anatomy.sequences import is_ct
from ctmr_core.anatomy.vocabulary import Vocabulary

PLANES = ("axial", "coronal", "sagittal")
#: (level, width) in HU, as radiologists set them for the abdomen, the brain and the lung.
CT_WINDOWS = {"abdomen": (40.0, 400.0), "brain": (40.0, 80.0), "lung": (-600.0, 1500.0)}
OVERLAY_OPACITY = 0.35


@dataclass(frozen=True)
class Window:
    """The intensities shown as black and as white."""

    low: float
    high: float

    @classmethod
    def of_ct(cls, name: str = "abdomen") -> Window:
        level, width = CT_WINDOWS[name]
        return cls(level - width / 2, level + width / 2)

    @classmethod
    def of_mr(cls, image: np.ndarray) -> Window:
        """From black = 0 to white = the 98.5th percentile of what is above zero (scalp fat may saturate)."""
        positive = image[image > 0]
        high = float(np.percentile(positive, 98.5)) if positive.size else 1.0
        return cls(0.0, max(high, 1.0))

    def apply(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 grey values."""
        scaled = (pixels.astype(np.float32) - self.low) * (255.0 / (self.high - self.low))
        return np.clip(scaled, 0, 255).astype(np.uint8)


def window_of(sequence: str, image: np.ndarray, vocabulary: str = "maisi") -> Window:
    """The window a reader would choose first for this sequence; for CT of a head that of the brain."""
    if is_ct(sequence):
        return Window.of_ct("brain" if vocabulary == "brain" else "abdomen")
    return Window.of_mr(image)


def cut(volume: Any, plane: str, index: int) -> np.ndarray:
    """One slice of an [x, y, z] RAS volume as a picture array [row, column], oriented as described above."""
    if plane == "axial":
        return np.asarray(volume[:, :, index])[::-1, ::-1].T
    if plane == "coronal":
        return np.asarray(volume[:, index, :])[::-1, ::-1].T
    return np.asarray(volume[index, :, :])[::-1, ::-1].T


def pixel_size(plane: str, spacing: tuple[float, float, float]) -> tuple[float, float]:
    """mm per row and per column of the picture ``cut`` gives."""
    x, y, z = spacing
    return {"axial": (y, x), "coronal": (z, x), "sagittal": (z, y)}[plane]


def overlay(grey: np.ndarray, labels: np.ndarray, vocabulary: Vocabulary, hidden: frozenset[int] = frozenset()) -> np.ndarray:
    """RGB uint8: grey picture under half-transparent label colours with opaque outlines; ``hidden`` ids stay grey."""
    table = np.zeros((int(labels.max()) + 1, 4), np.float32)
    for label in vocabulary:
        if label.id < len(table) and label.id not in hidden:
            table[label.id] = (*label.rgb, OVERLAY_OPACITY)
    colours = table[labels]
    edges = np.zeros(labels.shape, bool)
    edges[:-1] |= labels[:-1] != labels[1:]
    edges[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    opacity = np.where(edges & (colours[..., 3] > 0), 0.9, colours[..., 3])[..., None]
    return (grey[..., None] * (1 - opacity) + colours[..., :3] * opacity).astype(np.uint8)


def to_picture(pixels: np.ndarray, mm: tuple[float, float], height: int) -> Image.Image:
    """A PIL picture of ``height`` rows with square pixels."""
    rows, columns = pixels.shape[0] * mm[0], pixels.shape[1] * mm[1]
    size = (max(1, round(height * columns / rows)), height)
    return Image.fromarray(np.ascontiguousarray(pixels)).resize(size, Image.Resampling.BICUBIC)
