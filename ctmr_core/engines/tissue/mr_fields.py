"""Fields over the volume: the coil's sensitivity and the point spread function."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

LATTICE = 24  # nodes per axis of the coil field: it varies over many centimetres
_BLOCK = 4  # voxels per axis of the blocks of ``neighbourhood_share``
_ORDERS = 3  # cosine orders per axis: half-waves over the field of view
_SURFACE_COIL = 1.6  # weight of the rise towards the surface that an array of receive coils shows, against the random part
_SIDE_LOBE = 0.05  # of the truncated Fourier transform's ringing that ``gibbs`` = 1 puts two voxels from an edge


@dataclass(frozen=True, eq=False)
class CoilField:
    """A multiplicative field on a coarse lattice that spans the volume corner to corner, float32 [i, j, k]."""

    lattice: torch.Tensor
    size: tuple[int, int, int]

    def slab(self, start: int, stop: int) -> torch.Tensor:
        """The field for the planes ``start`` to ``stop`` (exclusive) along x, float32 [stop - start, y, z]."""
        nodes = self.lattice.shape[0]
        position = np.arange(start, stop) * ((nodes - 1) / max(self.size[0] - 1, 1))
        lower = np.minimum(position.astype(np.int64), nodes - 2)
        share = torch.from_numpy((position - lower).astype(np.float32)).to(self.lattice.device)[:, None, None]
        index = torch.from_numpy(lower).to(self.lattice.device)
        first, second = self.lattice[index], self.lattice[index + 1]
        planes = first + (second - first) * share
        planes = torch.nn.functional.interpolate(planes[:, None], size=self.size[1:], mode="bilinear", align_corners=True)
        return planes[:, 0]


def coil_field(tissues: torch.Tensor, inu_percent: float, surface: bool, rng: np.random.Generator) -> CoilField:
    """A coil field exp(smooth) whose values over the body span 1 - inu/2 .. 1 + inu/2 percent (BrainWeb's convention).

    tissues: uint8 [x, y, z], 0 outside the body. surface: with the rise towards the surface of a head coil.
    """
    size = (tissues.shape[0], tissues.shape[1], tissues.shape[2])
    axes = [np.linspace(0.0, 1.0, LATTICE)] * 3
    cosines = [np.cos(np.pi * np.arange(_ORDERS)[:, None] * axis) for axis in axes]
    orders = np.arange(_ORDERS)
    decay = 1.0 / (1.0 + orders[:, None, None] ** 2 + orders[None, :, None] ** 2 + orders[None, None, :] ** 2)
    coefficients = rng.standard_normal((_ORDERS,) * 3) * decay
    coefficients[0, 0, 0] = 0.0
    field = np.einsum("abc,ai,bj,ck->ijk", coefficients, *cosines)
    body = _on_lattice(tissues)
    if surface and body.any():
        grid = np.stack(np.meshgrid(*axes, indexing="ij"))
        points = grid[:, body]
        centre = points.mean(1)
        radius = np.maximum(points.std(1) * np.sqrt(5.0), 1e-3)  # of the ellipsoid with the same moments
        distance = (((grid - centre[:, None, None, None]) / radius[:, None, None, None]) ** 2).sum(0)
        field += _SURFACE_COIL * rng.uniform(0.4, 1.0) * np.minimum(distance, 2.0)
    inside = field[body] if body.any() else field
    low, high = np.percentile(inside, [1, 99])
    unit = np.clip((field - low) / max(high - low, 1e-9), -0.5, 1.5)  # 0..1 over the body
    half = min(inu_percent / 200.0, 0.9)
    lattice = np.exp(np.log(1 - half) + (np.log(1 + half) - np.log(1 - half)) * unit)
    return CoilField(torch.from_numpy(lattice.astype(np.float32)).to(tissues.device), size)


def _on_lattice(tissues: torch.Tensor) -> np.ndarray:
    """Where the nodes of the lattice lie in the body, bool [i, j, k]."""
    index = [torch.from_numpy(np.round(np.linspace(0, n - 1, LATTICE)).astype(np.int64)) for n in tissues.shape]
    index = [nodes.to(tissues.device) for nodes in index]
    nodes = tissues[index[0]][:, index[1]][:, :, index[2]]
    return (nodes > 0).cpu().numpy()


def neighbourhood_share(mask: torch.Tensor, blocks: int = 3) -> torch.Tensor:
    """The share of ``mask`` (bool [x, y, z]) around every voxel, in a cube of ``blocks`` (odd) x 4 voxels: float32 [x, y, z].

    Counted per block of 4 voxels and interpolated between them.
    """
    share = mask[None, None].to(torch.float32)
    thin = [max(_BLOCK - n, 0) for n in mask.shape]
    if any(thin):
        share = torch.nn.functional.pad(share, (0, thin[2], 0, thin[1], 0, thin[0]), mode="replicate")
    share = torch.nn.functional.avg_pool3d(share, _BLOCK, ceil_mode=True)
    share = torch.nn.functional.pad(share, (blocks // 2,) * 6, mode="replicate")
    share = torch.nn.functional.avg_pool3d(share, blocks, stride=1)
    share = torch.nn.functional.interpolate(share, scale_factor=float(_BLOCK), mode="trilinear", align_corners=False)[0, 0]
    return share[: mask.shape[0], : mask.shape[1], : mask.shape[2]]


@dataclass(frozen=True)
class PointSpread:
    """A symmetric kernel of 5 taps, the same along every axis; ``taps`` = (centre, first, second neighbour)."""

    taps: tuple[float, float, float]

    @classmethod
    def of(cls, fwhm_voxels: float, gibbs: float) -> PointSpread:
        """The kernel with this full width at half maximum in voxels; ``gibbs`` adds negative side lobes (0 = none)."""
        second = -_SIDE_LOBE * gibbs
        variance = (fwhm_voxels / 2.3548) ** 2
        first = min(variance / 2 - 4 * second, 0.3)  # the side lobes narrow the kernel: keep its variance
        return cls((1 - 2 * first - 2 * second, first, second))

    @property
    def reach(self) -> int:
        """Voxels to either side that the kernel sees."""
        return 2 if self.taps[2] else 1

    def blur(self, volume: torch.Tensor, axis: int) -> torch.Tensor:
        """``volume`` blurred along ``axis``, the border continued; new tensor.

        Products and sums are separate passes: a fused multiply-add rounds otherwise at the end of a thread's share, and
        the bytes would depend on the number of threads.
        """
        centre, first, second = self.taps
        result = volume * centre
        result += _neighbours(volume, axis, 1).mul_(first)
        if second:
            result += _neighbours(volume, axis, 2).mul_(second)
        return result


def _neighbours(volume: torch.Tensor, axis: int, step: int) -> torch.Tensor:
    """The sum of the voxels ``step`` before and after along ``axis``; new tensor."""
    n = volume.shape[axis]
    total = torch.empty_like(volume)
    if n <= 2 * step:
        before = torch.arange(n, device=volume.device).sub(step).clamp_(min=0)
        after = torch.arange(n, device=volume.device).add(step).clamp_(max=n - 1)
        return volume.index_select(axis, before) + volume.index_select(axis, after)
    torch.add(
        volume.narrow(axis, 0, n - 2 * step),
        volume.narrow(axis, 2 * step, n - 2 * step),
        out=total.narrow(axis, step, n - 2 * step),
    )
    for i in range(step):
        first, last = volume.narrow(axis, 0, 1), volume.narrow(axis, n - 1, 1)
        torch.add(first, volume.narrow(axis, i + step, 1), out=total.narrow(axis, i, 1))
        torch.add(volume.narrow(axis, n - 1 - i - step, 1), last, out=total.narrow(axis, n - 1 - i, 1))
    return total
