"""How much the volumes of a set differ from each other: structural similarity and label agreement over random pairs.

Lower is more diverse. Pairs are of different persons, and follow from the order of the case keys: the same set gives the same
pairs. Volumes are brought to 48^3 cells over the box of the labels, so figures compare with others of this measure only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ctmr_core.assessment.streaming import Loaded, Volumes, mapped
from ctmr_core.assessment.thumbnails import agreement, image_cells, label_box, label_cells

CELLS = 48
WINDOW = 7  # cells: a quarter of the work of the customary 11; the Gaussian of 1.5 cells spread is cut at 2 spreads
#: Weights of the three finest of the five scales (Wang, Simoncelli and Bovik 2003), made to add up to 1: 48 cells hold no more.
SCALE_WEIGHTS = tuple(weight / 0.6305 for weight in (0.0448, 0.2856, 0.3001))
_PERCENTS = (5, 50, 95)


def pairs_of(names: Sequence[str], count: int, persons: Mapping[str, str] | None = None) -> list[tuple[str, str]]:
    """Up to ``count`` pairs of different persons from names in random order: neighbours at distance 1, then 2, and so on.

    The first pairs have no volume in common, so that few of them already speak for the set.
    """
    n, found, seen = len(names), [], set()
    for step in range(1, n // 2 + 1):
        for parity in (0, 1):
            for i in range(n):
                if (i // step) % 2 != parity:
                    continue
                a, b = names[i], names[(i + step) % n]
                pair = (min(a, b), max(a, b))
                if a == b or pair in seen or (persons and persons.get(a) == persons.get(b)):
                    continue
                seen.add(pair)
                found.append((a, b))
                if len(found) >= count:
                    return found
    return found


def diversity(
    volumes: Volumes, pairs: int = 100, persons: Mapping[str, str] | None = None, *, workers: int = 2
) -> dict[str, Any]:
    """Per sequence ``pairs`` and ``ms_ssim``; under ``labels`` ``agreement`` and ``dice`` (see ``set_measures``)."""

    def compared(pair: tuple[str, str]) -> tuple[tuple[str, str], dict[str, dict[str, float]]]:
        return pair, compare(*(volumes.load(name) for name in pair))

    found: dict[str, dict[str, list[float]]] = {}
    used: dict[str, list[tuple[str, str]]] = {}
    for pair, measured in mapped(compared, pairs_of(volumes.names, pairs, persons), workers):
        for what, values in measured.items():
            used.setdefault(what, []).append(pair)
            for name, value in values.items():
                found.setdefault(what, {}).setdefault(name, []).append(value)
    return {
        what: {"pairs": len(used[what]), **{name: _spread(numbers, used[what]) for name, numbers in values.items()}}
        for what, values in sorted(found.items())
    }


def compare(a: Loaded, b: Loaded) -> dict[str, dict[str, float]]:
    """ms_ssim of every sequence both have; agreement and mean Dice of the labels in either."""
    found = {}
    for sequence in a.images.keys() & b.images.keys():
        cells = [image_cells(v.images[sequence], label_box(v.labels, v.images[sequence].shape), CELLS) for v in (a, b)]
        found[sequence] = {"ms_ssim": ms_ssim(*cells)}
    if a.labels is not None and b.labels is not None and a.vocabulary == b.vocabulary and a.vocabulary is not None:
        maps = [label_cells(v.labels, a.vocabulary, CELLS) for v in (a, b) if v.labels is not None]
        if maps[0].any() and maps[1].any():
            found["labels"] = {"agreement": agreement(*maps), "dice": mean_dice(*maps)}
    return found


def ms_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Multi-scale structural similarity (MONAI's, three scales) of two images uint8 [48, 48, 48]."""
    import torch
    from monai.metrics import MultiScaleSSIMMetric

    metric = MultiScaleSSIMMetric(spatial_dims=3, data_range=1.0, kernel_size=WINDOW, weights=SCALE_WEIGHTS)
    tensors = [torch.from_numpy(cells.astype(np.float32) / 255)[None, None] for cells in (a, b)]
    with torch.inference_mode():
        return float(torch.as_tensor(metric(*tensors)).squeeze())


def mean_dice(a: np.ndarray, b: np.ndarray) -> float:
    """Mean over all labels in either map of the Dice overlap; a label that one lacks counts 0."""
    size = int(max(a.max(), b.max())) + 1
    both = np.bincount(a[a == b].reshape(-1), minlength=size)[1:]
    sizes = np.bincount(a.reshape(-1), minlength=size)[1:] + np.bincount(b.reshape(-1), minlength=size)[1:]
    used = sizes > 0
    return float((2 * both[used] / sizes[used]).mean())


def _spread(values: list[float], pairs: list[tuple[str, str]]) -> dict[str, float]:
    """Mean with its 95 % interval, spread and percentiles. Pairs that share a volume are not independent: the standard error
    counts as many as there are disjoint pairs.
    """
    numbers = np.asarray(values)
    independent = max(min(len({name for pair in pairs for name in pair}) // 2, len(pairs)), 1)
    sd = float(numbers.std(ddof=1)) if len(numbers) > 1 else 0.0
    error = 1.96 * sd / math.sqrt(independent)
    mean = float(numbers.mean())
    percents = {f"p{percent}": float(np.percentile(numbers, percent)) for percent in _PERCENTS}
    return {"mean": mean, "low": mean - error, "high": mean + error, "sd": sd, **percents}
