"""How far each kind of tumour is moved, and the random transforms that move it.

Ranges, shares and hosts are those of NVIDIA NV-Generate-CTMR (``scripts/augmentation.py``, Apache-2.0).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from ctmr_core.anatomy.field_of_view import bounding_box
from ctmr_core.anatomy.vocabulary import load_vocabulary
from ctmr_core.engines.maisi.mask_morphology import widened
from ctmr_core.engines.maisi.mask_postprocessing import (
    BODY,
    BONE_LESION,
    COLON,
    COLON_TUMOR,
    HEPATIC_TUMOR,
    LIVER,
    LOBES,
    LUNG_TUMOR,
    PANCREAS,
    PANCREATIC_TUMOR,
)

_FIVE_DEGREES = float(np.pi / 36)
_BONES = (*range(33, 57), *range(63, 98), 127, 114)
_SIGMA = (5.0, 8.0)  # voxels: smoothness of the elastic displacement
_MAGNITUDE = (100.0, 200.0)  # factor on the smoothed uniform noise: about 1 voxel in the end
_ELASTIC_REACH = 8  # voxels: five standard deviations of the largest displacement


@dataclass(frozen=True)
class Movement:
    """How one kind of tumour is moved.

    labels: ids of the tumour, moved as one. name: of the tumour. hosts: ids it may lie in. fallback: what fills its place
    where no host is near. translate: voxels per axis; rotate: radians about x, y and z; scale: share; each is drawn from
    -range to range. elastic: displaced elastically as well. inside: share of its voxels that must lie in the host after
    the move. closed_host: gaps of up to 4 voxels in the host count as host.
    """

    labels: tuple[int, ...]
    name: str
    hosts: tuple[int, ...]
    fallback: int
    translate: tuple[float, float, float]
    rotate: tuple[float, float, float]
    scale: tuple[float, float, float]
    inside: float = 0.8
    elastic: bool = True
    closed_host: bool = True

    @property
    def label(self) -> int:
        """The id of the tumour, or of its first part."""
        return self.labels[0]


def _members(*groups: str) -> tuple[int, ...]:
    """The ids of these groups of the brain vocabulary."""
    return tuple(label.id for label in load_vocabulary("brain").by_id.values() if label.group in groups)


_TILT = (_FIVE_DEGREES,) * 3
MOVEMENTS = (
    Movement(
        (BONE_LESION,), "bone lesion", _BONES, BODY, (5, 5, 0), (0, 0, 0.1), (0.15, 0.15, 0), elastic=False, closed_host=False
    ),
    Movement((HEPATIC_TUMOR,), "hepatic tumor", (LIVER,), LIVER, (10, 10, 10), _TILT, (0.2, 0.2, 0.2)),
    Movement(
        (LUNG_TUMOR,),
        "lung tumor",
        LOBES,
        LOBES[0],
        (20, 20, 20),
        (_FIVE_DEGREES, _FIVE_DEGREES, float(np.pi)),
        (0.15, 0.15, 0.15),
        inside=0.85,
    ),
    Movement((PANCREATIC_TUMOR,), "pancreatic tumor", (PANCREAS,), PANCREAS, (15, 15, 15), _TILT, (0.1, 0.1, 0.1)),
    Movement((COLON_TUMOR,), "colon cancer primaries", (COLON,), COLON, (5, 5, 5), _TILT, (0.1, 0.1, 0.1)),
)
"""In the order in which the reference looks for them: ids of the maisi vocabulary."""

BRAIN_TUMOUR_PARTS = (401, 402, 403)
"""Necrosis, oedema and enhancing part: the same ids in the brain vocabulary and in NVIDIA's ``label_dict_ctmr.json``."""
REFERENCE_BRAIN = 22
BRAIN_MOVEMENTS = (
    Movement(
        BRAIN_TUMOUR_PARTS,
        "brain tumor",
        _members("brain", "fluid", "lesion"),
        REFERENCE_BRAIN,
        (3, 3, 3),
        (float(np.pi / 90),) * 3,
        (0.2, 0.2, 0.2),
    ),
)
"""In the brain vocabulary. The reference lets this tumour lie anywhere in the head, and puts its own id of the brain in its
place."""

Mover = Callable[[float], np.ndarray]
"""One random move: share of the ranges to use (0-1) -> the moved tumour [x, y, z], its ids on a background of 0."""


