"""The one spacing of a training: a network learns the size of things in voxels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import pyarrow.compute as pc
import pyarrow.dataset as pads

from ctmr_core.errors import LearningError
from ctmr_core.store.dataset import Dataset

Spacing = tuple[float, float, float]
_SHOWN = 8


def spacing_filter(dataset: Dataset, splits: Sequence[str], spacing: Spacing, tolerance: float) -> pads.Expression:
    """Cases whose spacing is ``spacing`` within ``tolerance`` (a fraction) along every axis.

    ``LearningError`` that lists what the dataset holds where there is none.
    """
    near = None
    for axis, mm in enumerate(spacing):
        value = pc.list_element(pads.field("spacing"), axis)
        here = (value >= mm * (1 - tolerance) - 1e-6) & (value <= mm * (1 + tolerance) + 1e-6)
        near = here if near is None else near & here
    wanted = pads.field("split").isin(list(splits))
    if not dataset.catalog.count_rows(filter=near & wanted):
        table = dataset.catalog.to_table(columns=["spacing"], filter=wanted)
        found = [(x, y, z) for x, y, z in table["spacing"].to_pylist()]
        raise LearningError(
            "no case has the spacing of the training",
            where=dataset.uri,
            found=_counted(found) or f"no case in split {' or '.join(splits)}",
            allowed=f"{_text(spacing)} mm, within {tolerance:.0%}",
            fix="set `spacing` to one that is there, or widen `spacing_tolerance`",
        )
    return near


def one_spacing(found: Mapping[str, Sequence[Spacing]], tolerance: float) -> Spacing:
    """The spacing nearly all share: the most frequent one, when all others are within ``tolerance`` of it."""
    everything = [spacing for several in found.values() for spacing in several]
    if not everything:
        raise LearningError("the training has no spacing", where="field spacing", fix="set `spacing`: scans are resampled to it")
    common = Counter(everything).most_common(1)[0][0]
    others = [one for one in everything if any(abs(mm / to - 1) > tolerance for mm, to in zip(one, common, strict=True))]
    if others:
        raise LearningError(
            "the cases have several spacings, and a network learns the size of things in voxels",
            where="field spacing",
            found=_counted(everything),
            fix="set `spacing` to one of them, or widen `spacing_tolerance`",
        )
    return common


def _counted(found: Sequence[Spacing]) -> str:
    counts = Counter(found).most_common()
    more = f", and {len(counts) - _SHOWN} more" if len(counts) > _SHOWN else ""
    return ", ".join(f"{_text(spacing)} mm: {cases} cases" for spacing, cases in counts[:_SHOWN]) + more


def _text(spacing: Spacing) -> str:
    return "x".join(f"{mm:g}" for mm in spacing)
