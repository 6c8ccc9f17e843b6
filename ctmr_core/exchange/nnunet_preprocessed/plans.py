"""``nnUNetPlans.json``: what nnU-Net v2 preprocesses and trains by. Read from a file, or made after the method's own rules.

Rules after Isensee et al., "nnU-Net: a self-configuring method for deep learning-based biomedical image segmentation",
Nature Methods 18 (2021), online methods and supplementary note 2, and nnU-Net's documentation (``explanation_plans_files.md``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, Field, ValidationError

from ctmr_core.errors import ExchangeError

PLANS_NAME = "nnUNetPlans"
ANISOTROPIC = 3.0  # spacings this many times apart are resampled slice by slice
_TARGET_PERCENTILE = 10.0  # of the slice thickness, where slices are thick and few
_BATCH = 2
_MUCH_CROPPED = 0.75  # when less of the volumes is left, zeros around the patient would move the mean
_FEATURES, _MOST_FEATURES = 32, 320
_SMALLEST_EDGE = 4  # voxels of the smallest feature map
_CONVOLUTIONS = 2  # per stage
_RESAMPLING = "resample_data_or_seg_to_shape"

Triple = tuple[float, float, float]
Count = Annotated[int, Field(ge=1)]
Normalization = Literal["CTNormalization", "ZScoreNormalization", "NoNormalization", "RescaleTo01Normalization"]


class Intensities(BaseModel):
    """Of one channel, over the labelled voxels of the training cases."""

    mean: float
    median: float
    std: float
    min: float
    max: float
    percentile_99_5: float
    percentile_00_5: float

    @classmethod
    def of(cls, values: np.ndarray) -> Intensities:
        """Those of ``values``, 1-D."""
        low, middle, high = np.percentile(values, (0.5, 50.0, 99.5))
        wide = values.astype(np.float64)
        return cls(
            mean=float(wide.mean()),
            median=float(middle),
            std=float(wide.std()),
            min=float(values.min()),
            max=float(values.max()),
            percentile_99_5=float(high),
            percentile_00_5=float(low),
        )


class Resampling(BaseModel):
    """Orders of the splines within slices and across them; ``force_separate_z`` None: as the spacings ask for."""

    is_seg: bool
    order: Literal[0, 1, 3]
    order_z: Literal[0]
    force_separate_z: None


class Configuration(BaseModel):
    """One configuration of a plan; spacing (mm) and patch are in the order of the transposed axes."""

    data_identifier: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,100}$")]
    preprocessor_name: Literal["DefaultPreprocessor"]
    patch_size: tuple[Count, Count, Count]
    spacing: Triple
    normalization_schemes: list[Normalization]
    use_mask_for_norm: list[bool]
    resampling_fn_data: Literal["resample_data_or_seg_to_shape"]
    resampling_fn_seg: Literal["resample_data_or_seg_to_shape"]
    resampling_fn_data_kwargs: Resampling
    resampling_fn_seg_kwargs: Resampling


@dataclass(frozen=True)
class Plans:
    """The plans file as it is written, and the configuration that is preprocessed for."""

    document: Mapping[str, Any]
    configuration_name: str

    @property
    def name(self) -> str:
        """What the file is called, without ``.json``."""
        return str(self.document["plans_name"])

    @property
    def transpose(self) -> tuple[int, int, int]:
        """Which of [z, y, x] each axis of the stored arrays is."""
        first, second, third = self.document["transpose_forward"]
        return int(first), int(second), int(third)

    @cached_property
    def configuration(self) -> Configuration:
        """What is preprocessed for."""
        return Configuration.model_validate(_resolved(self.document["configurations"], self.configuration_name))

    @cached_property
    def intensities(self) -> list[Intensities]:
        """Of every channel."""
        found = self.document["foreground_intensity_properties_per_channel"]
        return [Intensities.model_validate(found[str(channel)]) for channel in range(len(found))]


def read_plans(path: Path, configuration: str, dataset_name: str, channels: int) -> Plans:
    """A plans file of nnU-Net or of another export; its dataset's name becomes ``dataset_name``.

    ``ExchangeError`` when it is for another number of channels, or plans what the exporter can't do: other preprocessors,
    resampling or normalisation than nnU-Net's own, two-dimensional configurations.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        plans = Plans({**document, "dataset_name": dataset_name}, configuration)
        found = plans.configuration
        counts = {len(plans.intensities), len(found.normalization_schemes), len(found.use_mask_for_norm)}
        if sorted(plans.transpose) != [0, 1, 2] or "/" in plans.name or plans.name.startswith("."):
            raise ValueError("transpose_forward and plans_name are not those of a plans file")
    except OSError as error:
        raise ExchangeError("can not read the plans", where=str(path), found=error.strerror) from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ExchangeError(
            f"cases can not be preprocessed after these plans: {first['msg']}",
            where=f"{path} {configuration} {place}",
            found=first.get("input"),
            fix="export in the nnunet format and let nnUNetv2_preprocess do it",
        ) from error
    except (KeyError, TypeError, ValueError) as error:
        raise ExchangeError("not the plans of nnU-Net v2", where=str(path), found=f"{type(error).__name__}: {error}") from error
    if counts != {channels}:
        raise ExchangeError(
            "the plans are for another number of channels", where=str(path), found=sorted(counts), allowed=str(channels)
        )
    return plans


