"""Label maps on another grid, with smooth boundaries and no structure lost.

Every output voxel is given to the label with the greatest weight among the source voxels around it (per-label smooth
interpolation, winner takes all, as in Schaerer et al., "Generalized label interpolation", Insight Journal 2014):

* finer than the source: quadratic B-spline weights, whose level sets are smooth where linear ones are blocky;
* the same spacing: linear weights, which keep detail;
* coarser: the share of the output voxel that each label fills (area-weighted majority).

Smoothing shrinks thin structures, so each label is given a gain that keeps its volume (``volume_gains``). A warp is
evaluated in the same interpolation, so a deformed template is resampled once. Where the whole neighbourhood carries one
label, which is nearly everywhere, the label is read directly and nothing is computed.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from ctmr_core.anatomy.field_of_view import Triple, output_affine
from ctmr_core.anatomy.label_map import LabelMap
from ctmr_core.anatomy.pose import Displacement

_SLAB = 1 << 22  # output voxels per slab: bounds memory at any output size
_CHUNK = 1 << 16  # boundary voxels voted on at once: their arrays stay in the L2 cache
_SLOTS = 4  # labels that can compete for one output voxel; a fifth is always a sliver
_GAIN_LIMITS = (0.7, 4.0)
_GAIN_VOXELS = 300_000  # structures larger than this do not shrink measurably
_GAIN_SAMPLES = 8_000_000  # most samples of one structure's indicator that are looked at
_GAIN_SHARE = 0.2  # nor does what fills this share of the body: it is what the others are measured against
_OUTLINE_BELOW = 0.75  # output/source spacing (on two axes) below which the body's outline is smoothed
_OUTLINE_SIGMA = 1.3  # source voxels: removes the terraces of a voxelized skin, moves no 10 cm curve by more than 0.1 voxel
_ENVELOPES = {"maisi": 200, "brain": 511}  # the label that meets the air
_OFF_BOUNDARY = 0.01  # source voxels: output voxels that fall on a boundary go to one side, not both, and volumes stay
_SPLINE_BELOW = 0.5  # output/source spacing at which B-spline weights have replaced linear ones


@dataclass(frozen=True)
class _Axis:
    """Interpolation along one axis: ``ratio`` is output spacing / source spacing, ``taps`` source voxels take part."""

    ratio: float

    @property
    def taps(self) -> int:
        return 3 if self.ratio <= 1 else int(np.ceil(self.ratio)) + 1

    def first(self, position: np.ndarray) -> np.ndarray:
        """Index of the first source voxel that takes part, for continuous source positions."""
        if self.ratio <= 1:
            return np.floor(position + 0.5) - 1
        return np.floor(position - self.ratio / 2 + 0.5)

    def weights(self, position: np.ndarray) -> np.ndarray:
        """Weights [taps, n] float32 of the source voxels from ``first`` on; they sum to 1."""
        if self.ratio > 1:
            voxel = self.first(position) + np.arange(self.taps)[:, None]
            upper = np.minimum(voxel + 0.5, position + self.ratio / 2)
            lower = np.maximum(voxel - 0.5, position - self.ratio / 2)
            return (np.maximum(upper - lower, 0) / self.ratio).astype(np.float32)
        f = (position - np.floor(position + 0.5)).astype(np.float32)
        spline = np.stack([0.5 * (0.5 - f) ** 2, 0.75 - f * f, 0.5 * (0.5 + f) ** 2])
        linear = np.stack([np.maximum(-f, 0), 1 - np.abs(f), np.maximum(f, 0)])
        share = np.float32(np.clip((1 - self.ratio) / (1 - _SPLINE_BELOW), 0, 1))
        return share * spline + (1 - share) * linear

    def matrix(self, positions: np.ndarray, source_size: int) -> np.ndarray:
        """Dense weights [len(positions), source_size] float32; source voxels outside count as empty."""
        matrix = np.zeros((len(positions), source_size), np.float32)
        first, weights = self.first(positions).astype(int), self.weights(positions)
        for tap in range(self.taps):
            inside = np.flatnonzero((first + tap >= 0) & (first + tap < source_size))
            matrix[inside, first[inside] + tap] += weights[tap, inside]
        return matrix


def volume_gains(classes: np.ndarray, n_classes: int, axes: tuple[_Axis, _Axis, _Axis], start: np.ndarray) -> np.ndarray:
    """Gain of each class, [n_classes] float32, that keeps its volume through the interpolation.

    A structure is kept whole by cutting its interpolated indicator not at 1/2 but at the level t whose level set has the
    structure's volume; against everything around it that equals multiplying its weight by (1 - t) / t.
    The level is read off on the lattice of the output (``start``: source position of its first voxel), continued beyond
    the field of view, so that a structure that is cut off is treated as the whole one.
    """
    gains = np.ones(n_classes, np.float32)
    counts = np.bincount(classes.ravel(), minlength=n_classes)
    largest = min(_GAIN_VOXELS, _GAIN_SHARE * counts[1:].sum())
    for index, box in enumerate(ndimage.find_objects(classes), start=1):
        if box is None or counts[index] > largest:
            continue
        scores = (classes[box] == index).astype(np.float32)
        samples = float(np.prod([n / axis.ratio for n, axis in zip(scores.shape, axes, strict=True)]))
        skip = max(1, int(np.ceil((samples / _GAIN_SAMPLES) ** (1 / 3))))
        for axis, interpolation in enumerate(axes):
            size = scores.shape[axis]
            step = interpolation.ratio * max(skip, int(0.5 / interpolation.ratio))
            reach = 0.5 + max(1.0, interpolation.ratio) / 2
            phase = (start[axis] - box[axis].start + reach) % step
            positions = np.arange(phase - reach, size - 1 + reach, step)
            scores = np.moveaxis(np.tensordot(interpolation.matrix(positions, size), scores, (1, axis)), 0, axis)
        values = scores[scores > 0.05]
        volume = round(float(values.sum()))
        if 0 < volume < values.size:
            low, high = values.size - volume - 1, values.size - volume
            pair = np.partition(values, [low, high])[[low, high]]
            level = float(pair.mean())
            gains[index] = np.clip((1 - level) / level, *_GAIN_LIMITS)
    return gains


def _uniform_windows(classes: np.ndarray, taps: tuple[int, int, int]) -> np.ndarray:
    """Bool [x, y, z]: the window of ``taps`` voxels that starts here holds one class only."""
    uniform = np.ones(classes.shape, bool)
    for axis, n in enumerate(taps):
        head = [slice(None)] * 3
        tail = [slice(None)] * 3
        head[axis], tail[axis] = slice(None, -1), slice(1, None)
        same = np.zeros(classes.shape, bool)
        np.equal(classes[tuple(head)], classes[tuple(tail)], out=same[tuple(head)])
        window = uniform.copy()
        for step in range(1, n):
            near, far = [slice(None)] * 3, [slice(None)] * 3
            near[axis], far[axis] = slice(None, -step), slice(step, None)
            link, behind = [slice(None)] * 3, [slice(None)] * 3
            link[axis], behind[axis] = slice(step - 1, same.shape[axis] - 1), slice(None, same.shape[axis] - step)
            window[tuple(near)] &= uniform[tuple(far)]
            window[tuple(behind)] &= same[tuple(link)]
        uniform = window
    return uniform


def _vote(
    classes: np.ndarray,
    first: np.ndarray,
    weights: tuple[np.ndarray, np.ndarray, np.ndarray],
    strides: tuple[int, int, int],
    gains: np.ndarray,
    outline: np.ndarray | None = None,
    envelope: np.ndarray | None = None,
) -> np.ndarray:
    """The winning class of n output voxels.

    classes: flat padded source. first: [n] flat index of each window's first voxel. weights: per axis [taps, n].
    outline: flat padded smooth body indicator; where given, it decides between background and the classes of the bool
    table ``envelope``.
    """
    taps = [np.arange(len(part)) for part in weights]
    order = np.stack(np.meshgrid(*taps, indexing="ij"), -1).reshape(-1, 3)
    middle = np.array([(len(part) - 1) / 2 for part in weights])
    order = order[np.argsort(np.abs(order - middle).sum(axis=1), kind="stable")]  # heaviest first: they take the slots
    n = first.size
    rows = np.arange(n)
    names = np.full((_SLOTS, n), -1, np.int16)
    scores = np.zeros((_SLOTS, n), np.float32)
    used = np.zeros(n, np.int8)
    open_slots = 0
    body = np.zeros(n, np.float32)
    for i, j, k in order:
        tap = first + (i * strides[0] + j * strides[1] + k * strides[2])
        seen = classes.take(tap)
        weight = weights[0][i] * weights[1][j] * weights[2][k]
        if outline is not None:
            body += weight * outline.take(tap)
        known = np.zeros(n, bool)
        for slot in range(open_slots):
            match = names[slot] == seen
            scores[slot] += weight * match
            known |= match
        new = rows[~known]
        if new.size:
            new = new[used[new] < _SLOTS]
            slots = used[new]
            names[slots, new] = seen[new]
            scores[slots, new] = weight[new]
            used[new] += 1
            open_slots = int(used.max())
    scores *= gains[names]  # empty slots (-1) score 0 whatever gain they read
    winner = names[scores[:open_slots].argmax(axis=0), rows]
    if outline is not None and envelope is not None:
        scores[names == 0] = 0
        inner = names[scores[:open_slots].argmax(axis=0), rows]
        winner = np.where((winner == 0) & (body >= 0.5) & envelope[inner], inner, winner)
        winner = np.where((body < 0.5) & envelope[winner], 0, winner)
    return winner


class _Source:
    """The padded source classes and everything the interpolation needs of them."""

    def __init__(
        self,
        classes: np.ndarray,
        n_classes: int,
        axes: tuple[_Axis, _Axis, _Axis],
        start: np.ndarray,
        envelope: np.ndarray | None,
    ) -> None:
        self.axes = axes
        self.size = classes.shape
        self.gains = volume_gains(classes, n_classes, axes, start)
        self.pad = [axis.taps + 2 for axis in axes]
        padded = np.pad(classes, [(n, n) for n in self.pad])
        self.uniform = _uniform_windows(padded, (axes[0].taps, axes[1].taps, axes[2].taps)).ravel()
        self.strides = (padded.shape[1] * padded.shape[2], padded.shape[2], 1)
        self.classes = padded.ravel()
        self.envelope = envelope
        self.outline: np.ndarray | None = None
        if envelope is not None:
            body = ndimage.gaussian_filter((classes != 0).astype(np.float32), _OUTLINE_SIGMA, mode="nearest", truncate=3)
            self.outline = np.pad(body, [(n, n) for n in self.pad]).ravel()

    def clip(self, axis: int, position: np.ndarray) -> np.ndarray:
        """Positions, with those far outside moved to where every tap falls on the padding."""
        reach = self.axes[axis].taps / 2 + 0.5
        return np.clip(position, -0.5 - reach, self.size[axis] - 0.5 + reach)

    def first(self, axis: int, position: np.ndarray) -> np.ndarray:
        """Share of the flat index of a window's first voxel that ``axis`` contributes, intp."""
        return (self.axes[axis].first(position).astype(np.intp) + self.pad[axis]) * self.strides[axis]

    def vote(self, first: np.ndarray, positions: list[np.ndarray]) -> np.ndarray:
        """Classes of the output voxels whose windows hold more than one."""
        x, y, z = (axis.weights(position) for axis, position in zip(self.axes, positions, strict=True))
        return _vote(self.classes, first, (x, y, z), self.strides, self.gains, self.outline, self.envelope)


