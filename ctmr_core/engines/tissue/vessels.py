"""Vessel trees grown into an organ: the branching that gives lung and liver their look."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_MURRAY = 2.4  # exponent of the radius law at a branching (Murray 1926: 3; measured in lungs 2.3-3)


@dataclass(frozen=True, eq=False)
class VesselTree:
    """Nodes of a tree: ``points`` [n, 3] in mm, ``parent`` index of each (-1 for the root, node 0), ``radius`` in mm."""

    points: np.ndarray
    parent: np.ndarray
    radius: np.ndarray


@dataclass(frozen=True, eq=False)
class VoxelShares:
    """Voxels a set of vessels passes through: flat C-order ``index`` (int64, sorted) and ``share`` 0..1 of each (float32)."""

    index: np.ndarray
    share: np.ndarray


def grow_tree(
    points: np.ndarray, root: np.ndarray, leaf_radius: float, thickest: float = np.inf, balance: float = 0.55
) -> VesselTree:
    """A tree from ``root`` to every one of ``points``.

    Points are taken in order of their distance from the root; each joins the node that costs least in wire plus
    ``balance`` x path length to the root (the trade-off of Cuntz et al. 2010, which gives natural branching). Radii
    follow Murray's law from ``leaf_radius`` at the tips up to ``thickest`` (mm). points: [n, 3] mm. root: [3] mm.
    """
    order = np.argsort(((points - root) ** 2).sum(axis=1), kind="stable")
    nodes = np.concatenate([root[None], points[order]]).astype(np.float64)
    parent = np.full(len(nodes), -1, np.int64)
    path = np.zeros(len(nodes))
    for i in range(1, len(nodes)):
        distance = np.sqrt(((nodes[:i] - nodes[i]) ** 2).sum(axis=1))
        parent[i] = j = int(np.argmin(distance + balance * path[:i]))
        path[i] = path[j] + distance[j]
    flow = np.zeros(len(nodes))
    for i in range(len(nodes) - 1, 0, -1):
        flow[i] = max(flow[i], leaf_radius**_MURRAY)
        flow[parent[i]] += flow[i]
    return VesselTree(nodes, parent, np.minimum(flow ** (1.0 / _MURRAY), thickest))


def rasterise(tree: VesselTree, size: tuple[int, int, int], spacing: tuple[float, float, float]) -> VoxelShares:
    """The share of every voxel that lies in the vessels of ``tree``; its points are mm from the centre of voxel (0, 0, 0).

    A voxel at distance d from the centre line of a vessel of radius r holds clip((r - d) / voxel + 1/2, 0, 1), less
    where the vessel is thinner than the voxel.
    """
    voxel = float(np.cbrt(np.prod(spacing)))
    centres, radii = _centre_lines(tree, 0.5 * min(spacing))
    reach = np.maximum(radii + 0.5 * voxel, voxel)
    indices: list[np.ndarray] = []
    shares: list[np.ndarray] = []
    classes = np.ceil(reach / voxel).astype(np.int64)
    for width in np.unique(classes):
        chosen = classes == width
        index, share = _balls(centres[chosen], radii[chosen], float(width * voxel), voxel, size, spacing)
        indices.append(index)
        shares.append(share)
    if not indices:
        return VoxelShares(np.empty(0, np.int64), np.empty(0, np.float32))
    return _greatest(np.concatenate(indices), np.concatenate(shares))


def union(parts: list[VoxelShares]) -> VoxelShares:
    """Several sets of vessels in one: the greatest share of each voxel."""
    if not parts:
        return VoxelShares(np.empty(0, np.int64), np.empty(0, np.float32))
    return _greatest(np.concatenate([part.index for part in parts]), np.concatenate([part.share for part in parts]))


def _centre_lines(tree: VesselTree, step: float) -> tuple[np.ndarray, np.ndarray]:
    """Points every ``step`` mm along all branches, [m, 3] mm, and the radius at each; a branch tapers to its end."""
    ends = np.arange(1, len(tree.points))
    starts = tree.parent[1:]
    vectors = tree.points[ends] - tree.points[starts]
    counts = np.maximum(1, np.ceil(np.sqrt((vectors**2).sum(axis=1)) / step).astype(np.int64))
    branch = np.repeat(np.arange(len(ends)), counts)
    place = (np.arange(len(branch)) - np.repeat(np.cumsum(counts) - counts, counts) + 0.5) / counts[branch]
    centres = tree.points[starts][branch] + vectors[branch] * place[:, None]
    return centres, tree.radius[ends][branch]


def _balls(
    centres: np.ndarray,
    radii: np.ndarray,
    reach: float,
    voxel: float,
    size: tuple[int, int, int],
    spacing: tuple[float, float, float],
) -> tuple[np.ndarray, np.ndarray]:
    """Voxels within ``reach`` mm of each centre, with their shares; a voxel may be listed many times."""
    mm = np.asarray(spacing)
    nearest = np.round(centres / mm).astype(np.int64)
    half = np.ceil(reach / mm).astype(np.int64)
    grids = np.meshgrid(*[np.arange(-h, h + 1) for h in half], indexing="ij")
    offsets = np.stack([grid.ravel() for grid in grids], axis=1)
    offsets = offsets[np.sqrt(((offsets * mm) ** 2).sum(axis=1)) <= reach + voxel]
    thin = np.minimum(1.0, np.pi * (radii / voxel) ** 2).astype(np.float32)
    indices, shares = [], []
    bounds = np.asarray(size)
    for offset in offsets:
        place = nearest + offset
        distance = np.sqrt((((place * mm) - centres) ** 2).sum(axis=1))
        share = np.clip((radii - distance) / voxel + 0.5, 0.0, 1.0).astype(np.float32)
        thin_share = np.clip(1.0 - distance / voxel, 0.0, 1.0).astype(np.float32) * thin
        share = np.maximum(share, thin_share)
        inside = (share > 0.02) & np.all((place >= 0) & (place < bounds), axis=1)
        place = place[inside]
        indices.append((place[:, 0] * bounds[1] + place[:, 1]) * bounds[2] + place[:, 2])
        shares.append(share[inside])
    return np.concatenate(indices), np.concatenate(shares)


def _greatest(index: np.ndarray, share: np.ndarray) -> VoxelShares:
    order = np.argsort(index, kind="stable")
    index, share = index[order], share[order]
    if not index.size:
        return VoxelShares(index, share)
    first = np.flatnonzero(np.concatenate([[True], index[1:] != index[:-1]]))
    return VoxelShares(index[first], np.maximum.reduceat(share, first))
