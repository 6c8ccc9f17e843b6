"""The body envelope: label 200 "body" for everything inside the skin that no other label names.

With an image the skin is found in it: the air around the patient, inverted (the steps of NVIDIA MAISI's
``add_body_envelope``: air below -800 HU, largest connected air, closing, opening, largest body, fill, removal of table
pieces). With labels alone a plausible trunk is drawn around them.

Morphology is measured in mm (exact Euclidean distances) on a grid of about 2 mm; only the last step touches the
voxels of the full grid.
"""

from __future__ import annotations

import cc3d
import edt
import numpy as np
from scipy import ndimage

AIR_HU = -800.0
SKIN_HU = -500.0  # half-way from air to skin: keeps foam mattresses and partial volume outside (upstream cuts at -800)
AMBIENT_HU = -940.0  # median of air around a patient; aerated lung lies near -850 HU, so a cropped lung is not taken for it
WORKING_MM = 2.0
CLOSING_MM = 2.5  # upstream: 3 voxels, half of it on either side, at 0.7-1.5 mm
CLEANUP_MM = 5.0  # upstream: 5 voxels; cuts table, blanket and cables off the skin
TABLE_FRACTION = (
    0.05  # pieces of air this large among the unlabelled body are the inside of a table (upstream: 8-28 % against < 0.3 %)
)
SMALLEST_AIR_ML = 20.0
HULL_MM = 4.0
HULL_CLOSING_MM = 60.0  # spans the flank between the lowest rib and the iliac crest
HULL_SMOOTHING_MM = (6.0, 6.0, 12.0)
HULL_WINDOW_MM = 40.0
#: muscle, fat and skin over the outermost labels; abdominal wall with subcutaneous fat is 20-40 mm in adults, the back less
HULL_MARGIN_MM = 22.0
NECK_MARGIN_MM = 15.0
SCALP_MM = 7.0  # scalp thickness of adults, 4-8 mm (Hori et al. 1972)
#: maisi labels: brain, skull; vertebrae C6 to C1.
HEAD_LABELS = (22, 120)
NECK_LABELS = (51, 52, 53, 54, 55, 56)

Spacing = tuple[float, float, float]


def envelope_from_ct(labels: np.ndarray, hu: np.ndarray, spacing: Spacing, has_lungs: bool) -> np.ndarray:
    """Where the patient is: bool [x, y, z], labels included, table and air around the patient excluded.

    labels: [x, y, z], 0 where nothing is labelled. hu: CT on the same grid. spacing: mm.
    has_lungs: whether the lungs are labelled; only then a large unlabelled pocket of air must be table, not lung.
    The patient may reach the faces of the volume along every axis.
    """
    air = (hu < SKIN_HU) & (labels == 0)
    step = _steps(spacing, WORKING_MM)
    coarse = tuple(slice(None, None, n) for n in step)
    mm: Spacing = tuple(n * s for n, s in zip(step, spacing, strict=True))  # type: ignore[assignment]
    labelled = labels[coarse] > 0
    outside = _ambient(air[coarse], hu[coarse], mm)
    outside = _close(outside, CLOSING_MM, mm) & ~labelled
    body = _separate(~outside, labelled, mm)
    if step != (1, 1, 1):
        sure = _enlarge(_erode(body, max(mm), mm), step, labels.shape)
        near = _enlarge(_dilate(body, max(mm), mm), step, labels.shape)
        near &= ~air
        body = np.logical_or(sure, near, out=near)
    body |= labels > 0
    if has_lungs:
        _drop_table(body, labels, (hu < AIR_HU) & (labels == 0))
    return body


def envelope_from_mr(labels: np.ndarray, image: np.ndarray, spacing: Spacing) -> np.ndarray:
    """Where the patient is in a magnetic resonance image: signal above the noise of the air, filled, labels included.

    The threshold lies between the darkest and the brightest thirds of the image's own values (Otsu 1979), halved: fat
    and muscle are far above it, cortical bone and bowel gas are filled slice by slice.
    """
    step = _steps(spacing, WORKING_MM)
    coarse = tuple(slice(None, None, n) for n in step)
    mm: Spacing = tuple(n * s for n, s in zip(step, spacing, strict=True))  # type: ignore[assignment]
    values = ndimage.gaussian_filter(image[coarse].astype(np.float32), [2.0 / s for s in mm])
    labelled = labels[coarse] > 0
    body = _close((values > 0.5 * _otsu(values)) | labelled, 2 * CLEANUP_MM, mm)
    body = _separate(body, labelled, mm)
    return _enlarge(body, step, labels.shape) | (labels > 0)


