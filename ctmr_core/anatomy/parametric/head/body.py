"""A parametric head: one adult drawn from a seed, labelled on any grid."""

from __future__ import annotations

from functools import cached_property

from ctmr_core.anatomy.grid import Grid
from ctmr_core.anatomy.label_map import LabelMap
from ctmr_core.anatomy.parametric.base import Streams
from ctmr_core.anatomy.parametric.head.canvas import Canvas
from ctmr_core.anatomy.parametric.head.cerebrum import BOX, Folding, core, fold, pial_depth
from ctmr_core.anatomy.parametric.head.cranium import Layers, make_layers, paint_layers
from ctmr_core.anatomy.parametric.head.deep import paint_deep
from ctmr_core.anatomy.parametric.head.face import paint_face
from ctmr_core.anatomy.parametric.head.landmarks import LANDMARKS
from ctmr_core.anatomy.parametric.head.person import Person
from ctmr_core.anatomy.parametric.head.posterior import paint_posterior
from ctmr_core.anatomy.parametric.head.vessels import paint_partitions, paint_vessels
from ctmr_core.anatomy.vocabulary import load_vocabulary
from ctmr_core.errors import AnatomyError


class ParametricHead:
    """One adult head. Everything that makes the person is drawn at construction; ``label_map`` only evaluates."""

    def __init__(self, streams: Streams) -> None:
        self.person = Person(streams)

    @cached_property
    def _folding(self) -> Folding:
        return fold(self.person)

    @cached_property
    def _layers(self) -> Layers:
        return make_layers(self.person)

    def center_mm(self, center: str) -> tuple[float, float, float]:
        """RAS+ mm of ``""`` or ``"head"`` (the middle of the brain) or of a label of the ``brain`` vocabulary by name."""
        if center in ("", "head"):
            return self.person.to_room((0.0, 8.0, -5.0))
        label = load_vocabulary("brain").by_name.get(center)
        if label is None or label.id not in LANDMARKS:
            present = [entry.name for entry in load_vocabulary("brain") if entry.id in LANDMARKS]
            raise AnatomyError("the parametric head has no such region or label", found=center, allowed=["head", *present])
        return self.person.to_room(LANDMARKS[label.id])

    def label_map(self, grid: Grid) -> LabelMap:
        """Labels (``brain`` vocabulary, uint16) and tissues (uint8) of this person on ``grid``, both [x, y, z]."""
        canvas = Canvas(grid, self.person)
        paint_layers(canvas, self._layers, self.person)
        paint_face(canvas, self.person)
        self._paint_cerebrum(canvas)
        paint_posterior(canvas, self.person)
        paint_partitions(canvas, self._layers)
        paint_deep(canvas, self.person)
        paint_vessels(canvas, self.person)
        return LabelMap(canvas.voxels, grid.affine, canvas.vocabulary, tissues=canvas.tissues)

    def _paint_cerebrum(self, canvas: Canvas) -> None:
        found = canvas.points(*BOX)
        if found is None:
            return
        window, points = found
        depth, cortex = pial_depth(self._folding, window)
        middle = core(points)
        free = canvas.covers(window, (24, 543))
        inside = (depth > 0) & free
        # the joined middle has no cortex; its surface is white matter, painted over by the deep structures
        grey = inside & (depth < cortex) & (middle > 0.5)
        white = inside & ~grey | (middle < 0) & free & (depth > -1)
        right = points[0] >= 0
        for side, grey_label, white_label in ((~right, 3, 2), (right, 42, 41)):
            canvas.fill(window, grey & side, grey_label)
            canvas.fill(window, white & side, white_label)


def parametric_head(streams: Streams) -> ParametricHead:
    """The adult head that ``streams`` draws; ``streams(name)`` must return a fresh generator of the named stream."""
    return ParametricHead(streams)
