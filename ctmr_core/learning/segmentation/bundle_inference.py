"""``configs/inference.json`` of a MONAI bundle: the steps of ``segmentation.inference`` as transforms of MONAI."""

from __future__ import annotations

from typing import Any

import torch

from ctmr_core.anatomy.sequences import is_ct
from ctmr_core.errors import LearningError
from ctmr_core.learning.segmentation.export import trained_sequences, window_of
from ctmr_core.learning.segmentation.inference import SAME_SPACING
from ctmr_core.learning.segmentation.networks import network_arguments
from ctmr_core.learning.segmentation.predict import TrainedSegmenter

_IMAGE = {"keys": "image"}


def inference_document(segmenter: TrainedSegmenter) -> dict[str, Any]:
    """What ``python -m monai.bundle run --config_file configs/inference.json`` runs; needs pytorch-ignite.

    ``dataset_dir`` has the scans (for several channels, a folder for each case with its images by name), ``output_dir`` gets the
    label maps: training ids, uint8, on the grid of each scan. Small pieces are left in (``inference.smallest_piece``).
    Raises ``LearningError`` for networks that give several outputs when they are used, and for CT and MR as channels of one.
    """
    config = segmenter.config
    window = window_of(config)
    with torch.inference_mode():
        scores = segmenter.network(torch.zeros(1, len(config.sequences), *window, device=segmenter.device))
    if not isinstance(scores, torch.Tensor) or scores.ndim != 5:
        raise LearningError(
            "a bundle runs a network that gives one output", where="field network.name", found=config.network.name,
            fix="switch deep supervision off, or use the checkpoint with `ctmr segment`",
        )  # fmt: skip
    return {
        "imports": ["$import glob", "$from scipy.ndimage import gaussian_filter"],
        "bundle_root": ".",
        "dataset_dir": "images",
        "output_dir": "segmentations",
        "datalist": _datalist(len(config.sequences)),
        "device": "$torch.device('cuda' if torch.cuda.is_available() else 'cpu')",
        "network_def": {
            "_target_": f"monai.networks.nets.{config.network.name}",
            **network_arguments(config.network, len(config.sequences), len(segmenter.classes)),
        },
        "network": "$@network_def.to(@device)",
        "resized": {"_target_": "Resized", **_IMAGE, "spatial_size": [1, 1, 1], "mode": "trilinear", "align_corners": False},
        "preprocessing": {"_target_": "Compose", "transforms": _preprocessing(segmenter)},
        "dataset": {"_target_": "Dataset", "data": "$[{'image': scan} for scan in @datalist]", "transform": "@preprocessing"},
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1, "shuffle": False, "num_workers": 0},
        "inferer": {
            "_target_": "SlidingWindowInferer",
            "roi_size": list(window),
            "sw_batch_size": config.inference.batch,
            "overlap": config.inference.overlap,
            "mode": "gaussian",
        },
        "postprocessing": {"_target_": "Compose", "transforms": _postprocessing()},
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
        },
        "checkpointloader": {
            "_target_": "CheckpointLoader",
            "load_path": "$@bundle_root + '/models/model.pt'",
            "load_dict": {"model": "@network"},
            "map_location": "@device",
        },
        "initialize": ["$@checkpointloader(@evaluator)"],
        "run": ["$@evaluator.run()"],
    }


def _datalist(channels: int) -> str:
    if channels == 1:
        return "$sorted(glob.glob(@dataset_dir + '/*.nii*'))"
    return "$[sorted(glob.glob(case + '/*.nii*')) for case in sorted(glob.glob(@dataset_dir + '/*'))]"