def envelope_from_labels(labels: np.ndarray, spacing: Spacing) -> np.ndarray:
    """A plausible trunk around the labels of a ``maisi`` map: bool [x, y, z], labels included.

    The labels of neighbouring slices are closed to a hull, given a margin of muscle, fat and skin, and smoothed; neck and
    head (slices with C6 and above, brain or skull) get a closer one. The trunk goes on to the lower face of the volume,
    and to the upper one unless there is a head, which ends.
    """
    step = _steps(spacing, HULL_MM)
    mm: Spacing = tuple(n * s for n, s in zip(step, spacing, strict=True))  # type: ignore[assignment]
    union = _any_in_blocks(labels > 0, step)
    head, neck = (_slices_with(labels, ids, step[2]) for ids in (HEAD_LABELS, NECK_LABELS))
    slices = np.flatnonzero(union.any(axis=(0, 1)))
    shoulders = int(np.argmax(neck | head)) if (neck | head).any() else union.shape[2]
    hull = np.concatenate([_spread(union[:, :, :shoulders], HULL_WINDOW_MM, mm[2]), union[:, :, shoulders:]], axis=2)
    hull[:, :, : slices[0]] = hull[:, :, slices[0], None]
    hull[:, :, slices[-1] + 1 :] = False if head.any() else hull[:, :, slices[-1], None]
    margins = np.full(union.shape[2], HULL_MARGIN_MM)
    margins[shoulders:] = NECK_MARGIN_MM
    margins[head] = SCALP_MM
    margins[: slices[0]] = margins[slices[0]]
    margins[slices[-1] + 1 :] = margins[slices[-1]]
    distance = _signed_distance(_closed_slices(hull, mm), mm) + margins.astype(np.float32)
    np.clip(distance, -HULL_CLOSING_MM, HULL_CLOSING_MM, out=distance)  # infinite where the trunk fills the volume
    distance = ndimage.gaussian_filter(
        distance, [width / s for width, s in zip(HULL_SMOOTHING_MM, mm, strict=True)], mode="nearest"
    )
    zoom = [
        np.linspace(0, n - 1, size) if n > 1 else np.zeros(size) for n, size in zip(distance.shape, labels.shape, strict=True)
    ]
    body = np.empty(labels.shape, bool)
    for z, position in enumerate(zoom[2]):
        lower = int(position)
        upper = min(lower + 1, distance.shape[2] - 1)
        plane = distance[:, :, lower] * (1 - position + lower) + distance[:, :, upper] * (position - lower)
        rows = _interpolate(plane, zoom[0])
        body[:, :, z] = _interpolate(rows.T, zoom[1]).T > 0
    body |= labels > 0
    return body


def _slices_with(labels: np.ndarray, ids: tuple[int, ...], step: int) -> np.ndarray:
    """Which blocks of ``step`` slices hold any of ``ids``: bool, 1-D."""
    fine = np.array([np.isin(labels[:, :, z], ids).any() for z in range(labels.shape[2])])
    return np.logical_or.reduceat(fine, np.arange(0, fine.size, step))


def _spread(union: np.ndarray, window_mm: float, mm: float) -> np.ndarray:
    """The union of the slices within ``window_mm`` above and below each slice."""
    if union.shape[2] == 0:
        return union
    return ndimage.maximum_filter1d(union.view(np.uint8), 2 * max(1, round(window_mm / mm)) + 1, axis=2) > 0


def _closed_slices(hull: np.ndarray, mm: Spacing) -> np.ndarray:
    """Close and fill each axial slice, on a frame wide enough not to feel the faces of the volume."""
    frame = [int(np.ceil(HULL_CLOSING_MM / s)) + 1 for s in mm[:2]]
    padded = np.pad(hull, [(frame[0], frame[0]), (frame[1], frame[1]), (0, 0)])
    inner = (slice(frame[0], -frame[0]), slice(frame[1], -frame[1]))
    closed = np.empty(hull.shape, bool)
    for z in range(hull.shape[2]):
        reached = edt.edt(np.ascontiguousarray(~padded[:, :, z]), anisotropy=mm[:2], parallel=1) <= HULL_CLOSING_MM
        filled = edt.edt(ndimage.binary_fill_holes(reached), anisotropy=mm[:2], parallel=1) > HULL_CLOSING_MM
        closed[:, :, z] = filled[inner]
    return closed | hull


def _signed_distance(mask: np.ndarray, mm: Spacing) -> np.ndarray:
    """mm from the surface of ``mask``, positive inside, float32; half a voxel off what edt measures between centres."""
    half = float(np.mean(mm)) / 2
    inside, outside = (edt.edt(np.ascontiguousarray(part), anisotropy=mm, parallel=1) for part in (mask, ~mask))
    return np.where(mask, inside - half, half - outside)


