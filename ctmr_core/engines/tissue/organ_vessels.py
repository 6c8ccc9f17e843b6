"""Where vessel trees grow: the arteries and veins of the lungs, the portal and hepatic veins of the liver."""

from __future__ import annotations

import numpy as np

from ctmr_core.anatomy.label_map import LabelMap
from ctmr_core.anatomy.tissues import tissue_id
from ctmr_core.engines.tissue.vessels import VoxelShares, grow_tree, rasterise, union
from ctmr_core.errors import EngineError

_LUNG_SIDES = (
    ("left lung upper lobe", "left lung lower lobe"),
    ("right lung upper lobe", "right lung middle lobe", "right lung lower lobe"),
)
_LUNG_HEIGHT = 230.0  # mm, adult in inspiration; places the hilum of a lung that the field of view cuts
_LUNG_TIPS_PER_LITRE = 260.0
_LUNG_TIP_RADIUS = 0.5  # mm
_HAS_VESSELS = 0.01  # share of an organ from which on the vessels of the tissue map are taken for its large ones
_PERIPHERAL = 1.0  # mm, radius of the thickest vessel the trees add where the large ones are there
_LIVER_TIPS_PER_LITRE = 30.0
_LIVER_TIP_RADIUS = 1.4
_MAX_TIPS = 700
_FEW_PLACES = 200


def lung_vessels(label_map: LabelMap, rng: np.random.Generator) -> VoxelShares:
    """Vessels of both lungs on the grid of ``label_map`` (maisi); only peripheral ones where the tissue map has the large."""
    if label_map.vocabulary.name != "maisi":
        return union([])
    return _lungs(label_map, rng)


def liver_vessels(label_map: LabelMap, rng: np.random.Generator) -> VoxelShares:
    """Portal and hepatic veins inside the liver (maisi); nothing where the tissue map or the labels have them."""
    if label_map.vocabulary.name != "maisi":
        return union([])
    by_name = label_map.vocabulary.by_name
    labels, tissues = _thinned(label_map)
    liver = _places(label_map, tissues == tissue_id("liver"))
    if len(liver) < _FEW_PLACES or _share_of(tissues, "hepatic_vessel", len(liver)) > _HAS_VESSELS:
        return union([])
    centre = liver.mean(axis=0)
    parts = []
    portal = _places(label_map, labels == by_name["portal vein and splenic vein"].id)
    # +x is the patient's right: the liver's gate lies medial (-x), below and behind its centre.
    gate = _nearest(liver, portal.mean(axis=0) if len(portal) else centre - np.array([25.0, 10.0, 20.0]))
    parts.append(_tree_in(label_map, liver, gate, _LIVER_TIPS_PER_LITRE, _LIVER_TIP_RADIUS, rng))
    cava = _places(label_map, labels == by_name["inferior vena cava"].id)
    top = np.array([centre[0] - 25.0, liver[:, 1].min() + 20.0, liver[:, 2].max()])
    if len(cava):
        top[:2] = cava[cava[:, 2] >= np.quantile(cava[:, 2], 0.9)].mean(axis=0)[:2]
    parts.append(_tree_in(label_map, liver, _nearest(liver, top), _LIVER_TIPS_PER_LITRE, _LIVER_TIP_RADIUS, rng))
    return _only(union(parts), label_map, "liver")


def _lungs(label_map: LabelMap, rng: np.random.Generator) -> VoxelShares:
    labels, tissues = _thinned(label_map)
    parenchyma = tissues == tissue_id("lung_parenchyma")
    count = int(np.count_nonzero(parenchyma))
    if count < _FEW_PLACES:
        return union([])
    thickest = _PERIPHERAL if _share_of(tissues, "lung_vessel", count) > _HAS_VESSELS else np.inf
    by_name = label_map.vocabulary.by_name
    sides = [_places(label_map, np.isin(labels, [by_name[name].id for name in names]) & parenchyma) for names in _LUNG_SIDES]
    body = np.flatnonzero((labels > 0).any(axis=(1, 2)))
    middle = (body.min() + body.max()) / 2 * label_map.spacing[0] * _thinning(label_map)[0]
    if all(len(side) >= _FEW_PLACES for side in sides):
        middle = float(np.mean([side[:, 0].mean() for side in sides]))
    top_of_view = (label_map.size[2] - 1) * label_map.spacing[2]
    parts = []
    for side in sides:
        if len(side) < _FEW_PLACES:
            continue
        for shift in (-6.0, 6.0):  # arteries lie in front of and above the veins at the hilum
            root = _hilum(side, middle, top_of_view) + np.array([0.0, shift, shift])
            parts.append(_tree_in(label_map, side, root, _LUNG_TIPS_PER_LITRE, _LUNG_TIP_RADIUS, rng, thickest))
    return _only(union(parts), label_map, "lung_parenchyma")


