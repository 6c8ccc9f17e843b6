"""Lesions of the brain: white matter lesions around the ventricles, and gliomas with core, rim and oedema."""

from __future__ import annotations

import numpy as np

from ctmr_core.anatomy.lesions.placement import largest_diameter, place_in, too_large
from ctmr_core.anatomy.lesions.shape import irregular_ball
from ctmr_core.anatomy.lesions.sites import BRAIN_TUMOR_PARTS, WHITE_MATTER_LESIONS
from ctmr_core.anatomy.tissue_map.canvas import distance_inside, distance_outside, smooth_noise
from ctmr_core.errors import AnatomyError

_FOCUS_MM = (5.0, 0.35)  # median and log standard deviation of a focus' diameter; most are 3-15 mm (Filippi et al., Brain 2019)
_MOST_FOCI = 400
_PARENCHYMA = ((2, 3, 10, 11, 12, 13, 17, 18, 26, 28), (41, 42, 49, 50, 51, 52, 53, 54, 58, 60))
_WHITE_MATTER = ((2, 77, 251, 252, 253, 254, 255), (41, 77, 251, 252, 253, 254, 255))
#: diameter of each part relative to the whole tumour core (necrosis and enhancing rim); oedema usually holds more than
#: half of the whole volume (BraTS, Menze et al., IEEE TMI 2015)
_PART_DIAMETER = dict(zip(BRAIN_TUMOR_PARTS, (0.62, 1.0, 1.45), strict=True))
_INSIDE = 0.8
#: how far oedema may creep, in core diameters: where cortex is near, it has to go further to come to its volume
_OEDEMA_REACH = 1.2

Found = tuple[np.ndarray, float, tuple[slice, slice, slice]]


def white_matter_foci(
    voxels: np.ndarray, lesion: str, diameter_mm: float, spacing: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, float]:
    """Foci in the white matter of one side, ovals that point away from the ventricle ("Dawson's fingers").

    voxels: labels [x, y, z]. Together the foci have the volume of a ball of ``diameter_mm``.
    Returns bool [x, y, z] and the share of what was drawn that lay in white matter.
    """
    white, ventricles = WHITE_MATTER_LESIONS[lesion]
    host = voxels == white
    ventricle = np.isin(voxels, ventricles)
    if not host.any() or not ventricle.any():
        raise AnatomyError(f"the {lesion} needs white matter and lateral ventricle of its side", allowed=[white, *ventricles])
    wanted = max(1, round(np.pi / 6 * diameter_mm**3 / float(np.prod(spacing))))
    if wanted > host.sum() // 4:
        raise too_large(lesion, diameter_mm, (host.sum() / 4 * float(np.prod(spacing)) * 6 / np.pi) ** (1 / 3))
    away = distance_outside(ventricle, spacing)
    gradient = np.stack(np.gradient(away), -1)
    near = np.flatnonzero(host & (away > 1.0) & (away < max(14.0, 0.8 * diameter_mm)))
    chance = np.exp(-away.ravel()[near] / 5.0)
    chance /= chance.sum()
    lesions = np.zeros(host.shape, bool)
    found = drawn = 0
    for _ in range(_MOST_FOCI):
        if found >= wanted or near.size == 0:
            break
        centre = np.array(np.unravel_index(near[np.searchsorted(np.cumsum(chance), rng.random())], host.shape))
        left_mm = ((wanted - found) * float(np.prod(spacing)) * 6 / np.pi) ** (1 / 3)
        size = min(_FOCUS_MM[0] * np.exp(_FOCUS_MM[1] * rng.standard_normal()) * max(1.0, diameter_mm / 20), left_mm)
        shape = irregular_ball(size, spacing, rng, roughness=0.15, axes=_finger(gradient[tuple(centre)]))
        half = (np.asarray(shape.shape) - 1) // 2
        places = np.stack(np.nonzero(shape), -1) + centre - half
        places = places[((places >= 0) & (places < host.shape)).all(axis=1)]
        drawn += len(places)
        places = places[host[tuple(places.T)] & ~lesions[tuple(places.T)]]
        lesions[tuple(places.T)] = True
        found += len(places)
    if found < 0.8 * wanted:
        raise too_large(lesion, diameter_mm, diameter_mm * (found / wanted) ** (1 / 3))
    return lesions, found / max(drawn, 1)