def _ambient(air: np.ndarray, hu: np.ndarray, mm: Spacing) -> np.ndarray:
    """The air around the patient: connected air (26 neighbours) that reaches a lateral face and is as thin as room air."""
    components, count = cc3d.connected_components(np.ascontiguousarray(air), connectivity=26, return_N=True)
    outside = np.zeros(air.shape, bool)
    if count == 0:
        return outside
    faces = (components[0], components[-1], components[:, 0], components[:, -1])
    touching = np.unique(np.concatenate([np.unique(face) for face in faces]))
    sizes = cc3d.statistics(components)["voxel_counts"]
    smallest = SMALLEST_AIR_ML * 1000.0 / float(np.prod(mm))
    for component in touching[touching > 0]:
        if sizes[component] < smallest:
            continue
        mask = components == component
        if float(np.median(hu[mask])) < AMBIENT_HU:
            outside |= mask
    return outside


def _separate(body: np.ndarray, labelled: np.ndarray, mm: Spacing) -> np.ndarray:
    """The body without what merely lies against it: opened, the parts that hold labels kept, slices filled."""
    core = _erode(body, CLEANUP_MM, mm)
    components, count = cc3d.connected_components(np.ascontiguousarray(core), connectivity=26, return_N=True)
    if count == 0:
        return body
    inside = np.bincount(components[labelled].ravel(), minlength=count + 1)
    inside[0] = 0
    if inside.max() == 0:
        inside = np.bincount(components.ravel(), minlength=count + 1)
        inside[0] = 0
    kept = inside >= max(1, 0.01 * inside.max())
    opened = _dilate(kept[components], CLEANUP_MM, mm) & body
    opened |= labelled
    for z in range(opened.shape[2]):
        opened[:, :, z] = ndimage.binary_fill_holes(opened[:, :, z])
    return opened


def _drop_table(body: np.ndarray, labels: np.ndarray, air: np.ndarray) -> None:
    """Remove from ``body``, in place, every pocket of unlabelled air that is 5 % of the unlabelled body or more."""
    pockets = body & air
    smallest = TABLE_FRACTION * np.count_nonzero(body & (labels == 0))
    if np.count_nonzero(pockets) < smallest:
        return
    components = cc3d.connected_components(pockets, connectivity=6)
    sizes = cc3d.statistics(components)["voxel_counts"]
    table = sizes >= smallest
    table[0] = False
    if table.any():
        body &= ~table[components]


def _otsu(values: np.ndarray) -> float:
    top = float(np.percentile(values, 99.5))
    counts, edges = np.histogram(np.minimum(values, top), bins=256)
    middles = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)
    above = below[-1] - below
    first = np.cumsum(counts * middles)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (first / below - (first[-1] - first) / above) ** 2
    return float(middles[int(np.nanargmax(between))])


def _erode(mask: np.ndarray, radius: float, mm: Spacing) -> np.ndarray:
    return edt.edt(np.ascontiguousarray(mask), anisotropy=mm, parallel=1) > radius


def _dilate(mask: np.ndarray, radius: float, mm: Spacing) -> np.ndarray:
    return edt.edt(np.ascontiguousarray(~mask), anisotropy=mm, parallel=1) <= radius if mask.any() else mask.copy()


def _close(mask: np.ndarray, radius: float, mm: Spacing) -> np.ndarray:
    frame = [int(np.ceil(radius / s)) + 1 for s in mm]  # without it, what comes near a face would be drawn out to the face
    padded = np.pad(mask, [(n, n) for n in frame])
    closed = _erode(_dilate(padded, radius, mm), radius, mm)
    return closed[tuple(slice(n, -n) for n in frame)] | mask


def _steps(spacing: Spacing, working_mm: float) -> tuple[int, int, int]:
    x, y, z = (max(1, int(working_mm / mm + 0.25)) for mm in spacing)
    return (x, y, z)


def _enlarge(mask: np.ndarray, step: tuple[int, int, int], shape: tuple[int, ...]) -> np.ndarray:
    for axis, n in enumerate(step):
        if n > 1:
            nearest = np.minimum((np.arange(shape[axis]) + n // 2) // n, mask.shape[axis] - 1)
            mask = np.take(mask, nearest, axis=axis)
    return mask


def _any_in_blocks(mask: np.ndarray, step: tuple[int, int, int]) -> np.ndarray:
    for axis, n in enumerate(step):
        if n > 1:
            mask = np.logical_or.reduceat(mask, np.arange(0, mask.shape[axis], n), axis=axis)
    return np.ascontiguousarray(mask)


def _interpolate(plane: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Linear interpolation of a 2-D array along its first axis at fractional row ``positions``."""
    lower = positions.astype(np.intp)
    upper = np.minimum(lower + 1, plane.shape[0] - 1)
    weight = (positions - lower).astype(np.float32)[:, None]
    return plane[lower] * (1 - weight) + plane[upper] * weight
