"""Losses of the MAISI networks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

_ALMOST_NOTHING = 1e-5
_VARIANCE_FLOOR = 1e-10


def on_latent_grid(volume: torch.Tensor, latent: torch.Tensor) -> torch.Tensor:
    """A volume [B,1,X,Y,Z] at every n-th voxel, on the grid of a latent [B,C,x,y,z]: nearest neighbour, any dtype."""
    steps = [big // small for big, small in zip(volume.shape[2:], latent.shape[2:], strict=True)]
    return volume[:, :, :: steps[0], :: steps[1], :: steps[2]]


def weighted_l1(output: torch.Tensor, target: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
    """Mean of |output - target| x weights over everything, in float32. weights: [B,1,x,y,z], None for 1."""
    difference = (output.float() - target.float()).abs()
    return (difference if weights is None else difference * weights).mean()


def roi_weights(labels: torch.Tensor, latent: torch.Tensor, roi_labels: Sequence[int], weight: float) -> torch.Tensor:
    """float32 [B,1,x,y,z]: ``weight`` where the label map [B,1,X,Y,Z] (integers) has one of ``roi_labels``, 1 elsewhere."""
    near = on_latent_grid(labels, latent)
    inside = torch.isin(near, torch.as_tensor(list(roi_labels), dtype=near.dtype, device=near.device))
    return torch.where(inside, weight, 1.0)


def region_contrast(
    output: torch.Tensor,
    output_free: torch.Tensor,
    reference: torch.Tensor,
    changed: torch.Tensor,
    apart: torch.Tensor,
    delta: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The region contrastive loss of MAISI-v2 (arXiv 2508.05772): its parts within and outside of the tumours.

    output, output_free: predictions [B,4,x,y,z] with the label map as it is and without tumours. reference: what output_free is
    compared with outside. changed: bool [B,1,X,Y,Z], where the label map differs; apart: the same and its neighbours, which are
    left out of the comparison outside.

    Within: minus the mean difference of the predictions, down to -delta. Outside: mean difference from the reference. Means are
    taken over each sample of the batch, then over the batch (NVIDIA's code joins the samples of a batch along the wrong axis).
    """
    roi = on_latent_grid(changed, output).float().expand_as(output)
    background = 1 - on_latent_grid(apart, output).float().expand_as(output)
    axes = tuple(range(1, output.ndim))

    def mean_within(difference: torch.Tensor, region: torch.Tensor) -> torch.Tensor:
        return (difference.abs() * region).sum(axes) / (region.sum(axes) + _ALMOST_NOTHING)

    within = -mean_within(output.float() - output_free.float(), roi)
    within = functional.relu(within + delta) - delta
    outside = mean_within(output_free.float() - reference.float(), background)
    return within.mean(), outside.mean()


def latent_divergence(mean: torch.Tensor, spread: torch.Tensor) -> torch.Tensor:
    """Kullback-Leibler divergence of the latent's normal distribution from the standard one, summed over a latent [B,...]; mean
    over the batch."""
    axes = tuple(range(1, mean.ndim))
    terms = mean**2 + spread**2 - torch.log(spread**2 + _VARIANCE_FLOOR) - 1
    return 0.5 * terms.sum(axes).mean()
