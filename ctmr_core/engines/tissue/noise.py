"""Quantum noise of CT: coloured by the reconstruction filter, stronger where the rays were weakened more."""

from __future__ import annotations

import numpy as np
import scipy.fft
import torch
from scipy.ndimage import gaussian_filter

from ctmr_core.engines.tissue.textures import Draw

_MARGIN = 8  # voxels drawn beyond the in-plane border and cut: the Fourier transform joins opposite borders
#: Share of the noise power that is white. The power of filtered back-projection doesn't vanish at zero frequency
#: because of the discrete sampling (Kijewski and Judy 1987).
_FLOOR = 0.15
_COARSE = 0.6  # mm: on voxels larger than this the roll-off moves down with the Nyquist frequency
_LATTICE_MM = 10.0
_ANGLES = 12
#: Attenuation of water per mm at 70 keV (NIST XCOM: 0.193/cm), and the share of it left in the noise after
#: tube-current modulation and the bow-tie filter have evened out the dose at the detector.
_WATER_PER_MM = 0.0193
_MODULATION = 0.45


def noise_power(size: tuple[int, int], spacing: tuple[float, float], f0: float) -> np.ndarray:
    """Square root of the in-plane noise power spectrum for ``rfft2``, float32 [x, y // 2 + 1], unit variance, no mean.

    The ramp filter gives power proportional to the frequency f; apodisation and interpolation roll it off:
    f exp(-(f / f0)^2). f0: 1/mm, lowered to a share of the Nyquist frequency on coarse grids, where averaging
    over the voxel rolls the spectrum off.
    """
    roll_off = min(f0, _COARSE * f0 / max(spacing))
    fx = np.fft.fftfreq(size[0], spacing[0])[:, None]
    fy = np.fft.rfftfreq(size[1], spacing[1])[None, :]
    f = np.hypot(fx, fy) / roll_off
    power = f * np.exp(-(f**2))
    power = power / power.max() + _FLOOR * np.exp(-0.25 * f**2)
    power[0, 0] = 0.0
    weight = np.full(power.shape[1], 2.0)  # every column but the first (and the Nyquist one) stands for two
    weight[0] = 1.0
    if size[1] % 2 == 0:
        weight[-1] = 1.0
    variance = float((power * weight).sum()) / (size[0] * size[1])
    return np.sqrt(power / variance).astype(np.float32)


def correlated_noise(
    size: tuple[int, int, int],
    spacing: tuple[float, float, float],
    f0: float,
    lag_z: float,
    draw: Draw,
    threads: int = 1,
) -> torch.Tensor:
    """Unit-variance noise [x, y, z], float32 on the CPU: spectrum of ``noise_power`` in-plane, ``lag_z`` between slices.

    lag_z: correlation of neighbouring slices, 0..0.5. draw: source of standard normal numbers.
    """
    nx, ny = (scipy.fft.next_fast_len(n + _MARGIN, real=True) for n in size[:2])
    # White noise has a white spectrum, so the spectrum itself is drawn and one transform is saved. The transform takes
    # the real part of the columns that stand for themselves, hence half of their power.
    spectrum = draw((nx, ny // 2 + 1, size[2] + 2, 2)).view(np.complex64)[..., 0]
    shape = noise_power((nx, ny), spacing[:2], f0) * np.float32(np.sqrt(nx * ny / 2.0))
    shape[:, 0] *= np.sqrt(2.0)
    if ny % 2 == 0:
        shape[:, -1] *= np.sqrt(2.0)
    torch.from_numpy(spectrum).mul_(torch.from_numpy(shape)[:, :, None])
    noise = torch.from_numpy(scipy.fft.irfft2(spectrum, s=(nx, ny), axes=(0, 1), workers=threads, overwrite_x=True))
    return _mix_slices(noise[: size[0], : size[1]], lag_z)


def _mix_slices(noise: torch.Tensor, lag_z: float) -> torch.Tensor:
    """Unit-variance slices [x, y, z + 2] mixed with their neighbours to the correlation ``lag_z``; [x, y, z]."""
    if lag_z <= 0:
        return noise[:, :, 1:-1].contiguous()
    lag_z = min(lag_z, 0.6)
    # [a, 1, a] has the correlation 2a / (1 + 2a^2) at lag one.
    a = (1.0 - np.sqrt(1.0 - 2.0 * lag_z * lag_z)) / (2.0 * lag_z)
    gain = 1.0 / np.sqrt(1.0 + 2.0 * a * a)
    mixed = noise[:, :, 1:-1] * gain
    mixed.add_(noise[:, :, :-2], alpha=a * gain)
    return mixed.add_(noise[:, :, 2:], alpha=a * gain)


def water_equivalent_diameter(hu: torch.Tensor, spacing: tuple[float, float, float]) -> float:
    """Diameter in mm of the water cylinder that weakens X-rays as much as the mean slice that holds body (AAPM report 220).

    hu: [x, y, z] HU; every fourth voxel in-plane is read.
    """
    water = hu[::4, ::4, ::2].to("cpu").numpy().astype(np.float64) / 1000.0 + 1.0
    area = water.sum(axis=(0, 1)) * (16.0 * spacing[0] * spacing[1])
    body = area > 500.0
    return float(2.0 * np.sqrt(area[body].mean() / np.pi)) if body.any() else 0.0


def noise_profile(hu: torch.Tensor, spacing: tuple[float, float, float]) -> torch.Tensor:
    """Where in the body the noise is strong: relative standard deviation, 1 on average in the body; coarse float32 lattice.

    The variance at a point is the mean over the projection angles of the noise of the ray through it, and that grows
    with the exponential of the attenuation along the ray. hu: [x, y, z]. The lattice spans the volume corner to corner.
    """
    x_nodes, y_nodes, z_nodes = (max(2, min(n, round(n * mm / _LATTICE_MM))) for n, mm in zip(hu.shape, spacing, strict=True))
    nodes = (x_nodes, y_nodes, z_nodes)
    coarse = torch.nn.functional.adaptive_avg_pool3d(_thinned(hu)[None, None], nodes)[0, 0].to("cpu").numpy()
    water = np.clip(coarse / 1000.0 + 1.0, 0.0, 2.5)
    steps = [n * mm / count for n, mm, count in zip(hu.shape, spacing, nodes, strict=True)]
    x = (np.arange(nodes[0]) - (nodes[0] - 1) / 2)[:, None] * steps[0]
    y = (np.arange(nodes[1]) - (nodes[1] - 1) / 2)[None, :] * steps[1]
    step = min(steps[:2])
    variance = np.zeros(nodes)
    for angle in np.arange(_ANGLES) * np.pi / _ANGLES:
        ray = np.round((x * np.cos(angle) + y * np.sin(angle)) / step).astype(np.int64)
        ray -= ray.min()
        sums = np.zeros((ray.max() + 1, nodes[2]))
        np.add.at(sums, ray, water * (steps[0] * steps[1] / step))
        variance += np.exp(_WATER_PER_MM * _MODULATION * gaussian_filter(sums, (1.0, 1.0), mode="nearest"))[ray]
    sd = np.sqrt(gaussian_filter(variance, 1.0, mode="nearest"))
    body = water > 0.5
    sd /= sd[body].mean() if body.any() else sd.mean()
    return torch.from_numpy(sd.astype(np.float32))


def _thinned(hu: torch.Tensor) -> torch.Tensor:
    """Every second voxel in-plane of a fine grid: enough for a lattice of centimetres."""
    return hu[::2, ::2] if min(hu.shape[:2]) >= 128 else hu
