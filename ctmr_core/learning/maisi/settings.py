"""Configurations of ``ctmr train latents | autoencoder | diffusion | controlnet``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from ctmr_core.cases.case import Split
from ctmr_core.cases.distributions import Strict
from ctmr_core.learning.training import OptimizerSettings, ScheduleSettings, TrainingSettings
from ctmr_core.learning.training.settings import Count, Many, Positive

VariantName = Literal["rflow-ct", "ddpm-ct", "rflow-mr", "rflow-mr-brain"]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
ByteId = Annotated[int, Field(ge=0, le=255)]
Triple = tuple[Count, Count, Count]


class Images(Strict):
    """Which images: a dataset of the factory, or NVIDIA's JSON list of NIfTI files (``{"training": [{"image", "modality"}]}``).

    dataset: path or URI; snapshot: of it. sequences: of the dataset, all unless named. splits: of the dataset. vocabulary: only
    cases labelled in it. list: JSON file; folder: what its paths are relative to, the file's own folder unless given.
    """

    dataset: str | None = None
    snapshot: str | None = None
    sequences: tuple[str, ...] | None = None
    splits: tuple[Split, ...] = ("train", "val")
    vocabulary: Literal["maisi", "brain"] | None = None
    list: Path | None = None
    folder: Path | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Images:
        if (self.dataset is None) == (self.list is None):
            raise ValueError("images come either from a dataset or from a list; allowed: dataset or list")
        return self


class Base(Strict):
    """Networks to start from. variant: whose architecture. models: folder with its weights, the models folder unless given.

    network_config: JSON of networks of another size (``network_<variant>.json`` of the folder unless given). mode: ``fixed``, or
    ``compat`` for computations as in NVIDIA's scripts.
    """

    variant: VariantName
    models: Path | None = None
    network_config: Path | None = None
    mode: Literal["fixed", "compat"] = "fixed"

    @property
    def compat(self) -> bool:
        return self.mode == "compat"


class EncodingWindow(Strict):
    """What the encoder works on at a time, in latent voxels, and by how much windows overlap."""

    window: Triple
    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.4


class LatentsConfig(Base):
    """Latents of images.

    labels: keep the label maps, on the grid of the encoded images, for the ControlNet. label_ids: other ids for
    labels there, 0..255, which is what its 8-bit code can hold. multiple: image sizes become the nearest multiple of this.
    folds: of lists that name none and of datasets without a ``val`` split. window: None chooses by the free memory. seed: of
    the draws of ``compat``.
    """

    images: Images
    labels: bool = False
    label_ids: dict[Annotated[int, Field(ge=0, le=65535)], ByteId] = Field(default_factory=dict)
    multiple: Annotated[int, Field(ge=32, multiple_of=32)] = 128
    folds: Annotated[int, Field(ge=2)] = 5
    window: EncodingWindow | None = None
    device: Annotated[str, Field(pattern=r"^(cpu|cuda(:\d+)?)$")] = "cpu"
    seed: Many = 0


class Stage(Strict):
    """``factor`` of the learning rate until step ``until``."""

    until: Count
    factor: Positive


class StagedSchedule(Strict):
    """A learning rate that is lower for the first steps, stage by stage, and whole after the last."""

    name: Literal["staged"] = "staged"
    stages: tuple[Stage, ...]

    def factor(self, step: int, steps: int) -> float:
        """What the learning rate is multiplied with in step ``step`` (from 0)."""
        del steps
        return next((stage.factor for stage in self.stages if step < stage.until), 1.0)


_POLYNOMIAL = ScheduleSettings(name="polynomial", power=2.0, final=0.0)


class DiffusionTraining(TrainingSettings):
    """Adam, 1e-5 falling with the square of what is left: as NVIDIA trains the diffusion U-Net."""

    optimizer: OptimizerSettings = OptimizerSettings(name="adam", learning_rate=1e-5, weight_decay=0.0)
    schedule: ScheduleSettings = _POLYNOMIAL
    clip_norm: Positive | None = None


class ControlNetTraining(DiffusionTraining):
    """AdamW with weight decay 0.01, the same schedule, one item a step: as NVIDIA trains the ControlNet."""

    optimizer: OptimizerSettings = OptimizerSettings(name="adamw", learning_rate=1e-5, weight_decay=0.01)
    batch_size: Count = 1


class AutoencoderTraining(TrainingSettings):
    """Adam, 1e-4 for both networks, one patch a step: as NVIDIA trains the autoencoder.

    NVIDIA's warm-up is a hundredth of the rate for 10 epochs and a tenth for 10 more: ``schedule: {name: staged, stages:
    [{until: N, factor: 0.01}, {until: 2N, factor: 0.1}]}``, with N the steps of 10 epochs.
    """

    optimizer: OptimizerSettings = OptimizerSettings(name="adam", learning_rate=1e-4, weight_decay=0.0)
    schedule: StagedSchedule | ScheduleSettings = ScheduleSettings(name="constant")  # type: ignore[assignment]
    batch_size: Count = 1
    clip_norm: Positive | None = None


class _Trained(Base):
    """A training.

    start: ``released`` weights are fine-tuned, ``scratch`` begins with random ones. validation_fold: items of this fold are held
    out and choose the best checkpoint; None trains on all and keeps the last.
    """

    start: Literal["released", "scratch"] = "released"
    validation_fold: int | None = 0
    seed: Many = 0


class DiffusionConfig(_Trained):
    """Training of the diffusion U-Net on latents.

    latents: folders of ``ctmr train latents``, or JSON lists of NVIDIA's. scale_factor: of the latents, ``keep`` takes the
    released one, ``measure`` 1 / standard deviation of ``scale_items`` latents. label_dropout: share of modality codes that
    lose detail, see ``augmented_codes``. validation_times: noise levels tried on every held-out latent.
    """

    latents: tuple[Path, ...]
    scale_factor: Literal["keep", "measure"] | Positive = "keep"
    scale_items: Count = 64
    label_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    validation_times: Count = 4
    validation_items: Count = 64
    training: DiffusionTraining = DiffusionTraining()


class ContrastSettings(Strict):
    """The region contrastive loss: images with and without tumours differ where the tumours are, and nowhere else.

    weight: of the loss, 0 switches it off; later_weight from step ``later_from`` on. delta: bound of the difference asked for.
    background: what the prediction without tumours is compared with outside of them, the true ``target`` (NVIDIA's code) or the
    ``prediction`` with tumours (the paper, arXiv 2508.05772).
    """

    weight: Weight = 0.01
    delta: Positive = 2.0
    later_from: Count | None = None
    later_weight: Weight = 0.001
    background: Literal["target", "prediction"] = "target"

    def at(self, step: int) -> float:
        """The weight in step ``step`` (from 0)."""
        return self.later_weight if self.later_from is not None and step >= self.later_from else self.weight


class ControlNetConfig(_Trained):
    """Training of the ControlNet on latents with label maps, the diffusion U-Net frozen.

    start: ``released`` continues NVIDIA's ControlNet, ``scratch`` copies the diffusion U-Net's encoder. roi_labels, roi_weight:
    labels whose voxels count more in the loss.
    """

    latents: tuple[Path, ...]
    roi_labels: tuple[ByteId, ...] = (23,)
    roi_weight: Weight = 100.0
    contrast: ContrastSettings = ContrastSettings()
    validation_times: Count = 4
    validation_items: Count = 64
    training: ControlNetTraining = ControlNetTraining()


class AutoencoderLoss(Strict):
    """Weights beside 1 for the reconstruction. kl: sum over a latent. perceptual: needs ``pip install lpips`` and its weights."""

    reconstruction: Literal["l1", "l2"] = "l1"
    kl: Weight = 1e-7
    perceptual: Weight = 0.3
    adversarial: Weight = 0.1


class AutoencoderConfig(_Trained):
    """Training of the image autoencoder on patches.

    patch: voxels. spacing: mm every image is brought to; None keeps its own. random_zoom: zoom and rotate at random as well.
    validation_window: voxels reconstructed at a time.
    """

    images: Images
    patch: Triple = (64, 64, 64)
    spacing: tuple[Positive, Positive, Positive] | None = None
    random_zoom: bool = False
    loss: AutoencoderLoss = AutoencoderLoss()
    discriminator_channels: Count = 32
    folds: Annotated[int, Field(ge=2)] = 5
    validation_window: Triple = (96, 96, 64)
    validation_items: Count = 8
    training: AutoencoderTraining = AutoencoderTraining()
