"""Whole volumes through a network: to the training's spacing, window by window, and back to the volume's own grid."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from monai.inferers import sliding_window_inference

from ctmr_core.learning.segmentation.config import InferenceSettings, IntensitySettings
from ctmr_core.learning.segmentation.intensity import scaling_of
from ctmr_core.learning.segmentation.networks import all_scores
from ctmr_core.learning.segmentation.pieces import without_small_pieces
from ctmr_core.learning.segmentation.resampling import largest_class, resampled_image, size_at

SAME_SPACING = 0.01  # spacings that differ by less are the same

Images = Sequence[tuple[str, np.ndarray]]


def segment_volume(
    network: torch.nn.Module,
    images: Images,
    spacing: tuple[float, float, float],
    *,
    to: tuple[float, float, float],
    intensity: IntensitySettings,
    window: tuple[int, int, int],
    inference: InferenceSettings,
    device: torch.device,
) -> np.ndarray:
    """uint8 [x, y, z] training ids on the grid of the images.

    images: (sequence, voxels [x, y, z] as they are) of every channel. spacing: theirs, mm; to: that of the training, which they
    are resampled to. window: voxels the network sees at a time.
    """
    shape = images[0][1].shape
    size = (shape[0], shape[1], shape[2])
    near = all(abs(mm / wanted - 1) <= SAME_SPACING for mm, wanted in zip(spacing, to, strict=True))
    inner = size if near else size_at(size, spacing, to)
    channels = [scaling_of(name, voxels, intensity)(resampled_image(voxels, inner)) for name, voxels in images]
    values = torch.from_numpy(np.stack(channels))[None].to(device)
    was_training = network.training
    network.eval()
    with torch.inference_mode():
        scores = sliding_window_inference(
            values,
            window,
            inference.batch,
            lambda patch: all_scores(network(patch))[0],
            overlap=inference.overlap,
            mode="gaussian",
            cval=float(values.min()),
        )
    network.train(was_training)
    assert isinstance(scores, torch.Tensor)  # noqa: S101 - one output in, one out
    labels = largest_class(scores[0], size)
    return without_small_pieces(labels, inference.smallest_piece) if inference.smallest_piece else labels
