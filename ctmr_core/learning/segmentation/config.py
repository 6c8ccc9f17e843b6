"""The configuration of a segmentation training: ``docs/training.md`` describes every field."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from ctmr_core.anatomy.sequences import MODALITY_CODES
from ctmr_core.cases.distributions import Strict
from ctmr_core.cases.problems import near
from ctmr_core.errors import LearningError
from ctmr_core.learning.datasets.classes import Classes
from ctmr_core.learning.training.config_file import load_config
from ctmr_core.learning.training.settings import Count, Fraction, Many, Positive, TrainingSettings

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
Voxels = Annotated[int, Field(strict=True, ge=8, le=1024)]
Millimetres = Annotated[float, Field(gt=0, le=20)]
Split = Literal["train", "val", "test"]
Options = dict[str, Any]
Labels = str | tuple[str, ...]


class NetworkSettings(Strict):
    """A network of MONAI by class name, and the arguments of its constructor but dimensions and channels.

    weights: file to start from. partly: take over what fits of it.
    """

    name: str = "SegResNet"
    options: Options = Field(default_factory=dict)
    weights: Path | None = None
    partly: bool = False


class LossSettings(Strict):
    """A loss of MONAI by class name, and the arguments of its constructor; softmax and one-hot coding are set by us."""

    name: str = "DiceCELoss"
    options: Options = Field(default_factory=dict)


class IntensitySettings(Strict):
    """How voxel values become what the network sees, in training and ever after.

    ct_window: HU mapped to 0 and 1; what is beyond is cut off. mr: ``percentiles`` maps two percentiles of the volume's voxels
    above 0 to 0 and 1 and cuts off what is beyond; ``zscore`` makes their mean 0 and their standard deviation 1.
    """

    ct_window: tuple[float, float] = (-200.0, 300.0)
    mr: Literal["percentiles", "zscore"] = "percentiles"
    mr_percentiles: tuple[Annotated[float, Field(ge=0, le=100)], Annotated[float, Field(ge=0, le=100)]] = (1.0, 99.0)

    @field_validator("ct_window", "mr_percentiles")
    @classmethod
    def _ascending(cls, values: tuple[float, float]) -> tuple[float, float]:
        if not values[0] < values[1]:
            raise ValueError("the lower value comes first; allowed: [low, high] with low < high")
        return values


class StripSettings(Strict):
    """Some patches lose everything but the labelled classes, as skull-stripped images have.

    probability: share of the patches with a labelled voxel. margin: mm around the classes that stay, drawn between the two.
    """

    probability: Fraction = 0.5
    margin: tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]] = (0.0, 3.0)


class TransformSettings(Strict):
    """A dictionary transform of MONAI by class name (``RandGaussianNoised``), on ``keys``, after our own."""

    name: str
    keys: tuple[Literal["image", "label"], ...] = ("image",)
    options: Options = Field(default_factory=dict)


class AugmentationSettings(Strict):
    """What is varied. preset: see ``segmentation.augmentation``. flip: axes that are flipped in half of the patches each; along x
    classes of one side become those of the other. invert: share of MR patches whose contrast is inverted."""

    preset: Literal["none", "light", "strong"] = "light"
    flip: tuple[Literal["x", "y", "z"], ...] = ()
    invert: Fraction = 0.0
    strip: StripSettings | None = None
    transforms: tuple[TransformSettings, ...] = ()


class ScanSettings(Strict):
    """One scan with its label map: NIfTI, MGZ, NRRD or MetaImage. image: one path, or one for every channel."""

    image: Path | tuple[Path, ...]
    label: Path

    @property
    def images(self) -> tuple[Path, ...]:
        return (self.image,) if isinstance(self.image, Path) else self.image

    @property
    def name(self) -> str:
        """The image's folder and name: scans of different people often have the same file name."""
        return f"{self.images[0].parent.name}/{self.images[0].name}"


class _Labelled(Strict):
    """Scans, and what their label ids mean.

    scans: pairs, or a JSON file with a list of them (``{"image": ..., "label": ...}``, paths relative to it; also below
    ``training`` or ``validation`` as MONAI writes it). mapping: as for ``ctmr templates import``. labels: class -> ids, instead
    of a mapping; classes that are not named are not scored. drop_unknown: ids that have no meaning are background.
    sequences: of the images, instead of those of the configuration, as many.
    """

    scans: Path | tuple[ScanSettings, ...] | None = None
    mapping: str | None = None
    labels: dict[str, int | tuple[int, ...]] | None = None
    drop_unknown: bool = False
    sequences: tuple[str, ...] | None = None


class SourceSettings(_Labelled):
    """Where training patches come from: exactly one of dataset, recipe and scans.

    dataset: folder or URI, or a ``snapshot`` of it; recipe: of cases that are rendered while the training runs, also a manifest.
    share: of the patches, among all sources. splits: of dataset or
    recipe. foreground, class_weights: as in ``PatchDataset``. patches_per_case, library: of a recipe.
    """

    dataset: str | None = None
    snapshot: str | None = None
    recipe: Path | None = None
    share: Positive = 1.0
    splits: tuple[Split, ...] = ("train",)
    foreground: Fraction = 0.5
    class_weights: dict[str, Annotated[float, Field(ge=0)]] | None = None
    patches_per_case: Count = 4
    library: Path | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> SourceSettings:
        _refuse_other_than_one(self, ("dataset", "recipe", "scans"))
        return self


