"""Smooth random warps of a template: the same anatomy in another person's proportions.

A warp is the exponential of a stationary velocity field (Arsigny et al., MICCAI 2006), computed by scaling and
squaring, so it is smooth, invertible and never folds. Velocities are drawn on a coarse grid of control points about
40 mm apart, the scale on which people differ in shape without organs being torn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ctmr_core.errors import AnatomyError

CONTROL_SPACING_MM = 40.0
_NODE_SPACING_MM = 10.0  # grid on which the exponential is computed; a quarter of the control spacing
_LINEAR_SHARE = 0.3  # share of the greatest displacement that rotation and scaling may take
_SQUARINGS = 6


def _spline_matrix(positions: np.ndarray, nodes: int) -> np.ndarray:
    """Cubic B-spline weights [len(positions), nodes], float32; positions in node units, clamped to the grid."""
    positions = np.clip(positions, 0, nodes - 1)
    distance = np.abs(positions[:, None] - np.arange(-1, nodes + 1)[None])
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = np.maximum(2 - distance, 0) ** 3 / 6
    weights = np.where(distance < 1, near, far)
    matrix = weights[:, 1:-1].copy()  # control points beyond the ends repeat the outermost ones
    matrix[:, 0] += weights[:, 0]
    matrix[:, -1] += weights[:, -1]
    return matrix.astype(np.float32)


def _separable(values: np.ndarray, matrices: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
    out = np.tensordot(matrices[0], values, (1, 0))
    out = np.matmul(matrices[1], out)
    return np.matmul(out, matrices[2].T)


@dataclass(frozen=True, eq=False)
class DisplacementField:
    """A smooth displacement, evaluated at any point by cubic B-splines.

    values: [3, nodes x, nodes y, nodes z] float32, mm along the axes of the template.
    spacing_mm: distance of the nodes; origin_mm: place of node (0, 0, 0).

    Places are mm along the axes of the template from the centre of its voxel (0, 0, 0). The warped template shows at
    ``place`` what the template shows at ``place + displacement(place)``.
    """

    values: np.ndarray
    spacing_mm: float
    origin_mm: tuple[float, float, float]

    def at(self, x_mm: np.ndarray, y_mm: np.ndarray, z_mm: np.ndarray) -> np.ndarray:
        """Displacement [3, len(x), len(y), len(z)] float32 mm at the grid points of three 1-D arrays of places in mm."""
        axes = (x_mm, y_mm, z_mm)
        x, y, z = (
            _spline_matrix((np.asarray(mm, float) - origin) / self.spacing_mm, nodes)
            for mm, origin, nodes in zip(axes, self.origin_mm, self.values.shape[1:], strict=True)
        )
        return np.stack([_separable(component, (x, y, z)) for component in self.values])

    @property
    def greatest_mm(self) -> float:
        """An upper bound of the displacement in mm: the greatest one at a node (B-splines never exceed their nodes)."""
        return float(np.sqrt((self.values.astype(np.float64) ** 2).sum(axis=0)).max())

    def jacobian_determinants(self, step_mm: float = 4.0) -> np.ndarray:
        """Determinants of the warp's Jacobian on a grid of ``step_mm`` over the nodes, float32; > 0 means no folding."""
        lengths = [(nodes - 1) * self.spacing_mm for nodes in self.values.shape[1:]]
        places = [origin + np.arange(0, length, step_mm) for origin, length in zip(self.origin_mm, lengths, strict=True)]
        field = self.at(*places)
        jacobian = np.stack([np.stack(np.gradient(part, step_mm)) for part in field])
        jacobian += np.eye(3, dtype=np.float32)[:, :, None, None, None]
        return np.linalg.det(jacobian.transpose(2, 3, 4, 0, 1))


def _exponential(velocity: np.ndarray, spacing_mm: float) -> np.ndarray:
    """Scaling and squaring: the displacement after one unit of time along ``velocity`` ([3, x, y, z] mm)."""
    nodes = np.indices(velocity.shape[1:], np.float32)
    displacement = velocity / np.float32(2**_SQUARINGS)
    for _ in range(_SQUARINGS):
        places = nodes + displacement / np.float32(spacing_mm)
        moved = [ndimage.map_coordinates(part, places, order=1, mode="nearest") for part in displacement]
        displacement = displacement + np.stack(moved)
    return displacement


def _random_velocity(places: list[np.ndarray], control_mm: float, rng: np.random.Generator) -> np.ndarray:
    """Smooth random velocity [3, x, y, z], greatest speed 1, at the nodes ``places`` (mm per axis)."""
    controls = [int(np.ceil((place[-1] - place[0]) / control_mm)) + 1 for place in places]
    coefficients = rng.standard_normal((3, *controls)).astype(np.float32)
    matrices = [_spline_matrix((place - place[0]) / control_mm, n) for place, n in zip(places, controls, strict=True)]
    velocity = np.stack([_separable(part, (matrices[0], matrices[1], matrices[2])) for part in coefficients])
    return velocity / np.sqrt((velocity**2).sum(axis=0)).max()


def _linear_velocity(places: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Velocity of a small rotation and scaling about the middle, greatest speed 1."""
    turn = rng.standard_normal(3)
    scale = rng.standard_normal(3)
    generator = np.diag(scale)
    generator += np.array([[0, -turn[2], turn[1]], [turn[2], 0, -turn[0]], [-turn[1], turn[0], 0]])
    grid = np.stack(np.meshgrid(*[place - place.mean() for place in places], indexing="ij"))
    velocity = np.tensordot(generator, grid, (1, 0)).astype(np.float32)
    return velocity / np.sqrt((velocity**2).sum(axis=0)).max()


def random_displacement(
    extent_mm: tuple[float, float, float], max_mm: float, rng: np.random.Generator, *, control_mm: float = CONTROL_SPACING_MM
) -> DisplacementField:
    """A random diffeomorphic warp of a template: smooth shape change with a little rotation and scaling.

    extent_mm: size of the template in mm along its axes (voxels x spacing).
    max_mm: greatest displacement in mm; it is reached, up to the B-spline's smoothing, and never exceeded.
    rng: the only source of randomness.
    control_mm: spacing of the control points; raised to 4 x ``max_mm`` when that is more, so that large displacements
        bend a body rather than crumple it.
    """
    if not max_mm > 0 or not np.isfinite(max_mm):
        raise AnatomyError("a deformation needs a positive greatest displacement in mm", found=max_mm)
    control_mm = max(control_mm, 4 * max_mm)
    spacing = max(_NODE_SPACING_MM, control_mm / 4)
    margin = 2 * spacing
    places = [np.arange(-margin, extent + margin + spacing, spacing) for extent in extent_mm]
    velocity = (1 - _LINEAR_SHARE) * _random_velocity(places, control_mm, rng) + _LINEAR_SHARE * _linear_velocity(places, rng)
    velocity = (velocity * max_mm).astype(np.float32)
    for _ in range(2):
        displacement = _exponential(velocity, spacing)
        reached = float(np.sqrt((displacement**2).sum(axis=0)).max())
        velocity *= np.float32(max_mm / reached)
    displacement *= np.float32(max_mm / reached)
    return DisplacementField(displacement, spacing, (-margin, -margin, -margin))