def _hilum(lung: np.ndarray, middle: float, top_of_view: float) -> np.ndarray:
    """Where the vessels enter a lung: at its medial face, half-way up the whole lung, even when that is out of view."""
    low, high = float(lung[:, 2].min()), float(lung[:, 2].max())
    centre = lung.mean(axis=0)
    cut_above, cut_below = high > top_of_view - 6.0, low < 6.0
    height = (low + high) / 2
    if cut_above and not cut_below:
        height = max(height, low + _LUNG_HEIGHT / 2)
    elif cut_below and not cut_above:
        height = min(height, high - _LUNG_HEIGHT / 2)
    level = lung[np.abs(lung[:, 2] - np.clip(height, low, high)) <= max(12.0, 0.1 * (high - low))]
    near = level if len(level) else lung
    face = near[np.argmin(np.abs(near[:, 0] - middle) + 0.7 * np.abs(near[:, 1] - centre[1]))]
    return np.array([face[0], face[1], height])


def _tree_in(
    label_map: LabelMap,
    places: np.ndarray,
    root: np.ndarray,
    tips_per_litre: float,
    tip_radius: float,
    rng: np.random.Generator,
    thickest: float = np.inf,
) -> VoxelShares:
    """Vessels from ``root`` to tips spread evenly over ``places`` (mm, thinned voxels of an organ)."""
    litres = len(places) * _thinning_mm3(label_map) / 1e6
    tips = int(np.clip(round(litres * tips_per_litre), 12, _MAX_TIPS))
    chosen = places[rng.integers(0, len(places), tips)] + rng.uniform(-1.5, 1.5, (tips, 3))
    return rasterise(grow_tree(chosen, root, tip_radius, thickest), label_map.size, label_map.spacing)


def _thinning(label_map: LabelMap) -> tuple[int, int, int]:
    """Take every n-th voxel, about 3 mm apart: enough to know an organ's extent."""
    x, y, z = (max(1, round(3.0 / mm)) for mm in label_map.spacing)
    return (x, y, z)


def _thinning_mm3(label_map: LabelMap) -> float:
    return float(np.prod(label_map.spacing) * np.prod(_thinning(label_map)))


def _tissue_map(label_map: LabelMap) -> np.ndarray:
    if label_map.tissues is None:
        raise EngineError("vessels grow in tissues, and this label map has none", fix="call with_tissues first")
    return label_map.tissues


def _thinned(label_map: LabelMap) -> tuple[np.ndarray, np.ndarray]:
    """Labels and tissues at every n-th voxel."""
    x, y, z = _thinning(label_map)
    return label_map.voxels[::x, ::y, ::z], _tissue_map(label_map)[::x, ::y, ::z]


def _places(label_map: LabelMap, mask: np.ndarray) -> np.ndarray:
    """[n, 3] mm of the voxels of a thinned ``mask``, from the centre of voxel (0, 0, 0)."""
    return np.argwhere(mask) * (np.asarray(_thinning(label_map)) * np.asarray(label_map.spacing))


def _nearest(places: np.ndarray, target: np.ndarray) -> np.ndarray:
    nearest: np.ndarray = places[np.argmin(((places - target) ** 2).sum(axis=1))]
    return nearest


def _share_of(tissues: np.ndarray, name: str, count: int) -> float:
    return float(np.count_nonzero(tissues == tissue_id(name))) / max(count, 1)


def _only(shares: VoxelShares, label_map: LabelMap, name: str) -> VoxelShares:
    """The part of ``shares`` that lies in the tissue ``name``."""
    inside = _tissue_map(label_map).reshape(-1)[shares.index] == tissue_id(name)
    return VoxelShares(shares.index[inside], shares.share[inside])