def _fill_slab(source: _Source, slab: np.ndarray, places: list[np.ndarray], moved: np.ndarray | None, threads: int) -> None:
    """Write the classes of one slab ([x, y, z], contiguous). places: source positions per axis; moved: displacement in voxels."""
    if moved is None:
        steps = [source.first(axis, places[axis]) for axis in range(3)]
        first = (steps[0][:, None, None] + steps[1][None, :, None] + steps[2]).ravel()
        dense = None
    else:
        shapes = ((-1, 1, 1), (1, -1, 1), (1, 1, -1))
        dense = [source.clip(axis, places[axis].reshape(shapes[axis]) + moved[axis]).ravel() for axis in range(3)]
        first = source.first(0, dense[0]) + source.first(1, dense[1]) + source.first(2, dense[2])
    flat = slab.reshape(-1)
    np.take(source.classes, first, out=flat)
    mixed = np.flatnonzero(~source.uniform.take(first))

    def settle(start: int) -> None:
        chosen = mixed[start : start + _CHUNK]
        if dense is None:
            index = np.unravel_index(chosen, slab.shape)
            positions = [place[i] for place, i in zip(places, index, strict=True)]
        else:
            positions = [part[chosen] for part in dense]
        flat[chosen] = source.vote(first[chosen], positions)

    starts = range(0, mixed.size, _CHUNK)
    if threads > 1 and len(starts) > 1:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(settle, starts))
    else:
        for start in starts:
            settle(start)


