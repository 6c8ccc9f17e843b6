"""The folded cerebrum: a smooth hull of two hemispheres, and sulci cut into it.

Sulci are the zero surfaces of a band-limited random field that is constant along the normals of the hull, so that every
sulcus is a sheet perpendicular to the surface; it ends at a depth that varies over the brain. The great fissures are
sheets of their own. Distances are made on a lattice; which side of a sheet a voxel lies on is decided on its own grid.
Extents and landmarks follow the mean of the public SynthSeg training label maps (Billot et al. 2023) and, for sulci, the
MNI152 atlas; folding is tuned until cortex, white matter and fluid have the volumes measured on those maps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ctmr_core.anatomy.parametric.head.lattice import Lattice, Window
from ctmr_core.anatomy.parametric.head.person import Person
from ctmr_core.anatomy.parametric.head.primitives import Points, ellipsoid, smooth_max, smooth_min, smoothstep, tube

BOX = ((-75.0, -83.0, -60.0), (75.0, 99.0, 72.0))
_STEP = 1.75


def tentorium(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Canonical height (mm) of the tentorium, the tent between cerebrum and cerebellum."""
    back = np.clip((np.float32(-12.0) - y) / np.float32(53.0), -0.6, 1.2)
    ridge = np.float32(-7.0) - np.float32(19.0) * back
    return ridge - (np.float32(0.42) - np.float32(0.26) * np.clip(back, 0, 1)) * (np.sqrt(x * x + 16) - 4)


def hull(points: Points) -> np.ndarray:
    """Signed distance (mm) to the smooth outline of both hemispheres without the fissure between them."""
    x, y, z = points
    ax = np.abs(x)
    # the parietal lobes are the widest part; the frontal lobes taper
    taper = np.float32(1.0) + np.float32(0.0017) * (y - 0) + np.float32(0.0007) * np.maximum(y - 35, 0)
    dome = ellipsoid((x * taper, y, z), (0, 8.5, -3.5), (69, 82.5, 68))
    front = np.float32(-25.0) + 9 * smoothstep(ax, 6, 26) - 4 * smoothstep(y, 60, 90)
    floor = front + (np.float32(-16.0) - front) * smoothstep(-y, -38, -18)
    tent = tentorium(x, y) + 0.8
    floor = floor + (tent - floor) * smoothstep(-y, -14, 8)
    upper = smooth_max(dome, floor - z, 4.5)
    a = (ax, y, z)
    temporal = tube(a, ((34, 42, -33, 12.5), (45, 28, -32, 17.5), (49, 5, -28, 19), (48, -24, -18, 18)))
    temporal = np.minimum(temporal, tube(a, ((25, 25, -26, 11), (25, 2, -26, 11), (25, -18, -15, 10)), (1.1, 1, 0.95)))
    temporal = smooth_max(temporal, dome - 3.0, 4.0)
    behind = smooth_max(temporal, tent - z, 3.0)
    temporal = temporal + (behind - temporal) * smoothstep(-y, -2, 10)
    return smooth_min(upper, temporal, 2.5)


def core(points: Points) -> np.ndarray:
    """Signed distance (mm) to the middle of the brain, where the hemispheres are joined and nothing is folded."""
    callosum = ellipsoid(points, (0, 21.0, 0.0), (21, 33.5, 17.5), pitch=4)
    thalami = ellipsoid(points, (0, 8, -8), (21, 22, 13))
    stem = ellipsoid(points, (0, 4, -22), (16, 12, 14))
    return np.minimum(np.minimum(callosum, thalami), stem)


@dataclass(frozen=True)
class Folding:
    """What decides, voxel by voxel, between cortex, white matter and sulcus; all fields float32 on ``lattice``.

    outside: mm to the hull of the hemispheres, negative inside. sheet: signed mm to the nearest random sulcus.
    excess: mm below the floor of that sulcus. fissures: mm to the great fissures. thickness: mm of cortex.
    middle: mm to the unfolded core.
    """

    lattice: Lattice
    outside: np.ndarray
    sheet: np.ndarray
    excess: np.ndarray
    twig: np.ndarray
    twig_excess: np.ndarray
    fissures: np.ndarray
    thickness: np.ndarray
    opening: float


def _patch(normal: np.ndarray, excess: np.ndarray, half_width: float) -> np.ndarray:
    excess = np.maximum(excess, 0)
    return np.sqrt(normal * normal + excess * excess) - np.float32(half_width)


