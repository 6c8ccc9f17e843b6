"""Susceptibility: the field shift that tissues make, and what it does to a gradient echo (phase mask and dephasing).

The shift is the convolution of the susceptibility with the unit dipole, a product in Fourier space (Salomir et al. 2003;
Marques and Bowtell 2005). The phase mask is that of susceptibility-weighted imaging (Haacke et al. 2004).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.fft
import torch

from ctmr_core.anatomy.tissues import tissue_id
from ctmr_core.engines.tissue.mr_fields import neighbourhood_share
from ctmr_core.engines.tissue.mr_signals import PROTON_MHZ_PER_TESLA

_MARGIN_MM = 20.0  # of air around the body, so that its periodic copies keep their distance
_HIGH_PASS_MM = 3.5  # standard deviation of the low-pass image that homodyne filtering divides out (64 x 64 of 256 x 256)
_EDGE_VOXELS = 0.65  # standard deviation of the blur that softens the label map's steps, as the image's own blur does
_ENCLOSED = 0.8  # share of body around an unlabelled voxel that is a hole of the label map and no air
_MASK_POWER = 4  # multiplications with the phase mask, Haacke et al. 2004
_SLICE_MM = 1.5  # thickness over which a typical susceptibility-weighted slice dephases

Box = tuple[slice, slice, slice]


@dataclass(frozen=True, eq=False)
class GradientEchoField:
    """The field shift inside ``box`` and what it does to the image; outside the box nothing happens.

    shift: total field shift, local: its high-pass part; float32 [x, y, z] of the box, in cycles until the echo.
    thickness: dephasing length in voxels along each axis.
    """

    box: Box
    shift: torch.Tensor
    local: torch.Tensor
    thickness: tuple[float, float, float]

    def apply(self, image: torch.Tensor, start: int, stop: int) -> None:
        """Weight ``image``, the planes ``start`` to ``stop`` of the volume along x [stop - start, y, z], in place."""
        first, last = max(start, self.box[0].start), min(stop, self.box[0].stop)
        if first >= last:
            return
        inner = slice(first - self.box[0].start, last - self.box[0].start)
        target = image[first - start : last - start, self.box[1], self.box[2]]
        target *= self._kept(inner)
        target *= self._phase_mask(inner)

    def _kept(self, planes: slice) -> torch.Tensor:
        """Share of the signal that the spread of phases inside a voxel leaves: about exp(-(2 pi d)^2 / 24)."""
        n = self.shift.shape[0]
        low, high = max(planes.start - 1, 0), min(planes.stop + 1, n)
        shift = self.shift[low:high]
        total = torch.zeros_like(shift)
        for axis in range(3):
            difference = _central_difference(shift, axis).mul_(self.thickness[axis])
            difference *= difference
            total += difference
        total = total[planes.start - low : planes.stop - low]
        total.mul_((2 * np.pi) ** 2 / 24)
        # 1 / (1 + q + q^2 / 2) is exp(-q) to second order, and unlike exp it has the same bits in every thread.
        kept = total * total
        kept.mul_(0.5).add_(total).add_(1.0)
        return kept.reciprocal_()

    def _phase_mask(self, planes: slice) -> torch.Tensor:
        """1 where the phase -2 pi shift is positive, falling to 0 at -pi, to the fourth power."""
        mask = (self.local[planes] * -2.0).add_(1.0).clamp_(0.0, 1.0)
        for _ in range(_MASK_POWER // 2):
            mask *= mask
        return mask


def gradient_echo_field(
    tissues: torch.Tensor,
    susceptibility: np.ndarray,
    spacing: tuple[float, float, float],
    field_strength: float,
    te: float,
    threads: int,
) -> GradientEchoField:
    """The field shift at the echo time of a head in the scanner, main field along z.

    tissues: uint8 [x, y, z]. susceptibility: ppm relative to water per tissue id. spacing: mm. field_strength: T. te: ms.
    """
    box = _bounding_box(tissues)
    air = float(susceptibility[tissue_id("background")])
    table = torch.from_numpy((susceptibility - air).astype(np.float32)).to(tissues.device)
    inside = tissues[box].contiguous()
    chi = torch.index_select(table, 0, inside.view(-1).to(torch.int32)).view(inside.shape)
    unlabelled = inside == tissue_id("background")
    chi[unlabelled & (neighbourhood_share(~unlabelled) > _ENCLOSED)] = -air
    padded = [_fast_length(n + 2 * int(np.ceil(_MARGIN_MM / mm))) for n, mm in zip(chi.shape, spacing, strict=True)]
    wave = [np.fft.fftfreq(n, mm) for n, mm in zip(padded, spacing, strict=True)]
    wave[2] = np.fft.rfftfreq(padded[2], spacing[2])
    squares = [(w * w).astype(np.float32) for w in wave]
    # Cycles until the echo per ppm: gamma / 2 pi in Hz per ppm, times seconds.
    cycles = np.float32(PROTON_MHZ_PER_TESLA * field_strength * te * 1e-3)
    spectrum = scipy.fft.rfftn(_continued(chi.cpu().numpy(), padded), workers=threads, overwrite_x=True)
    soft = [_gaussian(square, _EDGE_VOXELS * mm) for square, mm in zip(squares, spacing, strict=True)]
    radial = np.empty(spectrum.shape[1:], np.float32)
    for i, square in enumerate(squares[0]):
        np.add(squares[1][:, None], squares[2][None, :] + square, out=radial)
        if i == 0:
            radial[0, 0] = 1.0
        dipole = np.float32(1 / 3) - squares[2][None, :] / radial
        if i == 0:
            dipole[0, 0] = 0.0
        dipole *= soft[1][:, None]
        dipole *= soft[2][None, :] * (soft[0][i] * cycles)
        spectrum[i] *= dipole
    shift = _crop(scipy.fft.irfftn(spectrum, padded, workers=threads), chi.shape)
    low = [_gaussian(square, _HIGH_PASS_MM) for square in squares]
    plane = low[1][:, None] * low[2][None, :]
    for i in range(len(low[0])):
        spectrum[i] *= 1 - low[0][i] * plane
    local = _crop(scipy.fft.irfftn(spectrum, padded, workers=threads, overwrite_x=True), chi.shape)
    thickness = (1.0, 1.0, max(1.0, _SLICE_MM / spacing[2]))
    device = tissues.device
    return GradientEchoField(box, torch.from_numpy(shift).to(device), torch.from_numpy(local).to(device), thickness)


def _gaussian(squared_frequency: np.ndarray, sigma_mm: float) -> np.ndarray:
    """The Fourier transform of a Gaussian blur, float32; frequencies in cycles per mm."""
    return np.exp(-2 * (np.pi * sigma_mm) ** 2 * squared_frequency).astype(np.float32)


def _continued(chi: np.ndarray, padded: list[int]) -> np.ndarray:
    """``chi`` at the start of a larger volume, float32. Where the field of view cuts the body, the body goes on and fades
    out over half the margin on either side (negative indices wrap round): the cut is no surface to air.
    """
    volume = np.zeros(padded, np.float32)
    x, y, z = chi.shape
    volume[:x, :y, :z] = chi
    for axis, n in enumerate(chi.shape):
        room = (padded[axis] - n) // 2
        fade = np.cos(np.linspace(0, np.pi / 2, room + 2)[1:-1]).astype(np.float32) ** 2
        planes = np.moveaxis(volume, axis, 0)
        planes[n : n + room] = planes[n - 1] * fade[:, None, None]
        planes[padded[axis] - room :] = planes[0] * fade[::-1, None, None]
    return volume


def _crop(volume: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    return np.ascontiguousarray(volume[: size[0], : size[1], : size[2]], np.float32)


def _bounding_box(tissues: torch.Tensor) -> Box:
    """The box that holds every voxel of the body and one of air around it; the whole volume where there is no body."""
    body = tissues > 0
    slices = []
    for axis in range(3):
        others = tuple(i for i in range(3) if i != axis)
        hit = torch.nonzero(body.any(dim=others[1]).any(dim=others[0])).flatten()
        n = tissues.shape[axis]
        slices.append(slice(max(int(hit[0]) - 1, 0), min(int(hit[-1]) + 2, n)) if len(hit) else slice(0, n))
    return (slices[0], slices[1], slices[2])


def _fast_length(n: int) -> int:
    return int(scipy.fft.next_fast_len(n, real=True))


def _central_difference(volume: torch.Tensor, axis: int) -> torch.Tensor:
    """Per voxel, one-sided at the border; new tensor."""
    n = volume.shape[axis]
    result = torch.zeros_like(volume)
    if n < 2:
        return result
    if n > 2:
        torch.sub(volume.narrow(axis, 2, n - 2), volume.narrow(axis, 0, n - 2), out=result.narrow(axis, 1, n - 2))
        result.mul_(0.5)
    torch.sub(volume.narrow(axis, 1, 1), volume.narrow(axis, 0, 1), out=result.narrow(axis, 0, 1))
    torch.sub(volume.narrow(axis, n - 1, 1), volume.narrow(axis, n - 2, 1), out=result.narrow(axis, n - 1, 1))
    return result