def _classes_of(label_map: LabelMap) -> tuple[np.ndarray, np.ndarray]:
    """Consecutive classes [x, y, z] int16 of every (tissue, label) pair in use, and the pair codes in class order.

    Labels and tissues travel as pairs, so that they agree on every output voxel. Class 0 is background.
    """
    codes = label_map.voxels.astype(np.int32)
    if label_map.tissues is not None:
        codes |= label_map.tissues.astype(np.int32) << 16
    in_use = np.zeros(1 << 24 if label_map.tissues is not None else 1 << 16, bool)
    in_use[codes.ravel()] = True
    in_use[0] = True
    pairs = np.flatnonzero(in_use)
    table = np.zeros(in_use.size, np.int16)
    table[pairs] = np.arange(pairs.size)
    return table[codes], pairs


def resample(
    label_map: LabelMap,
    size: tuple[int, int, int],
    spacing: Triple,
    center_index: Triple | None = None,
    displacement: Displacement | None = None,
    *,
    threads: int = 1,
) -> LabelMap:
    """The label map (and its tissues, if it has any) on a new grid along the same axes.

    size: voxels [x, y, z] of the output. spacing: mm per output voxel.
    center_index: index coordinates in ``label_map`` of the middle of the output; None: the middle of the label map.
    displacement: a warp or a pose to apply in the same interpolation; its places are mm along the axes from voxel (0, 0, 0).
    threads: threads to vote with; the result is the same for any number.

    Voxels beyond the source are background. The grid of the source itself returns the same voxels exactly, and a grid
    that is shifted by whole voxels copies them.
    """
    centre = np.asarray(center_index if center_index is not None else (np.asarray(label_map.size) - 1) / 2, float)
    affine = output_affine(label_map, size, spacing, (float(centre[0]), float(centre[1]), float(centre[2])))
    ratios = np.asarray(spacing, float) / np.asarray(label_map.spacing)
    ratios = np.where(np.abs(ratios - 1) < 1e-6, 1.0, ratios)
    start = centre - (np.asarray(size) - 1) / 2 * ratios
    nearest = np.round(start)
    start = np.where(np.abs(start - nearest) < 1e-4, nearest, start)
    if displacement is None and (ratios == 1).all() and (start == nearest).all():
        whole = (int(nearest[0]), int(nearest[1]), int(nearest[2]))
        voxels = _window(label_map.voxels, whole, size)
        tissues = None if label_map.tissues is None else _window(label_map.tissues, whole, size)
        return replace(label_map, voxels=voxels, affine=affine, tissues=tissues)

    classes, pairs = _classes_of(label_map)
    start = start + _OFF_BOUNDARY
    envelope = (pairs & 0xFFFF) == _ENVELOPES.get(label_map.vocabulary.name, -1)
    smooth = (ratios < _OUTLINE_BELOW).sum() >= 2 and envelope.any()
    axes = (_Axis(float(ratios[0])), _Axis(float(ratios[1])), _Axis(float(ratios[2])))
    source = _Source(classes, pairs.size, axes, start, envelope if smooth else None)
    places = [s + r * np.arange(n) for s, r, n in zip(start, ratios, size, strict=True)]
    out = np.empty(size, np.int16)
    planes = max(1, _SLAB // (size[1] * size[2]))
    for begin in range(0, size[0], planes):
        part = slice(begin, min(begin + planes, size[0]))
        here = [places[0][part], places[1], places[2]]
        moved = None
        if displacement is not None:
            x, y, z = (place * mm for place, mm in zip(here, label_map.spacing, strict=True))
            moved = displacement.at(x, y, z)
            moved /= np.asarray(label_map.spacing, np.float32)[:, None, None, None]
        else:
            here = [source.clip(axis, place) for axis, place in enumerate(here)]
        _fill_slab(source, out[part], here, moved, threads)
    voxels = (pairs & 0xFFFF).astype(label_map.voxels.dtype)[out]
    tissues = (pairs >> 16).astype(np.uint8)[out] if label_map.tissues is not None else None
    return replace(label_map, voxels=voxels, affine=affine, tissues=tissues)


def _window(array: np.ndarray, start: tuple[int, int, int], size: tuple[int, int, int]) -> np.ndarray:
    """``array`` from index ``start`` on, ``size`` voxels long, background beyond it."""
    out = np.zeros(size, array.dtype)
    inner, outer = [], []
    for begin, n, have in zip(start, size, array.shape, strict=True):
        low, high = max(begin, 0), min(begin + n, have)
        if low >= high:
            return out
        inner.append(slice(low, high))
        outer.append(slice(low - begin, high - begin))
    out[tuple(outer)] = array[tuple(inner)]
    return out
