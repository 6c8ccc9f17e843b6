"""The voxels being painted, and the lattices on which fields are computed before they are refined to voxels.

All lattices lie at whole multiples of their step in patient mm, wherever the grid is and however fine: the same person
is therefore the same on every grid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ctmr_core.anatomy.grid import Grid
from ctmr_core.anatomy.parametric.shapes import Axes, refine, spline, sweep
from ctmr_core.anatomy.parametric.torso.frame import Frame
from ctmr_core.anatomy.tissues import tissue_id

COARSE = 4.0
#: knots of a tube: x, y, z, radius (mm).
Line = Sequence[Sequence[float]] | np.ndarray
BODY = 200


@dataclass(frozen=True)
class Patch:
    """A field on a box of voxels. box: slices into the volume. values: float32, negative inside."""

    box: tuple[slice, slice, slice]
    values: np.ndarray


class Lattice:
    """Canonical coordinates and trunk fields on one lattice; fields are refined from the coarse one when first asked."""

    def __init__(self, canvas: Canvas, axes: Axes, parts: tuple[slice, slice, slice] | None) -> None:
        self._canvas, self.axes, self._parts = canvas, axes, parts
        self._known: dict[str, np.ndarray] = {}

    def __getitem__(self, name: str) -> np.ndarray:
        """x, y, z (canonical mm) or a trunk field by name."""
        if name not in self._known:
            coarse = self._canvas.coarse[name]
            if self._parts is not None:
                self._known[name] = coarse[self._parts]
            else:
                near = tuple(
                    slice(max(0, int((fine[0] - axis[0]) // COARSE)), int((fine[-1] - axis[0]) // COARSE) + 2)
                    for axis, fine in zip(self._canvas.coarse_axes, self.axes, strict=True)
                )
                self._known[name] = refine(coarse[near], self._canvas.coarse_part(near), self.axes)
        return self._known[name]

    def blank(self, reach: float = 8.0) -> np.ndarray:
        """An empty field to unite shapes into: ``reach`` everywhere."""
        return np.full(tuple(len(axis) for axis in self.axes), reach, np.float32)

    @property
    def xyz(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self["x"], self["y"], self["z"]


class Canvas:
    """Labels and tissues of a grid under construction; later paint covers earlier paint."""

    def __init__(self, grid: Grid, frame: Frame) -> None:
        self.grid, self.frame = grid, frame
        self.labels = np.zeros(grid.size, np.uint8)
        self.tissues = np.zeros(grid.size, np.uint8)
        self.axes: Axes = tuple(o + s * np.arange(n) for o, s, n in zip(grid.origin, grid.spacing, grid.size, strict=True))  # type: ignore[assignment]
        self.coarse_axes = self._lattice_axes([a[0] for a in self.axes], [a[-1] for a in self.axes], COARSE, 2)
        x, y, z = frame.to_canonical(self.coarse_axes)
        self.coarse: dict[str, np.ndarray] = {"x": x, "y": y, "z": z}
        self.masks: dict[str, Patch | None] = {}

    def coarse_part(self, parts: Sequence[slice]) -> Axes:
        """The coarse axes within ``parts``."""
        x, y, z = (axis[part] for axis, part in zip(self.coarse_axes, parts, strict=True))
        return x, y, z

    @staticmethod
    def _lattice_axes(low: Sequence[float], high: Sequence[float], step: float, pad: int) -> Axes:
        return tuple(  # type: ignore[return-value]
            np.arange(np.floor(a / step) - pad, np.ceil(b / step) + pad + 1) * step for a, b in zip(low, high, strict=True)
        )

    def _box(self, low: np.ndarray, high: np.ndarray) -> tuple[slice, slice, slice] | None:
        sides = []
        for axis, a, b in zip(self.axes, low, high, strict=True):
            start, stop = int(np.searchsorted(axis, a)), int(np.searchsorted(axis, b, side="right"))
            if stop <= start:
                return None
            sides.append(slice(start, stop))
        return (sides[0], sides[1], sides[2])

    def field(
        self,
        low: Sequence[float],
        high: Sequence[float],
        shape: Callable[[Lattice], np.ndarray],
        step: float = 2.0,
        margin: float = 8.0,
    ) -> Patch | None:
        """A field over the canonical box ``low`` .. ``high`` (mm); None when the grid does not reach it."""
        corners = np.array([[a, b, c] for a in (low[0], high[0]) for b in (low[1], high[1]) for c in (low[2], high[2])])
        world = self.frame.to_patient(corners)
        return self.world_field(world.min(0) - margin, world.max(0) + margin, shape, step)

    def world_field(
        self, low: np.ndarray, high: np.ndarray, shape: Callable[[Lattice], np.ndarray], step: float = 2.0
    ) -> Patch | None:
        """The same over a box in patient mm."""
        box = self._box(low, high)
        if box is None:
            return None
        fine: Axes = tuple(axis[side] for axis, side in zip(self.axes, box, strict=True))  # type: ignore[assignment]
        ends = [a[0] for a in fine], [a[-1] for a in fine]
        if step == COARSE:
            starts = [int(np.floor(a / step) - c[0] / step + 0.5) for a, c in zip(ends[0], self.coarse_axes, strict=True)]
            stops = [int(np.ceil(b / step) - c[0] / step + 0.5) + 2 for b, c in zip(ends[1], self.coarse_axes, strict=True)]
            parts = tuple(slice(a, b) for a, b in zip(starts, stops, strict=True))
            lattice_axes: Axes = tuple(c[p] for c, p in zip(self.coarse_axes, parts, strict=True))  # type: ignore[assignment]
            lattice = Lattice(self, lattice_axes, parts)  # type: ignore[arg-type]
        else:
            lattice_axes = self._lattice_axes(*ends, step, 1)
            lattice = Lattice(self, lattice_axes, None)
        return Patch(box, refine(shape(lattice).astype(np.float32, copy=False), lattice_axes, fine))

    def tube(
        self,
        points: Line,
        step: float = 2.0,
        spacing: float = 6.0,
        reach: float = 7.0,
        bulge: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> Patch | None:
        """A tube through canonical ``points`` (x, y, z, radius), smoothed; ``bulge``: radius factor by arc length mm."""
        samples, _ = spline(points, spacing)
        world = self.frame.to_patient(samples[:, :3])
        radii = samples[:, 3]
        if bulge is not None:
            arc = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(world, axis=0), axis=1))])
            radii = radii * bulge(arc)
        margin = float(radii.max()) + reach
        return self.world_field(
            world.min(0) - margin, world.max(0) + margin, lambda lattice: sweep(lattice.axes, world, radii, reach), step
        )

    def tubes(self, lines: Sequence[Line], step: float = 2.0, spacing: float = 8.0, reach: float = 4.0) -> Patch | None:
        """Several tubes as one field: a tree of vessels."""
        samples = [spline(line, spacing)[0] for line in lines]
        world = self.frame.to_patient(np.concatenate(samples)[:, :3])
        pieces = np.split(world, np.cumsum([len(s) for s in samples])[:-1])

        def shape(lattice: Lattice) -> np.ndarray:
            field = np.full(tuple(len(axis) for axis in lattice.axes), reach, np.float32)
            for piece, sample in zip(pieces, samples, strict=True):
                sweep(lattice.axes, piece, sample[:, 3], reach, out=field)
            return field

        return self.world_field(world.min(0) - reach - 5, world.max(0) + reach + 5, shape, step)

    def paint(
        self,
        patch: Patch | None,
        label: int | None,
        tissue: str,
        below: float = 0.0,
        above: float | None = None,
        only: Sequence[str] | None = None,
        only_labels: Sequence[int] | None = None,
    ) -> None:
        """Paint where above <= field < below, and (if given) where the tissue or label now there is one of ``only``."""
        if patch is None:
            return
        inside = patch.values < below
        if above is not None:
            inside &= patch.values >= above
        labels, tissues = self.labels[patch.box], self.tissues[patch.box]
        if only is not None:
            table = np.zeros(256, bool)
            table[[tissue_id(name) for name in only]] = True
            inside &= table[tissues]
        if only_labels is not None:
            table = np.zeros(256, bool)
            table[list(only_labels)] = True
            inside &= table[labels]
        if label is not None:
            labels[inside] = label
        tissues[inside] = tissue_id(tissue)
