"""What a configuration trains on: sources with the right spacing, scaled, augmented and mixed by share."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Protocol, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import torch

from ctmr_core.anatomy.templates.library import TemplateLibrary
from ctmr_core.errors import LearningError
from ctmr_core.learning.datasets.classes import Classes
from ctmr_core.learning.datasets.draws import item_rng
from ctmr_core.learning.datasets.epochs import EpochDataset, Item
from ctmr_core.learning.datasets.items import background_of
from ctmr_core.learning.datasets.mixed import Mixed
from ctmr_core.learning.datasets.patch_dataset import PatchDataset, class_ids
from ctmr_core.learning.segmentation.augmentation import make_augmentation
from ctmr_core.learning.segmentation.config import SegmentationConfig, SourceSettings, StripSettings
from ctmr_core.learning.segmentation.intensity import Scaling, needs_volume, scaling_of
from ctmr_core.learning.segmentation.scan_patches import ScanPatches
from ctmr_core.learning.segmentation.scans import LabelMeanings, read_volume, scans_of
from ctmr_core.learning.segmentation.spacing import Spacing, one_spacing, spacing_filter
from ctmr_core.learning.segmentation.stripping import stripped
from ctmr_core.store.dataset import Dataset

_STRIP_STREAM = 3
_NEXT_SEED = 1_000_003  # sources draw for themselves: two of the same dataset show different patches
_SCALINGS = 100_000  # volumes whose scaling a process remembers


class Volumes(Protocol):
    """A dataset of patches that can show the volume a patch is cut from."""

    def volume_key(self, epoch: int, item: int) -> Hashable: ...

    def whole_image(self, epoch: int, item: int, sequence: str) -> np.ndarray: ...


class ScaledPatches(EpochDataset):
    """The items of ``source`` as a network sees them: {"image": float32 [channels, x, y, z], "label": uint8 [1, x, y, z],
    "case_id": str}, plain tensors; stripped, scaled by their whole volume, then transformed."""

    def __init__(
        self,
        source: EpochDataset,
        sequences: tuple[str, ...],
        config: SegmentationConfig,
        transform: Callable[[Item], Any] | None,
    ) -> None:
        super().__init__(source.items, source.seed, transform)
        self.source, self.sequences = source, sequences
        self._intensity = config.intensity
        self._strip: StripSettings | None = config.augmentation.strip
        self._augmentation = config.augmentation
        self._scalings: dict[tuple[Hashable, str], Scaling] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_scalings": {}}

    @property
    def identity(self) -> str:
        settings = (self.sequences, self._intensity.model_dump_json(), self._augmentation.model_dump_json())
        return f"{self.source.identity}, {settings}"

    def begin(self, epoch: int, item: int) -> Callable[[], Item]:
        wait = self.source.begin(epoch, item)

        def finished() -> Item:
            found = wait()
            image, label = found["image"], found["label"]
            spacing = np.linalg.norm(np.asarray(image.affine)[:3, :3], axis=0)
            voxels, is_stripped = self._maybe_stripped(image.numpy(), label.numpy()[0], spacing, epoch, item)
            scaled = [
                self._scaling(epoch, item, name, voxels[channel] if is_stripped else None)(voxels[channel])
                for channel, name in enumerate(self.sequences)
            ]
            return {
                "image": torch.from_numpy(np.stack(scaled)),
                "label": torch.from_numpy(np.ascontiguousarray(label.numpy().astype(np.uint8, copy=False))),
                "case_id": image.meta["case_id"],
            }

        return finished

    def _maybe_stripped(
        self, image: np.ndarray, label: np.ndarray, spacing: np.ndarray, epoch: int, item: int
    ) -> tuple[np.ndarray, bool]:
        if self._strip is None:
            return image, False
        rng = item_rng(self.seed, epoch, item, _STRIP_STREAM)
        chosen, margin = rng.random() < self._strip.probability, rng.uniform(*self._strip.margin)
        if not chosen or not label.any():
            return image, False
        return stripped(image, label, [background_of(name) for name in self.sequences], margin, spacing.tolist()), True

    def _scaling(self, epoch: int, item: int, sequence: str, left: np.ndarray | None) -> Scaling:
        """That of the whole volume; of a stripped patch, that of what is left of it."""
        if not needs_volume(sequence) or left is not None:
            return scaling_of(sequence, left, self._intensity)
        volumes = cast("Volumes", self.source)
        key = (volumes.volume_key(epoch, item), sequence)
        if key not in self._scalings:
            if len(self._scalings) >= _SCALINGS:
                self._scalings.clear()
            self._scalings[key] = scaling_of(sequence, volumes.whole_image(epoch, item, sequence), self._intensity)
        return self._scalings[key]


def training_spacing(config: SegmentationConfig) -> Spacing:
    """mm [x, y, z] of the voxels to train on: as configured, or the one spacing of all cases of datasets and recipes."""
    if config.spacing is not None:
        return config.spacing
    found: dict[str, list[Spacing]] = {}
    for number, settings in enumerate(config.sources):
        if settings.dataset is not None:
            dataset = Dataset.open(settings.dataset, snapshot=settings.snapshot)
            table = dataset.catalog.to_table(columns=["spacing"], filter=pads.field("split").isin(list(settings.splits)))
        elif settings.recipe is not None:
            table = _manifest(settings).table.select(["spacing"])
        else:
            continue
        found[f"sources[{number}]"] = [(x, y, z) for x, y, z in table["spacing"].to_pylist()]
    return one_spacing(found, config.spacing_tolerance)


def training_patches(config: SegmentationConfig, spacing: Spacing) -> tuple[Mixed, list[dict[str, Any]]]:
    """All sources, mixed by share, and what each of them is, for the record (JSON-able)."""
    parts, records = [], []
    for number, settings in enumerate(config.sources):
        sequences = settings.sequences or config.sequences
        try:
            source, record = _source(config, settings, sequences, spacing, config.seed + _NEXT_SEED * (number + 1))
        except LearningError as error:
            located = error.located(f"sources[{number}]")
            raise located from error
        transform = make_augmentation(config.augmentation, config.class_table, sequences)
        parts.append((ScaledPatches(source, sequences, config, transform), settings.share))
        records.append({**record, "share": settings.share, "sequences": list(sequences)})
    return Mixed(parts, items=config.training.epoch, seed=config.seed), records


def _source(
    config: SegmentationConfig, settings: SourceSettings, sequences: tuple[str, ...], spacing: Spacing, seed: int
) -> tuple[EpochDataset, dict[str, Any]]:
    classes = config.class_table
    weights = cast("Mapping[str | int, float] | None", settings.class_weights)
    items = config.training.epoch
    if settings.dataset is not None:
        dataset = Dataset.open(settings.dataset, snapshot=settings.snapshot)
        patches = PatchDataset(
            dataset,
            config.patch,
            sequences,
            classes,
            items=items,
            seed=seed,
            splits=settings.splits,
            filter=spacing_filter(dataset, settings.splits, spacing, config.spacing_tolerance),
            foreground=settings.foreground,
            class_weights=weights,
        )
        snapshot = dataset.snapshot
        return patches, {
            "dataset": dataset.uri,
            "snapshot": None if snapshot is None else snapshot.name,
            "digest": None if snapshot is None else snapshot.digest,
            "cases": len(patches.table),
            "cases_digest": hashlib.sha256(patches.table.texts.numpy().tobytes()).hexdigest(),
            **_origins(dataset, settings),
        }
    if settings.recipe is not None:
        return _online(config, settings, sequences, spacing, classes, weights, seed)
    scans = scans_of(settings.scans)
    meanings = LabelMeanings(settings, classes)
    for scan in scans:
        for path in (*scan.images, scan.label):
            if not path.is_file():
                raise LearningError("there is no such file", where=str(path))
    read_volume(scans[0], sequences, meanings)  # what is wrong with one is mostly wrong with all
    patches_of_scans = ScanPatches(
        scans,
        sequences,
        meanings,
        config.patch,
        spacing,
        items=items,
        seed=seed,
        foreground=settings.foreground,
        weights=class_ids(weights, classes),
    )
    return patches_of_scans, {"scans": len(scans)}


def _origins(dataset: Dataset, settings: SourceSettings) -> dict[str, Any]:
    """licences: of templates and scans. imported: how many of the cases are scans."""
    rows = dataset.catalog.to_table(columns=["licences", "engine"], filter=pads.field("split").isin(list(settings.splits)))
    licences = pc.unique(pc.list_flatten(rows["licences"])).to_pylist()
    return {
        "licences": sorted(name for name in licences if name),
        "imported": pc.sum(pc.equal(rows["engine"], "import")).as_py() or 0,
    }


def _online(
    config: SegmentationConfig,
    settings: SourceSettings,
    sequences: tuple[str, ...],
    spacing: Spacing,
    classes: Classes,
    weights: Mapping[str | int, float] | None,
    seed: int,
) -> tuple[EpochDataset, dict[str, Any]]:
    from ctmr_core.cases.manifest import Manifest
    from ctmr_core.learning.datasets.online import OnlineDataset

    manifest = _manifest(settings)
    fits = [_is_near(one, spacing, config.spacing_tolerance) for one in manifest.table["spacing"].to_pylist()]
    if not any(fits):
        raise LearningError(
            "no case has the spacing of the training",
            where=str(settings.recipe),
            found=sorted({tuple(one) for one in manifest.table["spacing"].to_pylist()})[:8],
            allowed=f"{list(spacing)} mm, within {config.spacing_tolerance:.0%}",
            fix="set `spacing` of the configuration or of the recipe",
        )
    online = OnlineDataset(
        Manifest(manifest.table.filter(pa.array(fits, pa.bool_())), manifest.source),
        config.patch,
        sequences,
        classes,
        patches_per_case=settings.patches_per_case,
        items=config.training.epoch,
        seed=seed,
        splits=settings.splits,
        foreground=settings.foreground,
        class_weights=weights,
        library=settings.library,
    )
    return online, {"recipe": str(settings.recipe), "cases": len(online.manifest)}


def _manifest(settings: SourceSettings) -> Any:
    from ctmr_core.cases.manifest import SUFFIXES, Manifest, read_manifest
    from ctmr_core.cases.planner import plan
    from ctmr_core.cases.recipe import load_recipe

    path = cast("Any", settings.recipe)
    if path.suffix in SUFFIXES:
        manifest: Manifest = read_manifest(path)
    else:
        manifest = plan(load_recipe(path), None if settings.library is None else TemplateLibrary.open(settings.library))
    chosen = pc.is_in(manifest.table["split"], value_set=pa.array(list(settings.splits)))
    return Manifest(manifest.table.filter(chosen), manifest.source)


def _is_near(found: list[float], wanted: Spacing, tolerance: float) -> bool:
    return all(abs(mm / to - 1) <= tolerance for mm, to in zip(found, wanted, strict=True))
