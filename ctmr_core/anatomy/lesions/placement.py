"""Finding a place for a lesion inside its host."""

from __future__ import annotations

from dataclasses import dataclass

import edt
import numpy as np

from ctmr_core.errors import AnatomyError

_TRIES = 200
_COARSE_VOXELS = 1_500_000
_DEEP_ENOUGH = 0.45  # of the radius: there a flat wall cuts off 18 % of a ball
_AT_WALL = 0.75


@dataclass(frozen=True)
class Place:
    """A lesion in place: ``box`` of the volume, ``mask`` bool of that box, ``inside`` the share that lies in the host."""

    box: tuple[slice, slice, slice]
    mask: np.ndarray
    inside: float


def depth_in(host: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """float32 mm from each host voxel to the host's surface; the faces of the array count as surface."""
    return edt.edt(np.ascontiguousarray(host), anisotropy=tuple(spacing.tolist()), black_border=True, parallel=1)


def place_in(
    host: np.ndarray,
    shape: np.ndarray,
    diameter_mm: float,
    spacing: np.ndarray,
    inside: float,
    rng: np.random.Generator,
    at_wall: bool,
) -> Place | None:
    """The first of up to 200 random places at which at least ``inside`` of ``shape`` lies in ``host`` (bool [x, y, z])."""
    if np.count_nonzero(shape) * inside > np.count_nonzero(host):
        return None
    step = _coarsening(host.shape, spacing, diameter_mm)
    coarse = host[:: step[0], :: step[1], :: step[2]]
    depth = depth_in(coarse, spacing * step)
    radius = diameter_mm / 2
    enough = depth >= _DEEP_ENOUGH * radius
    if at_wall and (enough & (depth <= _AT_WALL * radius)).any():
        enough &= depth <= _AT_WALL * radius
    pool = np.flatnonzero(enough & coarse)
    if pool.size == 0:  # thin hosts: try where they are thickest
        filled = np.flatnonzero(coarse)
        pool = filled[np.argsort(-depth.ravel()[filled], kind="stable")[:_TRIES]]
    chosen = rng.permutation(pool)[:_TRIES]
    jitter = rng.integers(0, step, size=(chosen.size, 3))
    for centre in np.stack(np.unravel_index(chosen, coarse.shape), -1) * step + jitter:
        place = _put(host, shape, centre)
        if place is not None and place.inside >= inside:
            return place
    return None


def _coarsening(size: tuple[int, ...], spacing: np.ndarray, diameter_mm: float) -> np.ndarray:
    """Steps [3] that keep about 8 samples across the lesion, or as many as the budget of voxels allows."""
    step = np.maximum(1, np.floor(diameter_mm / 8 / spacing)).astype(int)
    while np.prod(np.ceil(np.asarray(size) / step)) > _COARSE_VOXELS:
        step[np.argmin(step * spacing)] += 1
    return step


def _put(host: np.ndarray, shape: np.ndarray, centre: np.ndarray) -> Place | None:
    half = (np.asarray(shape.shape) - 1) // 2
    low, high = np.maximum(centre - half, 0), np.minimum(centre + half + 1, host.shape)
    box = (slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2]))
    first = low - (centre - half)
    cut = tuple(slice(a, a + n) for a, n in zip(first, high - low, strict=True))
    mask = shape[cut]
    kept = np.count_nonzero(host[box] & mask)
    return Place(box, mask, kept / np.count_nonzero(shape)) if kept else None


def largest_diameter(host: np.ndarray, spacing: np.ndarray, inside: float) -> float:
    """Diameter in mm of the largest ball that lies in ``host`` with a share of ``inside``, tried at its deepest places."""
    step = _coarsening(host.shape, spacing, 16.0)
    coarse = host[:: step[0], :: step[1], :: step[2]]
    fine = spacing * step
    depth = depth_in(coarse, fine)
    deepest = np.argsort(-depth.ravel(), kind="stable")[:: max(1, int(coarse.sum() // 400))][:24]
    places = np.stack(np.nonzero(coarse), -1) * fine
    best = 0.0
    for centre in np.stack(np.unravel_index(deepest, coarse.shape), -1) * fine:
        distance = np.sort(np.linalg.norm(places - centre, axis=1))
        filled = np.arange(1, distance.size + 1) * np.prod(fine)
        fits = filled >= inside * 4 / 3 * np.pi * np.maximum(distance, fine.min()) ** 3
        if fits.any():
            best = max(best, 2 * float(distance[np.flatnonzero(fits)[-1]]))
    return best


def too_large(lesion: str, diameter_mm: float, largest_mm: float) -> AnatomyError:
    """The error of a lesion that does not fit its host."""
    return AnatomyError(
        f"the {lesion} does not fit into its host",
        found=f"{diameter_mm:g} mm",
        allowed=f"at most about {np.floor(largest_mm * 2) / 2:g} mm in this body and field of view",
        fix="ask for a smaller diameter, a larger field of view or another body",
    )
