"""The contract of a parametric body: a person drawn from a seed, evaluated on any grid."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from ctmr_core.anatomy.grid import Grid
from ctmr_core.anatomy.label_map import LabelMap

#: stream name -> generator; the same name always starts at the same point of the same stream.
Streams = Callable[[str], np.random.Generator]


class ParametricBody(Protocol):
    """One person. Everything that makes the person (sex, stature, organ shapes, warp) is fixed at construction."""

    def center_mm(self, center: str) -> tuple[float, float, float]:
        """RAS+ mm of a region or label of this person ("" = middle of the body); ``AnatomyError`` if there is none."""
        ...

    def label_map(self, grid: Grid) -> LabelMap:
        """Labels and tissues of this person on ``grid``; independent of where the grid lies and how fine it is."""
        ...
