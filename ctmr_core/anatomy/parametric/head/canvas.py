"""The grid a head is painted on: shapes are evaluated only in the box of the grid where they can be."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ctmr_core.anatomy.grid import Grid, Triple
from ctmr_core.anatomy.parametric.head.lattice import Window
from ctmr_core.anatomy.parametric.head.person import Person
from ctmr_core.anatomy.parametric.head.primitives import Points
from ctmr_core.anatomy.vocabulary import load_vocabulary

#: canonical points -> boolean mask, or signed distance in mm (negative inside).
Shape = Callable[[Points], np.ndarray]


class Canvas:
    """Voxels and tissues of one grid while a person is painted on it; later paint covers earlier paint."""

    def __init__(self, grid: Grid, person: Person) -> None:
        self.grid = grid
        self.person = person
        self.vocabulary = load_vocabulary("brain")
        self.voxels = np.zeros(grid.size, self.vocabulary.dtype)
        self.tissues = np.zeros(grid.size, np.uint8)
        self._last: tuple[tuple[Triple, Triple], Window, Points] | None = None

    def window(self, low: Triple, high: Triple) -> Window | None:
        """The voxels that the canonical box [low, high] (mm) may reach."""
        return Window.of(self.grid, *self.person.room_box(low, high))

    def points(self, low: Triple, high: Triple) -> tuple[Window, Points] | None:
        """Window and canonical coordinates of a canonical box; the last box is remembered."""
        if self._last and self._last[0] == (low, high):
            return self._last[1], self._last[2]
        window = self.window(low, high)
        if window is None:
            return None
        points = self.person.canonical(window)
        self._last = ((low, high), window, points)
        return window, points

    def fill(self, window: Window, mask: np.ndarray, label: int, tissue: int | None = None) -> None:
        """Give the masked voxels of ``window`` a label, and the tissue of the label unless another is named."""
        self.voxels[window.slices][mask] = label
        self.tissues[window.slices][mask] = self.vocabulary.tissue_table[label] if tissue is None else tissue

    def paint(
        self,
        label: int,
        low: Triple,
        high: Triple,
        shape: Shape,
        over: Sequence[int] | None = None,
        tissue: int | None = None,
    ) -> None:
        """Paint ``shape`` inside a canonical box; ``over`` names the labels that may be covered (default: all)."""
        found = self.points(low, high)
        if found is None:
            return
        window, points = found
        mask = shape(points)
        if mask.dtype != bool:
            mask = mask < 0
        if over is not None:
            mask = mask & self.covers(window, over)
        self.fill(window, mask, label, tissue)

    def covers(self, window: Window, labels: Sequence[int]) -> np.ndarray:
        """Which voxels of ``window`` hold one of ``labels``."""
        table = np.zeros(int(self.vocabulary.tissue_table.size), bool)
        table[list(labels)] = True
        return table[self.voxels[window.slices]]


def mirrored(points: Points, side: int) -> Points:
    """Points seen from one side: +x is lateral for ``side`` +1 (right) and -1 (left)."""
    x, y, z = points
    return (x if side > 0 else -x), y, z


def side_box(low: Triple, high: Triple, side: int) -> tuple[Triple, Triple]:
    """The box of lateral coordinates [low, high] on one side."""
    if side > 0:
        return low, high
    return (-high[0], low[1], low[2]), (-low[0], high[1], high[2])
