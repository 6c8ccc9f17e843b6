"""Montages: many cases on one picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ctmr_core.anatomy.vocabulary import Vocabulary
from ctmr_core.report.slices import PLANES, cut, overlay, pixel_size, to_picture, window_of
from ctmr_core.store import Dataset, Volume

GAP = 6
CAPTION = 16
BACKGROUND = (12, 12, 14)
UNLABELLED = {"maisi": frozenset({200}), "brain": frozenset({507, 511, 540, 541})}


def planes_of(volume: Volume, sequence: str, height: int, *, with_labels: bool) -> list[Image.Image]:
    """Axial, coronal and sagittal pictures through the middle of what is labelled (lesions first)."""
    image, labels = np.asarray(volume.images[sequence]), np.asarray(volume.labels)
    vocabulary = volume.vocabulary
    window = window_of(sequence, image, vocabulary.name)
    pictures = []
    for plane, index in zip(PLANES, _point_of_interest(labels, vocabulary), strict=True):
        pixels = window.apply(cut(image, plane, index))
        if with_labels:
            pixels = overlay(pixels, cut(labels, plane, index), vocabulary, UNLABELLED[vocabulary.name])
        else:
            pixels = np.repeat(pixels[..., None], 3, axis=2)
        pictures.append(to_picture(pixels, pixel_size(plane, volume.spacing), height))
    return pictures


def _point_of_interest(labels: np.ndarray, vocabulary: Vocabulary) -> tuple[int, int, int]:
    """(z, y, x): the slice of each plane, through the largest lesion if there is one, else the middle of the field of view."""
    lesions = np.intersect1d(labels, vocabulary.ids("lesion"))
    x, y, z = (n // 2 for n in labels.shape)
    if lesions.size:
        inside = np.argwhere(np.isin(labels, lesions))
        x, y, z = (int(v) for v in inside[np.argmin(((inside - inside.mean(axis=0)) ** 2).sum(axis=1))])
    return z, y, x


def row_of(pictures: Sequence[Image.Image], caption: str = "") -> Image.Image:
    """Pictures side by side with a caption above."""
    height = max(picture.height for picture in pictures)
    width = sum(picture.width for picture in pictures) + GAP * (len(pictures) - 1)
    top = CAPTION if caption else 0
    row = Image.new("RGB", (width, height + top), BACKGROUND)
    if caption:
        ImageDraw.Draw(row).text((2, 1), caption, fill=(210, 210, 210), font=ImageFont.load_default(12))
    left = 0
    for picture in pictures:
        row.paste(picture, (left, top))
        left += picture.width + GAP
    return row


def stack(rows: Sequence[Image.Image]) -> Image.Image:
    """Rows below each other."""
    width = max(row.width for row in rows)
    sheet = Image.new("RGB", (width + 2 * GAP, sum(row.height + GAP for row in rows) + GAP), BACKGROUND)
    top = GAP
    for row in rows:
        sheet.paste(row, (GAP, top))
        top += row.height + GAP
    return sheet


def write_montage(dataset: Dataset, case_ids: Sequence[str], path: Path, *, height: int = 200) -> Path:
    """A PNG with one row per case: its first sequence in three planes, with labels, then the other sequences axially."""
    rows = []
    for case_id in case_ids:
        volume = dataset[case_id]
        first, *others = volume.sequences
        pictures = planes_of(volume, first, height, with_labels=False)
        pictures += [planes_of(volume, first, height, with_labels=True)[0]]
        pictures += [planes_of(volume, sequence, height, with_labels=False)[0] for sequence in others]
        rows.append(row_of(pictures, f"{case_id}   {', '.join(volume.sequences)}"))
    path.parent.mkdir(parents=True, exist_ok=True)
    stack(rows).save(path, optimize=True)
    return path
