"""What the tissue painters share: crops of one structure, distances in mm, smooth noise and a coarse grid."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import edt
import numpy as np
from scipy import ndimage

from ctmr_core.anatomy.label_map import LabelMap
from ctmr_core.anatomy.tissues import tissue_id

Box = tuple[slice, slice, slice]


class Canvas:
    """A label map while its tissues are painted.

    voxels: labels [x, y, z]. tissues: uint8 [x, y, z], first what the vocabulary says of each label, then refined in place.
    spacing: mm per voxel. size: voxels per axis.
    """

    def __init__(self, label_map: LabelMap, rng: np.random.Generator) -> None:
        self.voxels = label_map.voxels
        self.vocabulary = label_map.vocabulary
        self.spacing = np.asarray(label_map.spacing)
        self.size = label_map.size
        table = np.zeros(int(self.voxels.max(initial=0)) + 1, np.uint8)
        known = self.vocabulary.tissue_table[: table.size]
        table[: known.size] = known
        self.tissues = table[self.voxels]
        self._seed = int(rng.integers(2**63))

    def rng(self, name: str) -> np.random.Generator:
        """An independent generator for one structure: adding a painter never changes what another one draws."""
        return np.random.Generator(np.random.Philox(key=(zlib.crc32(name.encode()) << 64) | self._seed))

    @cached_property
    def _boxes(self) -> list[Box | None]:
        return ndimage.find_objects(self.voxels)

    def present(self, labels: Iterable[int]) -> list[int]:
        """Those of ``labels`` that the label map holds."""
        return [label for label in labels if label <= len(self._boxes) and self._boxes[label - 1] is not None]

    def box(self, labels: Iterable[int], margin_mm: float = 0.0) -> Box | None:
        """The box around ``labels`` with a margin of at least one voxel, cut to the volume; None if there is none."""
        boxes = [self._boxes[label - 1] for label in self.present(labels)]
        if not boxes:
            return None
        box = []
        for axis in range(3):
            margin = int(np.ceil(margin_mm / self.spacing[axis])) + 1
            low = min(part[axis].start for part in boxes if part) - margin
            high = max(part[axis].stop for part in boxes if part) + margin
            box.append(slice(max(low, 0), min(high, self.size[axis])))
        return box[0], box[1], box[2]

    def members(self, labels: Iterable[int]) -> np.ndarray:
        """Bool table, index = label id: which ids are ``labels``."""
        table = np.zeros(max(len(self._boxes), 1) + 1, bool)
        table[self.present(labels)] = True
        return table

    def structures(self, labels: Iterable[int]) -> Iterator[Structure]:
        """Each of ``labels`` that is there, one after the other."""
        for label in self.present(labels):
            box = self.box((label,))
            if box is not None:
                yield Structure(self, label, box, self.voxels[box] == label)

    def structure(self, labels: Iterable[int]) -> Structure | None:
        """All of ``labels`` together as one structure; None if there is none."""
        labels = list(labels)
        box = self.box(labels)
        if box is None:
            return None
        return Structure(self, labels[0], box, self.members(labels)[self.voxels[box]])


@dataclass(eq=False)
class Structure:
    """One structure in its crop: ``mask`` bool [x, y, z] on ``canvas`` voxels ``box``."""

    canvas: Canvas
    label: int
    box: Box
    mask: np.ndarray

    @cached_property
    def depth(self) -> np.ndarray:
        """float32 mm from the surface to each voxel centre inside (first layer: half a voxel); <= 0 outside."""
        return distance_inside(self.mask, self.canvas.spacing) - np.float32(self.canvas.spacing.min() / 2)

    @property
    def volume_ml(self) -> float:
        return float(self.mask.sum() * self.canvas.spacing.prod() / 1000)

    @cached_property
    def axes_mm(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """mm along each axis from the structure's centroid, shaped to broadcast over the crop."""
        counts = [self.mask.sum(axis=tuple(o for o in range(3) if o != axis)) for axis in range(3)]
        axes = []
        for axis, count in enumerate(counts):
            centre = float((count * np.arange(count.size)).sum() / max(count.sum(), 1))
            shape = [1, 1, 1]
            shape[axis] = -1
            axes.append(((np.arange(count.size) - centre) * self.canvas.spacing[axis]).astype(np.float32).reshape(shape))
        return axes[0], axes[1], axes[2]

    def touches_edge(self) -> bool:
        """Whether the field of view cuts the structure."""
        for axis, part in enumerate(self.box):
            if (part.start == 0 and self.mask.take(0, axis).any()) or (
                part.stop == self.canvas.size[axis] and self.mask.take(-1, axis).any()
            ):
                return True
        return False

    def paint(self, where: np.ndarray, tissue: str) -> None:
        """Write ``tissue`` on the voxels of the structure where the bool array ``where`` (of the crop) is true."""
        self.canvas.tissues[self.box][self.mask & where] = tissue_id(tissue)

    def noise(self, scale_mm: float, name: str) -> np.ndarray:
        """Smooth noise on the crop, float32 with mean 0 and standard deviation about 1; see ``smooth_noise``."""
        return smooth_noise(self.mask.shape, self.canvas.spacing, scale_mm, self.canvas.rng(f"{self.label}/{name}"))


def distance_inside(mask: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """float32 mm from each true voxel to the nearest false one; faces of the array are not a surface."""
    distance = edt.edt(np.ascontiguousarray(mask), anisotropy=tuple(spacing.tolist()), black_border=False, parallel=1)
    return np.where(np.isfinite(distance), distance, np.float32(1e4)).astype(np.float32)


def distance_outside(mask: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """float32 mm from each false voxel to the nearest true one, 0 on true voxels; 1e4 when nothing is true."""
    if not mask.any():
        return np.full(mask.shape, 1e4, np.float32)
    return distance_inside(~mask, spacing)


def voxel_offsets(spacing: np.ndarray, reach_mm: float) -> np.ndarray:
    """Voxel offsets [n, 3] closer than ``reach_mm``, without (0, 0, 0)."""
    axes = [np.arange(-int(reach_mm / mm), int(reach_mm / mm) + 1) for mm in spacing]
    offsets = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    distance = np.linalg.norm(offsets * spacing, axis=1)
    return offsets[(distance > 0) & (distance < reach_mm)]


def interpolation_matrix(positions: np.ndarray, nodes: int, order: int) -> np.ndarray:
    """Weights [len(positions), nodes] float32 of linear (1) or quadratic-smooth cubic (3) B-splines, ends repeated."""
    distance = np.abs(np.clip(positions, 0, nodes - 1)[:, None] - np.arange(-1, nodes + 1)[None])
    if order == 1:
        weights = np.maximum(1 - distance, 0)
    else:
        weights = np.where(distance < 1, 2 / 3 - distance**2 + distance**3 / 2, np.maximum(2 - distance, 0) ** 3 / 6)
    matrix = weights[:, 1:-1].copy()
    matrix[:, 0] += weights[:, 0]
    matrix[:, -1] += weights[:, -1]
    return matrix.astype(np.float32)


def expand(values: np.ndarray, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Separable interpolation of ``values`` [x, y, z] float32 with one matrix per axis."""
    return np.matmul(np.matmul(y, np.tensordot(x, values, (1, 0))), z.T)


def smooth_noise(size: tuple[int, ...], spacing: np.ndarray, scale_mm: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise with structures of about ``scale_mm``, float32 of shape ``size``, mean 0, standard deviation about 1."""
    nodes = [int(np.ceil(n * mm / scale_mm)) + 3 for n, mm in zip(size, spacing, strict=True)]
    values = rng.standard_normal(nodes, dtype=np.float32)
    matrices = [
        interpolation_matrix(1 + np.arange(n) * mm / scale_mm, count, 3)
        for n, mm, count in zip(size, spacing, nodes, strict=True)
    ]
    # a cubic B-spline keeps 0.479 of the variance of its coefficients along each axis, averaged over position
    return expand(values, *matrices) * np.float32(0.479**-1.5)


class CoarseGrid:
    """Every k-th voxel of the canvas, about ``spacing_mm`` apart, with margins that continue the outermost planes.

    Hulls and muscle walls are smooth at centimetres, so they are computed here and interpolated back.
    """

    def __init__(self, canvas: Canvas, spacing_mm: float, margin_mm: float) -> None:
        self.canvas = canvas
        self.steps = [max(1, round(spacing_mm / mm)) for mm in canvas.spacing]
        self.spacing = canvas.spacing * self.steps
        picks = [slice(step // 2, None, step) for step in self.steps]
        self.first = [min(step // 2, n - 1) for step, n in zip(self.steps, canvas.size, strict=True)]
        picks = [slice(start, None, step) for start, step in zip(self.first, self.steps, strict=True)]
        self.margin = [int(np.ceil(margin_mm / mm)) for mm in self.spacing]
        self.voxels = np.pad(canvas.voxels[tuple(picks)], [(n, n) for n in self.margin], mode="edge")

    def mask(self, labels: Iterable[int]) -> np.ndarray:
        """Where the coarse grid shows one of ``labels``."""
        return self.canvas.members(labels)[self.voxels]

    def matrix(self, axis: int, part: slice = slice(None)) -> np.ndarray:
        """Linear interpolation from the coarse grid to the canvas voxels ``part`` of ``axis``."""
        index = np.arange(self.canvas.size[axis])[part]
        position = (index - self.first[axis]) / self.steps[axis] + self.margin[axis]
        return interpolation_matrix(position, self.voxels.shape[axis], 1)

    def nearest(self, axis: int, part: slice = slice(None)) -> np.ndarray:
        """Index of the nearest coarse voxel for the canvas voxels ``part`` of ``axis``."""
        index = np.arange(self.canvas.size[axis])[part]
        position = np.round((index - self.first[axis]) / self.steps[axis]).astype(int) + self.margin[axis]
        return np.clip(position, 0, self.voxels.shape[axis] - 1)
