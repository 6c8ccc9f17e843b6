"""Image to image: sampling that starts from an encoded image with noise added, in place of noise alone.

The image is encoded by the autoencoder and moved along the schedule to the step that ``strength`` names (SDEdit: Meng et al.
2022, "Guided image synthesis and editing with stochastic differential equations"); the remaining steps are as always.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import torch
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from scipy import ndimage

from ctmr_core.engines.maisi.encode import encode_values, normalised
from ctmr_core.engines.maisi.intensities import intensity_range
from ctmr_core.engines.maisi.models import MaisiModels
from ctmr_core.engines.maisi.schedulers import Ddpm, Sampler
from ctmr_core.engines.maisi.variants import LAST_CT_CODE
from ctmr_core.errors import EngineError

_SAME_MM = 1e-3


@dataclass(frozen=True, eq=False)
class Start:
    """Where sampling starts.

    image: [x, y, z] on the grid of the image to make, CT in HU, MR in any units. strength: share of the steps that are done, 0
    (the image as the autoencoder gives it back) to 1 (noise alone).
    """

    image: np.ndarray
    strength: float

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1:
            raise EngineError("impossible strength", found=self.strength, allowed="0 (the image itself) to 1 (noise alone)")
        if self.image.ndim != 3 or self.image.dtype.kind not in "iuf":
            found = f"{self.image.ndim} axes of {self.image.dtype}"
            raise EngineError("not an image to start from", found=found, allowed="numbers on [x, y, z]")
        if not np.isfinite(self.image).all():
            raise EngineError("the image to start from has voxels that are no numbers", found="NaN or infinite")


class Remainder:
    """The last steps of a sampler."""

    def __init__(self, sampler: Sampler, first: int) -> None:
        self._sampler = sampler
        self._first = first
        self.timesteps = sampler.timesteps[first:]

    def step(self, index: int, output: torch.Tensor, latent: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Step ``index`` of the remaining ones."""
        return self._sampler.step(index + self._first, output, latent, generator)


def begin(
    models: MaisiModels, start: Start, modality: int, noise: torch.Tensor, sampler: Sampler
) -> tuple[torch.Tensor, Sampler]:
    """The latent to start from [1,4,x,y,z] and the steps that remain: the image's latent, noised to the first of them."""
    size = tuple(n * models.latent_stride for n in noise.shape[2:])
    if start.image.shape != size:
        raise EngineError("the image to start from is on another grid", found=start.image.shape, allowed=f"{size} voxels")
    steps = len(sampler.timesteps)
    remaining = Remainder(sampler, steps - round(start.strength * steps))
    latent = encode(models, start.image, modality).to(noise.device).mul_(models.scale_factor)
    if not remaining.timesteps:
        return latent, remaining
    if isinstance(sampler, Ddpm):
        kept, added = sampler.mixture(steps - len(remaining.timesteps))
    else:
        added = remaining.timesteps[0] / models.scheduler().num_train_timesteps
        kept = 1 - added
    return latent.mul_(kept).add_(noise.to(latent.dtype), alpha=added), remaining


def encode(models: MaisiModels, image: np.ndarray, modality: int) -> torch.Tensor:
    """The mean latent [1,4,X/4,Y/4,Z/4], float32, of an image [x, y, z] (HU, or any MR units), in windows that fit the memory."""
    return encode_values(models, normalised(image, modality))


def read_start(path: Path, size: Sequence[int], spacing: Sequence[float], modality: int) -> np.ndarray:
    """The image of a NIfTI file (axes turned to RAS+), float32 [x, y, z], on a grid of ``size`` voxels of ``spacing`` mm.

    An image on another grid is resampled linearly about its middle; what lies outside of it becomes its lowest value (air in CT).
    """
    try:
        volume = nibabel.as_closest_canonical(nibabel.load(path))  # type: ignore[arg-type]
        values = np.asarray(volume.dataobj, np.float32)  # type: ignore[attr-defined]
        steps = np.linalg.norm(np.asarray(volume.affine, np.float64)[:3, :3], axis=0)  # type: ignore[attr-defined]
    except (OSError, EOFError, ValueError, ImageFileError, HeaderDataError) as error:
        raise EngineError("the image to start from can't be read", where=str(path), found=str(error)) from error
    values = values.reshape(values.shape[:3]) if values.ndim > 3 and set(values.shape[3:]) == {1} else values
    if values.ndim != 3:
        raise EngineError("the image to start from has not 3 axes", where=str(path), found=values.shape)
    if values.shape == tuple(size) and np.allclose(steps, spacing, rtol=0, atol=_SAME_MM):
        return np.ascontiguousarray(values)
    scale = np.asarray(spacing, np.float64) / steps
    offset = (np.array(values.shape) - 1) / 2 - scale * (np.array(size) - 1) / 2
    floor = intensity_range(modality)[0] if modality <= LAST_CT_CODE else float(values.min())
    moved: np.ndarray = ndimage.affine_transform(
        values, scale, offset, output_shape=tuple(size), output=np.float32, order=1, cval=floor
    )
    return moved
