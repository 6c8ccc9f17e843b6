"""Between the grid of a volume and the spacing a network was trained at; outer borders stay where they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch.nn.functional import interpolate

Size = tuple[int, int, int]


def size_at(size: Sequence[int], spacing: Sequence[float], to: Sequence[float]) -> Size:
    """Voxels [x, y, z] that fill the same extent with voxels of ``to`` mm."""
    x, y, z = (max(1, round(n * mm / wanted)) for n, mm, wanted in zip(size, spacing, to, strict=True))
    return (x, y, z)


def resampled_image(voxels: np.ndarray, size: Size) -> np.ndarray:
    """float32 [x, y, z] of ``size``: linear; smoothed first along axes that lose voxels.

    The width of the smoothing is (ratio - 1) / 2 voxels, as in scikit-image's ``resize`` with ``anti_aliasing``.
    """
    values = voxels.astype(np.float32)
    if values.shape == size:
        return values
    sigma = [max(0.0, (n / wanted - 1) / 2) for n, wanted in zip(values.shape, size, strict=True)]
    if max(sigma) > 0:
        values = gaussian_filter(values, sigma, mode="nearest", truncate=3.0)
    tensor = torch.from_numpy(np.ascontiguousarray(values))[None, None]
    return interpolate(tensor, size=list(size), mode="trilinear", align_corners=False)[0, 0].numpy()


def resampled_labels(labels: np.ndarray, size: Size) -> np.ndarray:
    """uint8 [x, y, z] of ``size``: of the classes around each voxel the one with the largest share."""
    if labels.shape == size:
        return labels
    best = np.full(size, -1.0, np.float32)
    found = np.zeros(size, np.uint8)
    for number in np.flatnonzero(np.bincount(labels.ravel(order="K"))):
        share = resampled_image(labels == number, size)
        closer = share > best
        best[closer] = share[closer]
        found[closer] = number
    return found


def largest_class(scores: torch.Tensor, size: Size) -> np.ndarray:
    """uint8 [x, y, z] of ``size`` from scores [classes, x, y, z] of any size: probabilities are interpolated, class by class."""
    if tuple(scores.shape[1:]) == size:
        return scores.argmax(0).to(torch.uint8).cpu().numpy()
    probabilities = scores.float().softmax(0)
    best = torch.full(size, -1.0, device=scores.device)
    found = torch.zeros(size, dtype=torch.uint8, device=scores.device)
    for number, share in enumerate(probabilities):
        here = interpolate(share[None, None], size=list(size), mode="trilinear", align_corners=False)[0, 0]
        closer = here > best
        best[closer] = here[closer]
        found[closer] = number
    return found.cpu().numpy()
