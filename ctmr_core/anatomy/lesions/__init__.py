"""Lesions: placed in a host structure, with a smooth irregular shape and the volume that was asked for."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ctmr_core.anatomy.field_of_view import bounding_box
from ctmr_core.anatomy.label_map import LabelMap
from ctmr_core.anatomy.lesions import brain
from ctmr_core.anatomy.lesions.placement import largest_diameter, place_in, too_large
from ctmr_core.anatomy.lesions.shape import irregular_ball
from ctmr_core.anatomy.lesions.sites import LESIONS, MAISI_SITES, WHITE_MATTER_LESIONS, check_lesion
from ctmr_core.anatomy.tissues import tissue_id
from ctmr_core.errors import AnatomyError

__all__ = ["LESIONS", "LesionRecord", "check_lesion", "insert_lesion"]

_SMALLEST_VOXELS = 1.5  # a lesion narrower than this is a dot that no image shows


@dataclass(frozen=True)
class LesionRecord:
    """What was put where.

    label: name of the lesion. diameter_requested: mm. volume_ml: volume of the voxels that carry the label.
    centre_mm: RAS+ mm of their centroid. host: name of the structure that gave up most voxels.
    fraction_inside: share of the drawn shape that lay in the host before it was clipped to it.
    """

    label: str
    diameter_requested: float
    volume_ml: float
    centre_mm: tuple[float, float, float]
    host: str
    fraction_inside: float


def insert_lesion(
    label_map: LabelMap, lesion: str, diameter_mm: float, rng: np.random.Generator
) -> tuple[LabelMap, LesionRecord]:
    """The label map with one more lesion, and a record of it.

    lesion: one of ``LESIONS[vocabulary]``. diameter_mm: diameter of the ball of the same volume; for white matter
    lesions all foci together, for parts of a brain tumour the part with everything it encloses (the other parts come
    along). rng: decides place and shape; equal states give equal lesions.

    Only voxels of the host change (kidney cysts may bulge into unlabelled soft tissue), so vessels and neighbours stay
    whole. ``tissues`` are updated too when there are any. Raises ``AnatomyError`` when the host is missing, the lesion
    is smaller than 1.5 voxels, or none of 200 places holds enough of it; the message says what would fit.
    """
    check_lesion(label_map.vocabulary.name, lesion)
    spacing = np.asarray(label_map.spacing)
    voxel_mm = float(np.prod(spacing) ** (1 / 3))
    if not diameter_mm >= _SMALLEST_VOXELS * voxel_mm:
        raise AnatomyError(
            f"the {lesion} is too small for the voxels",
            found=f"{diameter_mm:g} mm",
            allowed=f"at least {_SMALLEST_VOXELS * voxel_mm:.2f} mm at this spacing",
            fix="ask for a larger diameter or a finer spacing",
        )
    if label_map.vocabulary.name == "maisi":
        return _insert_in_body(label_map, lesion, diameter_mm, spacing, rng)
    return _insert_in_brain(label_map, lesion, diameter_mm, spacing, rng)


def _insert_in_body(
    label_map: LabelMap, lesion: str, diameter_mm: float, spacing: np.ndarray, rng: np.random.Generator
) -> tuple[LabelMap, LesionRecord]:
    site = MAISI_SITES[lesion]
    members = np.zeros(256, bool)
    members[list(site.hosts)] = True
    host = members[label_map.voxels]
    crop = bounding_box(host)
    if crop is None:
        raise AnatomyError(
            f"the {lesion} needs a host that the label map does not show",
            found="none of its voxels",
            allowed=[label_map.vocabulary.by_id[label].name for label in site.hosts],
            fix="move or enlarge the field of view, or choose another body",
        )
    host = host[crop]
    tissue = site.tissues[int(rng.integers(len(site.tissues)))]
    shape = irregular_ball(diameter_mm, spacing, rng, roughness=site.roughness)
    place = place_in(host, shape, diameter_mm, spacing, site.inside, rng, site.at_wall)
    if place is None:
        raise too_large(lesion, diameter_mm, largest_diameter(host, spacing, site.inside))
    box = tuple(slice(a.start + b.start, a.start + b.stop) for a, b in zip(crop, place.box, strict=True))
    mask = np.zeros(label_map.size, bool)
    members[list(site.spills_into)] = True
    mask[box] = place.mask & members[label_map.voxels[box]]
    return _write(label_map, {lesion: (mask, tissue)}, lesion, diameter_mm, place.inside)


def _insert_in_brain(
    label_map: LabelMap, lesion: str, diameter_mm: float, spacing: np.ndarray, rng: np.random.Generator
) -> tuple[LabelMap, LesionRecord]:
    crop = bounding_box((label_map.voxels > 0) & (label_map.voxels < 500))
    if crop is None:
        raise AnatomyError(f"the {lesion} needs a brain to grow in", found="a label map without brain")
    voxels = label_map.voxels[crop]
    if lesion in WHITE_MATTER_LESIONS:
        foci, inside = brain.white_matter_foci(voxels, lesion, diameter_mm, spacing, rng)
        parts = {lesion: foci}
    else:
        parts, inside = brain.glioma(voxels, lesion, diameter_mm, spacing, rng)
    masks = {}
    for name, part in parts.items():
        mask = np.zeros(label_map.size, bool)
        mask[crop] = part
        masks[name] = (mask, label_map.vocabulary.label(name).tissue)
    return _write(label_map, masks, lesion, diameter_mm, inside)


def _write(
    label_map: LabelMap, parts: dict[str, tuple[np.ndarray, str]], lesion: str, diameter_mm: float, inside: float
) -> tuple[LabelMap, LesionRecord]:
    """The label map with every part written, and the record of ``lesion``."""
    mask = parts[lesion][0]
    places = np.stack(np.nonzero(mask), -1)
    given_up = np.bincount(label_map.voxels[mask])
    given_up[0] = 0
    middle = label_map.affine[:3, :3] @ places.mean(axis=0) + label_map.affine[:3, 3]
    voxels = label_map.voxels.copy()
    tissues = None if label_map.tissues is None else label_map.tissues.copy()
    for name, (part, tissue) in parts.items():
        voxels[part] = label_map.vocabulary.label(name).id
        if tissues is not None:
            tissues[part] = tissue_id(tissue)
    record = LesionRecord(
        label=lesion,
        diameter_requested=diameter_mm,
        volume_ml=float(len(places) * np.prod(label_map.spacing) / 1000),
        centre_mm=(float(middle[0]), float(middle[1]), float(middle[2])),
        host=label_map.vocabulary.label(int(given_up.argmax())).name,
        fraction_inside=float(inside),
    )
    return replace(label_map, voxels=voxels, tissues=tissues), record
