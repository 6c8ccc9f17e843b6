"""Replacing tumours and other lesions of a label map by the organ they lie in."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ctmr_core.engines.maisi.behaviour import behaviour

HOSTS = {26: 1, 24: 4, 27: 62, 116: 14, 117: 5, 176: 22}
"""Lesion -> organ (MAISI labels): hepatic tumour, pancreatic tumour, colon cancer, cysts of both kidneys, brain tumour."""
LUNG_TUMOUR, BONE_LESION, KIDNEY_MASS = 23, 128, 129
LUNG_LOBES = (28, 29, 30, 31, 32)
BONES = (*range(33, 57), *range(63, 98), 114, 120, 122, 127)
KIDNEYS = (5, 14)
BODY = 200
_CUBE = np.ones((3, 3, 3), bool)


def remove_tumors(mask: np.ndarray, compat: bool = True) -> np.ndarray:
    """A copy of a uint8 mask [x, y, z] (MAISI labels) without tumours, which guidance takes as unconditional mask.

    Lung tumours become the lobe that most voxels around them have. compat=True keeps what the reference does: one vote for all
    lung tumours, with lobes along the volume's border counted in (its dilation pads with ones), and bone lesions (128)
    and kidney masses (129) left as they are. compat=False: each lesion becomes what most of its own neighbours are.
    """
    table = np.arange(256, dtype=np.uint8)
    for lesion, host in HOSTS.items():
        table[lesion] = host
    cleaned = table[mask]
    if behaviour(compat).partial_tumour_removal:
        if (mask == LUNG_TUMOUR).any():
            cleaned[mask == LUNG_TUMOUR] = _reference_lobe(mask)
        return cleaned
    for lesion, candidates in ((LUNG_TUMOUR, LUNG_LOBES), (BONE_LESION, BONES), (KIDNEY_MASS, KIDNEYS)):
        _replace_each(cleaned, lesion, candidates)
    return cleaned


def _reference_lobe(mask: np.ndarray) -> int:
    tumour = mask == LUNG_TUMOUR
    ring = ndimage.binary_dilation(tumour, _CUBE, border_value=1) & ~tumour
    votes = np.bincount(mask[ring], minlength=256)[list(LUNG_LOBES)]
    if not votes.any():
        votes = np.array([np.count_nonzero(mask == lobe) for lobe in LUNG_LOBES])
    return LUNG_LOBES[int(votes.argmax())]


def _replace_each(cleaned: np.ndarray, lesion: int, candidates: tuple[int, ...]) -> None:
    components, _ = ndimage.label(cleaned == lesion, _CUBE)
    overall = None
    for number, box in enumerate(ndimage.find_objects(components), start=1):
        wider = tuple(slice(max(side.start - 1, 0), side.stop + 1) for side in box)
        this = components[wider] == number
        ring = ndimage.binary_dilation(this, _CUBE) & ~this
        votes = np.bincount(cleaned[wider][ring], minlength=256)[list(candidates)]
        if not votes.any():
            if overall is None:
                overall = np.array([np.count_nonzero(cleaned == label) for label in candidates])
            votes = overall
        cleaned[wider][this] = candidates[int(votes.argmax())] if votes.any() else BODY