def monai_mover(movement: Movement, tumour: np.ndarray, seed: int) -> Mover:
    """Moves as the reference makes them, over the whole volume, by MONAI's transforms; the share is ignored.

    tumour: its ids [x, y, z] on a background of 0.
    """
    import torch
    from monai.transforms import Rand3DElastic, RandAffine

    ranges: dict[str, Any] = {
        "translate_range": movement.translate,
        "rotate_range": movement.rotate,
        "scale_range": movement.scale,
        "prob": 1.0,
        "mode": "nearest",
        "padding_mode": "zeros",
    }
    transform: Any = RandAffine(**ranges)
    if movement.elastic:
        transform = Rand3DElastic(sigma_range=_SIGMA, magnitude_range=_MAGNITUDE, **ranges)
    transform.set_random_state(seed=seed)
    volume = torch.from_numpy(tumour[None].astype(np.float32))

    def move(_share: float) -> np.ndarray:
        moved = transform(volume, spatial_size=tumour.shape)
        return np.asarray(moved[0]).astype(tumour.dtype)

    return move


def local_mover(movement: Movement, tumour: np.ndarray, rng: np.random.Generator) -> Mover:
    """The same family of moves, computed only where the tumour arrives.

    The tumour (its ids [x, y, z] on a background of 0) is scaled and rotated about the middle of the volume and translated;
    elastic displacements are uniform noise smoothed with a Gaussian. Nearest-neighbour lookup.
    """
    size = np.array(tumour.shape)
    centre = (size - 1) / 2
    source = bounding_box(tumour > 0)
    if source is None:
        raise ValueError("an empty tumour cannot be moved")
    piece = tumour[source]
    low = np.array([side.start for side in source])
    corners = np.array(np.meshgrid(*[(side.start - 0.5, side.stop - 0.5) for side in source], indexing="ij")).reshape(3, -1)

    def move(share: float) -> np.ndarray:
        matrix, shift = _affine(movement, rng, share)
        noise_seed = rng.integers(2**63)
        sigma, magnitude = rng.uniform(*_SIGMA), share * rng.uniform(*_MAGNITUDE)
        arrival = np.linalg.solve(matrix, corners - centre[:, None] - shift[:, None]) + centre[:, None]
        reach = _ELASTIC_REACH if movement.elastic else 1
        first = np.clip(np.floor(arrival.min(axis=1)).astype(int), 0, size - 1)
        last = np.clip(np.ceil(arrival.max(axis=1)).astype(int) + 1, first + 1, size)
        x, y, z = (slice(int(a), int(b)) for a, b in zip(first, last, strict=True))
        box = widened((x, y, z), reach, tumour.shape)
        places = np.stack(np.meshgrid(*[np.arange(side.start, side.stop, dtype=np.float32) for side in box], indexing="ij"))
        if movement.elastic:
            noise = np.random.Generator(np.random.Philox(noise_seed))
            for axis in places:
                axis += magnitude * ndimage.gaussian_filter(noise.uniform(-1, 1, axis.shape), sigma, mode="reflect", truncate=3)
        flat = places.reshape(3, -1) - centre.astype(np.float32)[:, None]
        origin = (shift + centre - low).astype(np.float32)
        index = np.rint(matrix.astype(np.float32) @ flat + origin[:, None]).astype(np.int32)
        inside = ((index >= 0) & (index < np.array(piece.shape)[:, None])).all(axis=0)
        arrived = np.zeros(flat.shape[1], tumour.dtype)
        i, j, k = index[:, inside]
        arrived[inside] = piece[i, j, k]
        moved = np.zeros(tumour.shape, tumour.dtype)
        moved[box] = arrived.reshape(places.shape[1:])
        return moved

    return move


def _affine(movement: Movement, rng: np.random.Generator, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Matrix [3, 3] and shift [3] (voxels), output -> source, both about the middle of the volume."""
    draws = rng.uniform(-1, 1, (3, 3)) * share
    angles, shift, stretch = (
        draws[i] * np.asarray(limit) for i, limit in enumerate((movement.rotate, movement.translate, movement.scale))
    )
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        turn = np.eye(3)
        one, other = [i for i in range(3) if i != axis]
        turn[one, one] = turn[other, other] = np.cos(angle)
        turn[one, other], turn[other, one] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ turn
    return matrix @ np.diag(1 + stretch), matrix @ shift