def _great_fissures(lattice: Lattice, points: Points, inside: np.ndarray, person: Person) -> np.ndarray:
    """mm to the lateral, central, parieto-occipital and calcarine sulci of both sides, negative in their CSF."""
    rng = person.streams("head/fissures")
    # nothing in a brain runs straight
    x, y, z = (p + np.float32(2.6) * lattice.noise(rng, 30.0) + np.float32(1.1) * lattice.noise(rng, 15.0) for p in points)
    opening = 0.5 + 0.9 * person.traits.atrophy
    lateral = np.abs(x)
    left, right = rng.normal(0, [3.0, 2.5, 2.0, 2.0], (2, 4)).astype(np.float32)
    shift = [np.where(x > 0, b, a) for a, b in zip(left, right, strict=True)]  # the sides of a brain are not mirror images
    # lateral fissure: from the temporal pole up and back above the temporal lobe
    rise = np.float32(-12.0) + np.float32(0.3) * shift[1] - np.float32(0.42) * (y - 30) + 2 * np.sin(y / 9)
    normal = (z - rise) * np.float32(0.92)
    length = np.maximum(np.maximum(-22.0 + shift[0] - y, y - 46), np.maximum(37.0 - lateral, inside - 34))
    near = _patch(normal, length, opening + 0.6)
    # insula: the fissure opens into a vertical sheet below the opercula
    wall = lateral - (np.float32(39.0) - np.float32(0.006) * (y - 18) ** 2)
    reach = (np.sqrt(((y - 19) / 22) ** 2 + ((z + 5 + 0.25 * (y - 19)) / 14) ** 2) - 1) * 13
    near = np.minimum(near, _patch(wall, reach, opening + 0.2))
    # central sulcus: from the vertex down and forward over the convexity
    line = np.float32(-6.0) + shift[2] + np.float32(0.47) * (56.0 - z) + 3.5 * np.sin((z + 4 * shift[3]) / 8.5)
    normal = (y - line) * np.float32(0.88)
    near = np.minimum(near, _patch(normal, np.maximum(np.maximum(inside - 17, 6 - z), 4 - lateral), 0.3 + 0.5 * opening))
    # parieto-occipital and calcarine sulci on the medial face
    normal = (y + 32 + shift[1] + 0.45 * (z - 20)) * np.float32(0.9)
    medial = np.maximum(lateral - 24, np.maximum(-2 - z, z - 50))
    near = np.minimum(near, _patch(normal, medial, 0.3 + 0.5 * opening))
    normal = (z + 4.5 + shift[3] + 0.1 * (y + 40) - 0.3 * lateral) * np.float32(0.94)
    near = np.minimum(near, _patch(normal, np.maximum(lateral - 20 - 0.15 * y, y + 22), 0.3 + 0.5 * opening))
    # cingulate sulcus: an arch above the corpus callosum
    arch = np.sqrt(((y - 21) / 1.04) ** 2 + ((z - 1) / 0.82) ** 2) - np.float32(44.0) + 2 * np.sin(y / 6 + shift[3])
    return np.minimum(near, _patch(arch, np.maximum(np.maximum(lateral - 14, -6 - z), -22 - y), 0.3 + 0.5 * opening))


def _sheets(lattice: Lattice, foot: tuple[np.ndarray, ...], rng: np.random.Generator, wavelength: float) -> np.ndarray:
    """Signed mm to the zero surfaces of a band-limited field that is constant along the normals of the hull."""
    coarse = Lattice.covering(lattice.low, lattice.high, 2.75)
    field = coarse.noise(rng, wavelength, 0.16)
    field = ndimage.gaussian_filter(coarse.at(field, *foot), 0.6)
    slope = lattice.steepness(field)
    floor = np.float32(0.30 * 2 * np.pi / wavelength)
    signed: np.ndarray = field / np.sqrt(slope * slope + floor * floor)
    return signed