def _resolved(configurations: Mapping[str, Any], name: str, seen: tuple[str, ...] = ()) -> dict[str, Any]:
    """A configuration with all it inherits."""
    if name not in configurations or name in seen:
        raise ExchangeError("the plans have no such configuration", found=name, allowed=sorted(configurations))
    own = dict(configurations[name])
    parent = own.pop("inherits_from", None)
    return {**_resolved(configurations, parent, (*seen, name)), **own} if parent else own


@dataclass(frozen=True)
class Fingerprint:
    """What plans are made of. spacings (mm) and sizes: [cases, 3], [z, y, x]. relative_size: share of a volume that is left when
    its empty border is cut off, median. intensities: of every channel."""

    spacings: np.ndarray
    sizes: np.ndarray
    relative_size: float
    intensities: list[Intensities]

    def document(self) -> dict[str, Any]:
        """``dataset_fingerprint.json``; sizes are those of whole volumes."""
        return {
            "spacings": self.spacings.tolist(),
            "shapes_after_crop": self.sizes.tolist(),
            "foreground_intensity_properties_per_channel": _by_channel(self.intensities),
            "median_relative_size_after_cropping": self.relative_size,
        }


def make_plans(fingerprint: Fingerprint, channels: Sequence[str], patch: Sequence[int] | None, dataset_name: str) -> Plans:
    """Plans with the one configuration ``3d_fullres``: median spacing, U-Net of 32 to 320 features, batches of two.

    channels: their names; "CT" chooses CT normalisation. patch: [z, y, x]; default about 128^3 voxels, shaped by the spacing.
    """
    spacing = target_spacing(fingerprint)
    order = [int(np.argmax(spacing))]
    order += [axis for axis in range(3) if axis not in order]
    shapes = np.rint(fingerprint.spacings / spacing * fingerprint.sizes).astype(int)
    median = np.median(shapes, axis=0)[order]
    wanted = _patch_like(spacing[order], median) if patch is None else np.asarray(patch)[order]
    strides, kernels = topology(wanted.tolist(), spacing[order].tolist())
    multiple = np.prod(strides, axis=0)
    size = (np.ceil(wanted / multiple) * multiple).astype(int)
    configuration = {
        "batch_size": _BATCH,
        "patch_size": size.tolist(),
        "median_image_size_in_voxels": median.tolist(),
        "spacing": spacing[order].tolist(),
        **_preprocessing(channels, fingerprint.relative_size),
        "architecture": _architecture(strides, kernels),
        "batch_dice": False,
    }
    document = {
        "dataset_name": dataset_name,
        "plans_name": PLANS_NAME,
        "original_median_spacing_after_transp": np.median(fingerprint.spacings, axis=0)[order].tolist(),
        "original_median_shape_after_transp": np.rint(np.median(fingerprint.sizes, axis=0)[order]).astype(int).tolist(),
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": order,
        "transpose_backward": [order.index(axis) for axis in range(3)],
        "configurations": {"3d_fullres": configuration},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": _by_channel(fingerprint.intensities),
    }
    return Plans(document, "3d_fullres")