def _preprocessing(segmenter: TrainedSegmenter) -> list[dict[str, Any] | str]:
    """To RAS+ and the training's spacing, smoothed first along axes that lose voxels; scaled as in the training."""
    before, after = _scaling(segmenter)
    spacing = [float(mm) for mm in segmenter.spacing]
    mm = f"list(zip(x.shape[1:], x.pixdim.tolist(), {spacing}))"
    near = f"all(abs(mm / to - 1) <= {SAME_SPACING} for _, mm, to in grid)"
    sigma = "[0.0 if near else max(0.0, (to / mm - 1) / 2) for _, mm, to in grid]"
    smoothed = f"gaussian_filter(x.numpy(), [0.0, *{sigma}], mode='nearest', truncate=3.0)"
    smooth = f"torch.zeros_like(x) + torch.from_numpy({smoothed})"
    size = "[n if near else max(1, round(n * mm / to)) for n, mm, to in grid]"
    both = f"setattr(@resized.resizer, 'spatial_size', {size}) or {smooth}"
    prepare = f"$lambda x: (lambda grid: (lambda near: {both})({near}))({mm})"
    return [
        {"_target_": "LoadImaged", **_IMAGE},
        {"_target_": "EnsureChannelFirstd", **_IMAGE},
        {"_target_": "EnsureTyped", **_IMAGE, "dtype": "$torch.float32"},
        {"_target_": "Orientationd", **_IMAGE, "axcodes": "RAS"},
        *before,
        # MONAI's Spacingd keeps the middle of the first voxel in its place, the training keeps the outer borders
        {"_target_": "Lambdad", **_IMAGE, "func": prepare},
        "@resized",
        *after,
    ]


def _scaling(segmenter: TrainedSegmenter) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What is done before and after resampling: MR is measured on the voxels as they are, above 0, and cut off at last."""
    config = segmenter.config
    kinds = {is_ct(name) for name in trained_sequences(config)}
    if len(kinds) > 1:
        raise LearningError(
            "a bundle scales CT or MR", where="field sequences", found=trained_sequences(config), allowed="CT alone, or MR alone"
        )
    if kinds == {True}:
        low, high = config.intensity.ct_window
        return [], [_range(low, high)]
    if config.intensity.mr == "zscore":
        measures = "[(c[c > 0].mean(), max(c[c > 0].std(), 1e-6)) if (c > 0).any() else (0.0, 1.0) for c in x.numpy()]"
        return [_lambda(measures, "(x - m[:, 0]) / m[:, 1]")], []
    wanted = list(config.intensity.mr_percentiles)
    measures = f"[numpy.percentile(c[c > 0], {wanted}) if (c > 0).any() else (0.0, 1.0) for c in x.numpy()]"
    return [_lambda(measures, "(x - m[:, 0]) / torch.clamp(m[:, 1] - m[:, 0], min=1e-6)")], [_range(0.0, 1.0)]


def _range(low: float, high: float) -> dict[str, Any]:
    return {"_target_": "ScaleIntensityRanged", **_IMAGE, "a_min": low, "a_max": high, "b_min": 0.0, "b_max": 1.0, "clip": True}


def _lambda(measures: str, scaled: str) -> dict[str, Any]:
    """``scaled`` with x the image [channels, x, y, z] and m [channels, 2, 1, 1, 1], the two ``measures`` of every channel."""
    shaped = f"torch.tensor(numpy.array({measures}), dtype=torch.float32)[:, :, None, None, None]"
    return {"_target_": "Lambdad", **_IMAGE, "func": f"$lambda x: (lambda m: {scaled})({shaped})"}


def _postprocessing() -> list[dict[str, Any]]:
    """Probabilities back on the grid of the scan, the largest class, a file."""
    return [
        {"_target_": "Activationsd", "keys": "pred", "softmax": True},
        {
            "_target_": "Invertd",
            "keys": "pred",
            "transform": "@preprocessing",
            "orig_keys": "image",
            "nearest_interp": False,
            "to_tensor": True,
        },
        {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
        {
            "_target_": "SaveImaged",
            "keys": "pred",
            "output_dir": "@output_dir",
            "output_postfix": "seg",
            "output_dtype": "$numpy.uint8",
            "resample": False,
            "separate_folder": False,
        },
    ]