def fold(person: Person) -> Folding:
    """Make the folding of one person (about a million lattice nodes)."""
    traits = person.traits
    rng = person.streams("head/cortex")
    lattice = person.lattice(*BOX, _STEP)
    points = person.canonical(lattice)
    lateral = np.abs(points[0])
    gap = np.float32(0.9 + 0.8 * traits.atrophy) + np.float32(0.8) * smoothstep(points[2], 30, 60)
    outline = hull(points)
    hemispheres = smooth_max(outline, gap - lateral, 4.0)
    outside = lattice.as_distance(np.minimum(hemispheres, core(points)))
    smooth = ndimage.gaussian_filter(outside, 1.2)
    normals = np.gradient(smooth, lattice.step)
    length = np.sqrt(sum(n * n for n in normals)) + np.float32(1e-3)
    x, y, z = (axis[shape] for axis, shape in zip(lattice.axes_mm(), np.ix_(*(np.arange(n) for n in lattice.size)), strict=True))
    # 0.85: sheets lean and curve a little with depth, as real sulci do
    walk = np.clip(smooth, -26, 4) * np.float32(0.85) / length
    # and they meander along the surface
    foot = tuple(axis - walk * n + np.float32(1.8) * lattice.noise(rng, 19.0) for axis, n in zip((x, y, z), normals, strict=True))
    inside = -outside
    fissures = _great_fissures(lattice, points, inside, person)
    # random sulci keep clear of the great ones, and are shallow where the field says so
    clear = smoothstep(fissures, 1.0, 5.5)
    sheet = _sheets(lattice, foot, rng, traits.gyrus_mm)
    depth = np.clip(18.5 + 4.5 * lattice.noise(rng, 30.0), 7, 26)
    medial = 1 - smoothstep(lateral - gap, 8, 24)  # the medial face is folded less deeply
    depth = depth * (1 - 0.5 * medial) * (0.4 + 0.6 * clear)
    # a lobe keeps a white core, however narrow it is
    reach = ndimage.maximum_filter(inside, size=round(26 / lattice.step))
    depth = np.minimum(depth, 0.62 * reach)
    twig = _sheets(lattice, foot, rng, 0.72 * traits.gyrus_mm)
    twig_depth = np.clip(2.0 + 4.0 * lattice.noise(rng, 22.0), -3, 9) * clear * smoothstep(np.abs(sheet), 1.5, 5.0)
    thickness = np.clip(np.float32(traits.cortex_mm) + np.float32(0.22) * lattice.noise(rng, 20.0), 1.9, 3.2)
    folding = Folding(
        lattice=lattice,
        outside=outside.astype(np.float32),
        sheet=sheet.astype(np.float32),
        excess=(inside - depth).astype(np.float32),
        twig=twig.astype(np.float32),
        twig_excess=(inside - twig_depth).astype(np.float32),
        fissures=fissures.astype(np.float32),
        thickness=thickness.astype(np.float32),
        opening=0.20 + 0.50 * traits.atrophy,
    )
    _balance(folding, points[0] >= 0, float(np.clip(rng.normal(0, 0.012), -0.03, 0.03)))
    return folding


def _balance(folding: Folding, right: np.ndarray, asymmetry: float) -> None:
    """Deepen or fill the sulci of each side a little until right and left white matter differ by ``asymmetry``.

    Left and right cerebral white matter of real brains differ by 2 % in the median and 7 % at most.
    """
    fields = (folding.outside, folding.fissures, folding.sheet, folding.excess, folding.twig, folding.twig_excess)

    def white(change: float) -> tuple[float, float]:
        pial = _pial(-fields[0], *fields[1:3], fields[3] - np.float32(change), *fields[4:], folding.opening)
        inner = pial > folding.thickness
        total = np.count_nonzero(inner)
        on_right = np.count_nonzero(inner & right)
        return float(on_right), float(total - on_right)

    now, deeper = white(0.0), white(1.5)
    slope = max((now[0] + now[1] - deeper[0] - deeper[1]) / 3.0, 1.0)  # voxels of one side lost per mm of depth
    change = np.clip((now[0] - now[1] - asymmetry * 0.5 * (now[0] + now[1])) / (2 * slope), -5.0, 5.0)
    folding.excess[...] -= np.where(right, np.float32(change), np.float32(-change))


def _pial(
    inside: np.ndarray,
    fissures: np.ndarray,
    sheet: np.ndarray,
    excess: np.ndarray,
    twig: np.ndarray,
    twig_excess: np.ndarray,
    opening: float,
) -> np.ndarray:
    mouth = np.exp(np.clip(inside, 0, 20) * np.float32(-1 / 3.5))  # sulci widen towards the surface: rounded crowns
    pial = np.minimum(inside, fissures)
    for normal, below, width in ((sheet, excess, opening), (twig, twig_excess, 0.8 * opening)):
        below = np.maximum(below, 0)
        below *= below
        below += normal * normal
        np.sqrt(below, out=below)
        below -= np.float32(width)
        below -= mouth * np.float32(0.6 + 1.3 * width)
        np.minimum(pial, below, out=pial)
    return pial


def pial_depth(folding: Folding, window: Window) -> tuple[np.ndarray, np.ndarray]:
    """mm below the pial surface and mm of cortex for every voxel of ``window`` (float32); depth < 0 is CSF or outside."""
    names = (folding.outside, folding.fissures, folding.sheet, folding.excess, folding.twig, folding.twig_excess)
    outside, fissures, sheet, excess, twig, twig_excess = (window.sample(folding.lattice, field) for field in names)
    pial = _pial(-outside, fissures, sheet, excess, twig, twig_excess, folding.opening)
    return pial, window.sample(folding.lattice, folding.thickness)