def _preprocessing(channels: Sequence[str], relative_size: float) -> dict[str, Any]:
    """Normalisation by the name of the channel, and nnU-Net's resampling: cubic for images, linear for labels."""
    cropped = relative_size < _MUCH_CROPPED
    schemes = ["CTNormalization" if channel == "CT" else "ZScoreNormalization" for channel in channels]
    resampling = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    return {
        "data_identifier": f"{PLANS_NAME}_3d_fullres",
        "preprocessor_name": "DefaultPreprocessor",
        "normalization_schemes": schemes,
        "use_mask_for_norm": [cropped and scheme == "ZScoreNormalization" for scheme in schemes],
        "resampling_fn_data": _RESAMPLING,
        "resampling_fn_seg": _RESAMPLING,
        "resampling_fn_data_kwargs": resampling,
        "resampling_fn_seg_kwargs": {**resampling, "is_seg": True, "order": 1},
        "resampling_fn_probabilities": _RESAMPLING,
        "resampling_fn_probabilities_kwargs": {**resampling, "order": 1},
    }


def _by_channel(intensities: Sequence[Intensities]) -> dict[str, Any]:
    return {str(channel): one.model_dump() for channel, one in enumerate(intensities)}


def target_spacing(fingerprint: Fingerprint) -> np.ndarray:
    """mm, [z, y, x]: the median; where slices are thick and few, the tenth percentile across them."""
    target = np.median(fingerprint.spacings, axis=0)
    size = np.median(fingerprint.sizes, axis=0)
    worst = int(np.argmax(target))
    others = [axis for axis in range(3) if axis != worst]
    widest = float(target[others].max())
    if target[worst] > ANISOTROPIC * widest and size[worst] * ANISOTROPIC < size[others].min():
        finer = float(np.percentile(fingerprint.spacings[:, worst], _TARGET_PERCENTILE))
        target[worst] = finer if finer >= widest else widest + 1e-5
    return target


def _patch_like(spacing: np.ndarray, size: np.ndarray) -> np.ndarray:
    """As many mm along every axis, 128^3 voxels in all, and no longer than the median volume ``size``."""
    inverse = 1 / spacing
    wanted = inverse * (128**3 / inverse.prod()) ** (1 / 3)
    return np.maximum(np.minimum(np.rint(wanted), size), 1)


def topology(patch: Sequence[float], spacing: Sequence[float]) -> tuple[list[list[int]], list[list[int]]]:
    """(strides, kernel sizes) of the stages of the encoder.

    An axis is halved as long as 4 voxels are left, and only while its spacing is below twice that of the finest axis that can
    still be halved. Kernels are 3 along an axis from the stage on at which its spacing is below twice the finest, 1 before.
    """
    sizes, mm = list(patch), list(spacing)
    strides, kernels, kernel = [[1, 1, 1]], [], [1, 1, 1]
    while True:
        halved = [axis for axis in range(3) if sizes[axis] >= 2 * _SMALLEST_EDGE]
        finest = min((mm[axis] for axis in halved), default=0.0)
        halved = [axis for axis in halved if mm[axis] < 2 * finest]
        if not halved or (len(halved) == 1 and sizes[halved[0]] < 3 * _SMALLEST_EDGE):
            break
        kernel = [3 if width == 3 or mm[axis] < 2 * min(mm) else 1 for axis, width in enumerate(kernel)]
        kernels.append(kernel)
        strides.append([2 if axis in halved else 1 for axis in range(3)])
        for axis in halved:
            sizes[axis], mm[axis] = np.ceil(sizes[axis] / 2), mm[axis] * 2
    return strides, [*kernels, [3, 3, 3]]


def _architecture(strides: list[list[int]], kernels: list[list[int]]) -> dict[str, Any]:
    """A plain convolutional U-Net in the words of ``dynamic_network_architectures``."""
    stages = len(strides)
    return {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": stages,
            "features_per_stage": [min(_MOST_FEATURES, _FEATURES * 2**stage) for stage in range(stages)],
            "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": kernels,
            "strides": strides,
            "n_conv_per_stage": [_CONVOLUTIONS] * stages,
            "n_conv_per_stage_decoder": [_CONVOLUTIONS] * (stages - 1),
            "conv_bias": True,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
            "norm_op_kwargs": {"eps": 1e-05, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }
