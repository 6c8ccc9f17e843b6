"""The label map: the anatomy of one case, and what every image of the case is rendered from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ctmr_core.anatomy.vocabulary import Vocabulary
from ctmr_core.errors import AnatomyError


@dataclass(frozen=True)
class LabelIntensity:
    """Intensity of one label in a template's own image: ``median`` and ``spread`` (standard deviation), e.g. HU."""

    median: float
    spread: float


@dataclass(frozen=True, eq=False)
class LabelMap:
    """Voxels that name structures, with their place in space.

    voxels: [x, y, z], RAS+ axis directions, dtype of the vocabulary (maisi uint8, brain uint16), C-contiguous.
    affine: 4x4 float64, voxel index -> RAS+ mm; may be oblique, never flips or permutes axes.
    vocabulary: what the ids mean.
    tissues: optional [x, y, z] uint8 map of tissue ids (``anatomy.tissues``) on the same grid, finer than the labels
        (skin and fat inside "body", cortical shell inside a bone). None: derived from the labels when needed.
    intensities: optional sequence -> label id -> intensity measured in the template's own image.
    """

    voxels: np.ndarray
    affine: np.ndarray
    vocabulary: Vocabulary
    tissues: np.ndarray | None = None
    intensities: Mapping[str, Mapping[int, LabelIntensity]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.voxels.ndim != 3:
            raise AnatomyError("a label map has 3 axes [x, y, z]", found=self.voxels.shape)
        if self.voxels.dtype != self.vocabulary.dtype:
            raise AnatomyError(
                f"a {self.vocabulary.name} label map is stored as {self.vocabulary.dtype}", found=str(self.voxels.dtype)
            )
        if self.tissues is not None and (self.tissues.shape != self.voxels.shape or self.tissues.dtype != np.uint8):
            raise AnatomyError(
                "the tissue map must be uint8 on the grid of the label map", found=(self.tissues.shape, str(self.tissues.dtype))
            )

    @property
    def size(self) -> tuple[int, int, int]:
        """Voxels per axis."""
        x, y, z = self.voxels.shape
        return (x, y, z)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """mm per voxel along each axis: the column norms of the affine."""
        x, y, z = (float(v) for v in np.linalg.norm(self.affine[:3, :3], axis=0))
        return (x, y, z)

    def digest(self) -> str:
        """SHA-256 hex of vocabulary name, size, affine and voxels: equal exactly when the content is."""
        sha = hashlib.sha256()
        sha.update(f"{self.vocabulary.name}|{self.size}|".encode())
        sha.update(np.ascontiguousarray(self.affine, "<f8").tobytes())
        sha.update(np.ascontiguousarray(self.voxels).data)
        if self.tissues is not None:
            sha.update(np.ascontiguousarray(self.tissues).data)
        for sequence in sorted(self.intensities):
            for label, value in sorted(self.intensities[sequence].items()):
                sha.update(f"|{sequence}|{label}|{value.median!r}|{value.spread!r}".encode())
        return sha.hexdigest()