def _finger(direction: np.ndarray) -> np.ndarray:
    """Axes [3, 3] of an ellipsoid of unit volume, 1.6 times longer along ``direction`` than across."""
    length = float(np.linalg.norm(direction))
    along = direction / length if length > 1e-6 else np.array([1.0, 0.0, 0.0])
    across = 1.6 ** (-1 / 3)
    return across * (np.eye(3) + 0.6 * np.outer(along, along))


def glioma(
    voxels: np.ndarray, part: str, diameter_mm: float, spacing: np.ndarray, rng: np.random.Generator
) -> tuple[dict[str, np.ndarray], float]:
    """A tumour with necrotic core, enhancing rim, and oedema that spreads in white matter only.

    diameter_mm is that of ``part`` measured over everything it encloses (oedema: the whole tumour).
    Returns part -> bool [x, y, z], and the share of the core that lay in the brain before it was clipped.
    """
    core_mm = diameter_mm / _PART_DIAMETER[part]
    side = int(rng.integers(2))
    host = np.isin(voxels, _PARENCHYMA[side])
    if not host.any():
        side = 1 - side
        host = np.isin(voxels, _PARENCHYMA[side])
    if not host.any():
        raise AnatomyError(
            "a brain tumor needs brain to grow in", found="no cerebral labels", allowed=_PARENCHYMA[0] + _PARENCHYMA[1]
        )
    shape = irregular_ball(core_mm, spacing, rng, roughness=0.16)
    place = place_in(host, shape, core_mm, spacing, _INSIDE, rng, at_wall=False)
    if place is None:
        raise too_large(part, diameter_mm, largest_diameter(host, spacing, _INSIDE) * _PART_DIAMETER[part])
    core = np.zeros(voxels.shape, bool)
    core[place.box] = place.mask & host[place.box]
    margin = np.ceil(_OEDEMA_REACH * core_mm / spacing).astype(int) + 2
    box = tuple(slice(max(s.start - m, 0), min(s.stop + m, n)) for s, m, n in zip(place.box, margin, voxels.shape, strict=True))
    around = core[box]
    depth = distance_inside(around, spacing)
    noise = smooth_noise(around.shape, spacing, max(core_mm / 3, 3.0), rng)
    # the rim is the outer 19 % of the diameter on average, thicker here and thinner there
    score = np.where(around, depth + 0.04 * core_mm * noise, -1e3)
    volume = round(_PART_DIAMETER[BRAIN_TUMOR_PARTS[0]] ** 3 * int(around.sum()))
    limit = np.sort(score[around])[-max(volume, 1)]
    necrosis = around & (score >= limit)
    white = np.isin(voxels[box], _WHITE_MATTER[side]) & ~around
    outside_core = _PART_DIAMETER[BRAIN_TUMOR_PARTS[2]] ** 3 - 1
    oedema = _creep(white, around, round(outside_core * int(around.sum())), core_mm, spacing, rng)
    parts = {}
    for name, mask in zip(BRAIN_TUMOR_PARTS, (necrosis, around & ~necrosis, oedema), strict=True):
        parts[name] = np.zeros(voxels.shape, bool)
        parts[name][box] = mask
    return parts, place.inside


def _creep(
    white: np.ndarray, core: np.ndarray, wanted: int, core_mm: float, spacing: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """The ``wanted`` voxels of white matter nearest to the core, further in some directions than in others; bool [x, y, z].

    Fewer where white matter within reach ends.
    """
    away = distance_outside(core, spacing)
    uneven = smooth_noise(core.shape, spacing, max(core_mm / 2, 6.0), rng)
    order = away / (1 + 0.35 * np.clip(uneven, -2.0, 2.0))
    reachable = white & (away <= _OEDEMA_REACH * core_mm)
    nearest = np.sort(order[reachable])[:wanted]
    return reachable & (order <= (nearest[-1] if nearest.size else -np.inf))