class ValidationSettings(_Labelled):
    """Volumes the network is scored on, whole: exactly one of dataset and scans.

    name: of the table. limit: the first so many volumes.
    """

    name: Name = "validation"
    dataset: str | None = None
    snapshot: str | None = None
    splits: tuple[Split, ...] = ("val",)
    limit: Count | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> ValidationSettings:
        _refuse_other_than_one(self, ("dataset", "scans"))
        return self


class InferenceSettings(Strict):
    """MONAI's sliding window. window: voxels, default the patch. hd95: whether distances are measured as well.

    smallest_piece: pieces of a class below this share of its largest are background; 0 keeps all.
    """

    window: tuple[Voxels, Voxels, Voxels] | None = None
    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.5
    batch: Count = 1
    hd95: bool = True
    smallest_piece: Fraction = 0.0


class SegmentationConfig(Strict):
    """A segmentation training.

    classes: name -> label, labels or ``group:<group>``; a list of labels is one class each. sequences: the channels.
    spacing: mm of the voxels that are trained on; cases of datasets and recipes with another spacing (by more than
    spacing_tolerance, a fraction) are left out, scans are resampled to it. None: that of the cases, which then have one.
    patch: voxels [x, y, z]. seed: of weights, patches and augmentation.
    """

    name: Name = "segmentation"
    description: str = ""
    seed: Many = 0
    classes: tuple[str, ...] | dict[str, Labels]
    sequences: Annotated[tuple[str, ...], Field(min_length=1)] = ("ct",)
    spacing: tuple[Millimetres, Millimetres, Millimetres] | None = None
    spacing_tolerance: Fraction = 0.01
    patch: tuple[Voxels, Voxels, Voxels]
    sources: Annotated[tuple[SourceSettings, ...], Field(min_length=1)]
    validation: tuple[ValidationSettings, ...] = ()
    best_by: Name | None = None
    intensity: IntensitySettings = IntensitySettings()
    augmentation: AugmentationSettings = AugmentationSettings()
    network: NetworkSettings = NetworkSettings()
    loss: LossSettings = LossSettings()
    inference: InferenceSettings = InferenceSettings()
    training: TrainingSettings = TrainingSettings()

    @field_validator("classes")
    @classmethod
    def _classes_are_known(cls, classes: tuple[str, ...] | dict[str, Labels]) -> tuple[str, ...] | dict[str, Labels]:
        try:
            Classes(classes)
        except LearningError as error:
            allowed = f"; allowed: {error.allowed}" if error.allowed else ""
            raise ValueError(f"{error.what}: {error.found}{allowed}") from error
        return classes

    @model_validator(mode="after")
    def _parts_fit_together(self) -> SegmentationConfig:
        _refuse_unknown_sequences(self.sequences)
        for part in (*self.sources, *self.validation):
            if part.sequences is not None:
                _refuse_unknown_sequences(part.sequences)
                if len(part.sequences) != len(self.sequences):
                    raise ValueError(f"every source has as many sequences as the configuration; allowed: {len(self.sequences)}")
            if part.scans is not None and part.mapping is None and part.labels is None:
                raise ValueError("scans need a meaning of their label ids; allowed: mapping or labels")
            unknown = sorted(set(part.labels or ()) - set(self.class_table.members))
            if unknown:
                raise ValueError(f"there is no such class: {unknown[0]}; allowed: {', '.join(self.class_table.members)}")
        names = [part.name for part in self.validation]
        if len(set(names)) != len(names):
            raise ValueError("every validation set has its own name; allowed: `name:` in each")
        if self.best_by is not None and self.best_by not in names:
            raise ValueError(f"best_by is the name of a validation set; allowed: {', '.join(names) or 'none is given'}")
        if self.training.batch_size % self.training.accumulate:
            raise ValueError("a batch is divided into equal parts; allowed: batch_size a multiple of accumulate")
        return self

    @property
    def digest(self) -> str:
        """SHA-256 hex over every field."""
        return hashlib.sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()

    @property
    def class_table(self) -> Classes:
        """The classes with their training ids."""
        return Classes(self.classes)


def load_segmentation_config(path: Path | str) -> SegmentationConfig:
    """Read and check a configuration; ``LearningError`` with file, line, field, found and allowed for what is wrong in it."""
    return load_config(path, SegmentationConfig)


def _refuse_other_than_one(settings: Strict, names: tuple[str, ...]) -> None:
    given = [name for name in names if getattr(settings, name) is not None]
    if len(given) != 1:
        raise ValueError(f"exactly one of these is given, not {' and '.join(given) or 'none'}; allowed: {', '.join(names)}")


def _refuse_unknown_sequences(sequences: tuple[str, ...]) -> None:
    for name in sequences:
        if name not in MODALITY_CODES:
            meant = near(name, MODALITY_CODES)
            hint = f" (did you mean {meant}?)" if meant else ""
            raise ValueError(f"unknown sequence {name!r}{hint}; allowed: {', '.join(MODALITY_CODES)}")
