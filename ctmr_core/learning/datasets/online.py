"""Patches of cases that are rendered while the training runs: nothing is stored."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ctmr_core.anatomy.label_map import LabelMap
from ctmr_core.anatomy.templates.library import TemplateLibrary
from ctmr_core.cases.case import Case
from ctmr_core.cases.manifest import SUFFIXES, Manifest, read_manifest
from ctmr_core.cases.planner import plan
from ctmr_core.cases.recipe import Recipe, load_recipe
from ctmr_core.engines.base import Engine, Images
from ctmr_core.engines.bodies import label_map_of
from ctmr_core.engines.registry import body_digest, engine_identity, load_engine
from ctmr_core.errors import AnatomyError, LearningError
from ctmr_core.learning.datasets.classes import Classes
from ctmr_core.learning.datasets.draws import item_rng
from ctmr_core.learning.datasets.epochs import EpochDataset, Item
from ctmr_core.learning.datasets.items import background_of, make_item
from ctmr_core.learning.datasets.patch_dataset import class_ids, classes_of, triple_of
from ctmr_core.learning.datasets.patches import Border, place_patch

_ORDER_STREAM = 2


@dataclass(frozen=True)
class _Rendered:
    label_map: LabelMap
    images: Images


class OnlineDataset(EpochDataset):
    """Item i is a patch of a case of ``cases``, rendered by the case's engine in the process that asks for the item.

    cases: a recipe or manifest, or the path of one. ``patches_per_case`` items in a row are of one case, which is rendered once:
    make it a divisor of the batch size, as batches come from different workers. Epoch e renders every case in another order and
    as attempt ``e * max_attempts`` (lesions, noise and acquisition are drawn anew; the body stays); where the lesions don't fit,
    as the next attempt. Epoch 0 shows the voxels a dataset generated from the same manifest would hold, but no checks are run.

    library: of templates, for cases that name some. splits, sequences, labels, foreground, class_weights, border, transform:
    as in ``PatchDataset``; foreground patches are centred on any voxel of the class. engine_options: to ``load_engine``.
    """

    def __init__(
        self,
        cases: Manifest | Recipe | str | os.PathLike[str],
        patch: int | Sequence[int],
        sequences: Sequence[str] = ("ct",),
        labels: Classes | Mapping[str, str | Sequence[str]] | Sequence[str] | None = None,
        *,
        patches_per_case: int = 4,
        items: int | None = None,
        seed: int = 0,
        splits: Sequence[str] | None = ("train",),
        foreground: float = 0.5,
        class_weights: Mapping[str | int, float] | None = None,
        border: Border = "shift",
        library: str | os.PathLike[str] | None = None,
        engine_options: Mapping[str, Any] | None = None,
        transform: Callable[[Item], Any] | None = None,
    ) -> None:
        self.patch = triple_of(patch)
        self.sequences = (sequences,) if isinstance(sequences, str) else tuple(sequences)
        self.classes = classes_of(labels)
        self.border: Border = border
        self.patches_per_case = patches_per_case
        self.foreground = foreground
        self._weights = class_ids(class_weights, self.classes)
        self._library_path = None if library is None else Path(library)
        self._engine_options = dict(engine_options or {})
        self.manifest = self._fitting(_manifest_of(cases, self._library()), splits)
        self._engines: dict[str, Engine] = {}
        self._rendered: OrderedDict[tuple[int, int], _Rendered] = OrderedDict()
        super().__init__(items if items is not None else len(self.manifest) * patches_per_case, seed, transform)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_engines": {}, "_rendered": OrderedDict()}

    @property
    def identity(self) -> str:
        keys = self.manifest.case_keys()
        settings = (self.sequences, self.patch, self.border, dict(self.classes.members), self.foreground, self._weights)
        return f"rendered {keys}, seed {self.seed}, {self.items} items, {self.patches_per_case} per case, {settings}"

    def case_of(self, epoch: int, item: int) -> Case:
        """The case an item is cut from."""
        return self.manifest.case(self._row(epoch, item))

    def volume_key(self, epoch: int, item: int) -> tuple[int, int]:
        """Equal for items of the same volume."""
        return epoch, self._row(epoch, item)

    def whole_image(self, epoch: int, item: int, sequence: str) -> np.ndarray:
        """The image [x, y, z] that an item is cut from, whole, as rendered."""
        row = self._row(epoch, item)
        return self._render(self.manifest.case(row), row, epoch).images[sequence]

    def begin(self, epoch: int, item: int) -> Callable[[], Item]:
        return lambda: self._cut(epoch, item)

    def _cut(self, epoch: int, item: int) -> Item:
        row = self._row(epoch, item)
        case = self.manifest.case(row)
        rendered = self._render(case, row, epoch)
        label_map = rendered.label_map
        table = self.classes.table(label_map.vocabulary.name)
        voxel, number = self._centre(label_map.voxels, table, item_rng(self.seed, epoch, item))
        patch = place_patch(voxel, self.patch, label_map.size, self.border)
        images = [(rendered.images[name][patch.inside], background_of(name)) for name in self.sequences]
        return make_item(
            [patch.padded(voxels, fill) for voxels, fill in images],
            patch.padded(label_map.voxels[patch.inside], 0),
            patch.affine(label_map.affine),
            table,
            {"case_id": case.case_id, "corner": list(patch.corner), "class_id": number},
        )

    def _row(self, epoch: int, item: int) -> int:
        place = item // self.patches_per_case % len(self.manifest)
        return int(item_rng(self.seed, epoch, 0, _ORDER_STREAM).permutation(len(self.manifest))[place])

    def _render(self, case: Case, row: int, epoch: int) -> _Rendered:
        """The whole case; the one rendered last is kept."""
        if (epoch, row) not in self._rendered:
            engine = self._engine(case.engine)
            first = epoch * case.max_attempts
            for attempt in range(first, first + case.max_attempts):
                try:
                    label_map, _ = label_map_of(case, self._library(), engine, attempt)
                    break
                except AnatomyError as error:
                    if attempt == first + case.max_attempts - 1:
                        raise error.located(f"case {case.case_id}") from error
            self._rendered.clear()
            self._rendered[epoch, row] = _Rendered(label_map, engine.render(case, label_map, attempt))
        return self._rendered[epoch, row]

    def _engine(self, name: str) -> Engine:
        if name not in self._engines:
            self._engines[name] = load_engine(name, **self._engine_options)
        return self._engines[name]

    def _centre(
        self, labels: np.ndarray, table: np.ndarray | None, rng: np.random.Generator
    ) -> tuple[tuple[float, float, float], int]:
        """Voxel index and the training id it was chosen for (0: none)."""
        if rng.random() < self.foreground:
            counts = np.bincount(labels.ravel(order="K"), minlength=0 if table is None else len(table))
            ids = np.flatnonzero(counts)
            numbers = ids if table is None else table[ids]
            present = [int(number) for number in np.unique(numbers) if number]
            weights = np.array([1.0 if self._weights is None else self._weights.get(number, 0.0) for number in present])
            if weights.sum() > 0:
                number = present[int(rng.choice(len(present), p=weights / weights.sum()))]
                chosen = np.isin(labels, ids[numbers == number])
                place = np.flatnonzero(chosen)[int(rng.integers(int(chosen.sum())))]
                x, y, z = (float(index) for index in np.unravel_index(place, labels.shape))
                return (x, y, z), number
        x, y, z = (float(rng.integers(n)) for n in labels.shape)
        return (x, y, z), 0

    def _library(self) -> TemplateLibrary | None:
        return None if self._library_path is None else TemplateLibrary.open(self._library_path)

    def _fitting(self, manifest: Manifest, splits: Sequence[str] | None) -> Manifest:
        fits = [set(self.sequences) <= set(has) for has in manifest.table["sequences"].to_pylist()]
        table = manifest.table.filter(pa.array(fits, pa.bool_()))
        if splits is not None:
            table = table.filter(pc.is_in(table["split"], value_set=pa.array(list(splits))))
        if not table.num_rows:
            raise LearningError(
                "no case fits",
                where=manifest.source or None,
                found=f"{len(manifest)} cases",
                allowed=f"with sequences {'+'.join(self.sequences)}" + (f", split {' or '.join(splits)}" if splits else ""),
            )
        return Manifest(table, manifest.source)


def _manifest_of(cases: Manifest | Recipe | str | os.PathLike[str], library: TemplateLibrary | None) -> Manifest:
    """The manifest with engines and templates filled in, as the factory does before it makes a case."""
    if not isinstance(cases, Manifest | Recipe):
        path = Path(cases)
        cases = read_manifest(path) if path.suffix in SUFFIXES else load_recipe(path)
    manifest = plan(cases, library) if isinstance(cases, Recipe) else cases
    return manifest.completed(engine_identity, None if library is None else lambda name: library.row(name).digest, body_digest)
