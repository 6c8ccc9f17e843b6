"""Small pictures of volumes, to compare many with many: 24 x 24 x 24 cells over the box of the labels."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from scipy.fft import dctn
from scipy.linalg import hadamard

from ctmr_core.anatomy.vocabulary import Vocabulary
from ctmr_core.assessment.streaming import Loaded

CELLS = 24
#: Low frequencies kept along each axis of the cosine transform: 10^3 numbers stand for 24^3.
LOW = 10
#: Random signs that stand for a label map: the agreement of two is told to 1 / sqrt(512) = 0.04.
SIGNS = 512
_LATTICE = CELLS // 2  # cells per axis of the label code
_CENTRES = 0.5
#: Groups of labels that tell people apart: of heads the brain with its ventricles. What :data:`_AROUND` names only surrounds.
_GROUPS = {"brain": ("brain", "lesion", "fluid")}
_AROUND = ("body", "cerebrospinal fluid")


def label_box(labels: np.ndarray | None, shape: tuple[int, ...]) -> tuple[slice, slice, slice]:
    """The box of everything labelled; the whole volume when nothing is."""
    spans = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        used = np.flatnonzero(labels.any(axis=others)) if labels is not None else np.empty(0, int)
        spans.append(slice(int(used[0]), int(used[-1]) + 1) if len(used) else slice(0, shape[axis]))
    return (spans[0], spans[1], spans[2])


def image_cells(image: np.ndarray, box: tuple[slice, slice, slice], cells: int = CELLS) -> np.ndarray:
    """uint8 [cells, cells, cells]: means over equal cells of the box, stretched from smallest to largest to 0..255."""
    crop = torch.from_numpy(np.ascontiguousarray(image[box], np.float32))[None, None]
    means = torch.nn.functional.adaptive_avg_pool3d(crop, cells)[0, 0].numpy()
    low, high = float(means.min()), float(means.max())
    return np.rint((means - low) * (255 / max(high - low, 1e-6))).astype(np.uint8)


def label_cells(labels: np.ndarray, vocabulary: Vocabulary, cells: int = CELLS) -> np.ndarray:
    """uint8 [cells, cells, cells] over the box of the structures: the one at the centre of each cell, numbered from 1.

    0: background, and what surrounds the structures (the rest of the body; of heads all but the brain): two people agree in
    that always.
    """
    numbers = _numbering(vocabulary)[labels]
    box = label_box(numbers, numbers.shape)
    places = [
        (side.start + ((np.arange(cells) + _CENTRES) * (side.stop - side.start) / cells)).astype(np.intp).clip(0, side.stop - 1)
        for side in box
    ]
    return numbers[np.ix_(*places)]


@cache
def _numbering(vocabulary: Vocabulary) -> np.ndarray:
    table = np.zeros(np.iinfo(vocabulary.dtype).max + 1, np.uint8)
    for number, label in enumerate(sorted(vocabulary.by_id), 1):
        entry = vocabulary.by_id[label]
        if entry.group in _GROUPS.get(vocabulary.name, (entry.group,)) and not entry.name.endswith(_AROUND):
            table[label] = number
    return table


def unit(cells: np.ndarray) -> np.ndarray:
    """float32 [24^3], mean 0 and length 1: the dot product of two is their correlation. All 0 of a constant image."""
    flat = cells.reshape(-1).astype(np.float32)
    flat -= flat.mean()
    length = float(np.linalg.norm(flat))
    return flat / length if length > 0 else flat


def image_code(cells: np.ndarray) -> np.ndarray:
    """float32 [LOW^3 + 1]. The dot product of two is never below their correlation, and near it.

    The cosine transform keeps dot products; what its high frequencies add is at most the product of their lengths (Cauchy and
    Schwarz), and that length is the last number.
    """
    waves = dctn(unit(cells).reshape(CELLS, CELLS, CELLS), norm="ortho").astype(np.float32)
    low = waves[:LOW, :LOW, :LOW].reshape(-1)
    rest = np.sqrt(max(float((waves**2).sum()) - float((low**2).sum()), 0.0))
    return np.append(low, np.float32(rest))


def label_code(cells: np.ndarray) -> np.ndarray:
    """float32 [SIGNS + 1]: the dot product of the first SIGNS numbers of two estimates how many cells of the lattice agree.

    Every (cell, label) stands for random signs; those of two labels in one cell are orthogonal (rows of a Hadamard matrix).
    Last: labelled cells of the lattice.
    """
    lattice = cells[1::2, 1::2, 1::2].reshape(-1)
    used = np.flatnonzero(lattice)
    order = used[np.argsort(lattice[used], kind="stable")]
    code = np.zeros(SIGNS + 1, np.float32)
    code[-1] = len(used)
    if len(used):
        names, starts = np.unique(lattice[order], return_index=True)
        sums = np.add.reduceat(_cell_signs()[order], starts, axis=0, dtype=np.float32)
        code[:-1] = (sums * _label_signs()[names]).sum(axis=0) / np.sqrt(SIGNS)
    return code


@cache
def _cell_signs() -> np.ndarray:
    rng = np.random.Generator(np.random.Philox(key=24))
    return (2 * rng.integers(0, 2, (_LATTICE**3, SIGNS), np.int8) - 1).astype(np.int8)


@cache
def _label_signs() -> np.ndarray:
    return np.asarray(hadamard(SIGNS), np.float32)


def agreement(a: np.ndarray, b: np.ndarray) -> float:
    """Share of the cells labelled in either of two maps in which both have the same label."""
    either = np.count_nonzero(a | b)
    return float(np.count_nonzero((a == b) & (a != 0)) / either) if either else 0.0


def thumbnails(volume: Loaded) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    """Cells of every image, and of the label map (None where nothing is labelled)."""
    images = {}
    if volume.images:
        box = label_box(volume.labels, next(iter(volume.images.values())).shape)
        images = {sequence: image_cells(image, box) for sequence, image in volume.images.items()}
    if volume.labels is None or volume.vocabulary is None:
        return images, None
    cells = label_cells(volume.labels, volume.vocabulary)
    return images, cells if cells.any() else None
