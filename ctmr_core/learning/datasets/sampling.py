"""Which case and which voxel a patch is centred on, drawn from the catalog's tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ctmr_core.errors import LearningError
from ctmr_core.learning.datasets.case_table import CaseTable


@dataclass(frozen=True)
class Centre:
    """Where to cut: case number, voxel index [x, y, z], and the training id it was chosen for (0: for none)."""

    case: int
    voxel: tuple[float, float, float]
    number: int


class Centres:
    """Draws patch centres.

    foreground: share of patches centred on a labelled voxel; of those every class gets its share of ``weights`` (training id ->
    weight, default equal; classes no case has get none), and within a class every label of every case the same. Other patches
    are anywhere in the box around the labels of any case. jitter: voxels a centre is moved along [x, y, z] at most, so that the
    few voxels the catalog knows of a label don't always come to lie in the middle.
    """

    def __init__(
        self, table: CaseTable, foreground: float, weights: Mapping[int, float] | None, jitter: tuple[int, int, int]
    ) -> None:
        if not 0 <= foreground <= 1:
            raise LearningError("the share of foreground patches is a fraction", found=foreground, allowed="0..1")
        self._table = table
        self._foreground = foreground
        self._jitter = np.asarray(jitter, np.float64)
        present = [int(number) for number in np.unique(table.entry_class.numpy())]
        wanted = {number: 1.0 if weights is None else float(weights.get(number, 0.0)) for number in present}
        if any(weight < 0 or not np.isfinite(weight) for weight in wanted.values()):
            raise LearningError("the weight of a class is a number of 0 or more", found=dict(weights or {}))
        self.numbers = [number for number in present if wanted[number] > 0]
        if foreground and not self.numbers:
            raise LearningError(
                "no case has a voxel of these classes",
                found=f"{len(table)} cases",
                fix="check labels, class weights, min_voxels and the filters, or set foreground=0",
            )
        total = sum(wanted[number] for number in self.numbers)
        self._ends = np.cumsum([wanted[number] / total for number in self.numbers]) if self.numbers else np.zeros(0)
        self._entries = [table.entries_of(number) for number in self.numbers]

    def draw(self, rng: np.random.Generator) -> Centre:
        """One centre."""
        if rng.random() >= self._foreground:
            return self._anywhere(rng)
        place = min(int(np.searchsorted(self._ends, rng.random(), "right")), len(self.numbers) - 1)
        first, last = self._entries[place]
        entry = int(rng.integers(first, last))
        samples = self._table.samples_of(entry)
        voxel = samples[int(rng.integers(len(samples)))] + np.rint(rng.uniform(-1, 1, 3) * self._jitter)
        return Centre(int(self._table.entry_case[entry]), _triple(voxel), self.numbers[place])

    def _anywhere(self, rng: np.random.Generator) -> Centre:
        case = int(rng.integers(len(self._table)))
        box = self._table.bodies[case].numpy()
        return Centre(case, _triple(np.floor(rng.uniform(box[:3], box[3:]))), 0)


def _triple(voxel: np.ndarray) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in voxel)
    return (x, y, z)
