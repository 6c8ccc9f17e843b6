"""Where each lesion of a vocabulary may grow."""

from __future__ import annotations

from dataclasses import dataclass

from ctmr_core.errors import AnatomyError

_BONES = (*range(33, 57), *range(63, 98), 122, 127)


@dataclass(frozen=True)
class Site:
    """The rules for one lesion.

    hosts: label ids it grows in. inside: share of the lesion that has to lie in them before it is clipped to them.
    tissues: what it may be made of. roughness: how far the outline departs from an ellipsoid, as a share of the radius.
    at_wall: it hangs on the host's surface. spills_into: labels outside the host that it may push into.
    """

    hosts: tuple[int, ...]
    inside: float
    tissues: tuple[str, ...]
    roughness: float = 0.18
    at_wall: bool = False
    spills_into: tuple[int, ...] = ()


#: Shares as in MAISI's tumour augmentation: 0.85 for lungs, 0.8 elsewhere.
MAISI_SITES: dict[str, Site] = {
    "lung tumor": Site((28, 29, 30, 31, 32), 0.85, ("lung_tumor",), roughness=0.24),
    "pancreatic tumor": Site((4,), 0.8, ("pancreatic_tumor",)),
    "hepatic tumor": Site((1,), 0.8, ("hepatic_tumor",)),
    "colon cancer primaries": Site((62,), 0.8, ("colon_tumor",), at_wall=True),
    "bone lesion": Site(_BONES, 0.8, ("bone_lesion_lytic", "bone_lesion_sclerotic")),
    "left kidney cyst": Site((14,), 0.8, ("kidney_cyst",), roughness=0.05, spills_into=(200,)),
    "right kidney cyst": Site((5,), 0.8, ("kidney_cyst",), roughness=0.05, spills_into=(200,)),
}

WHITE_MATTER_LESIONS: dict[str, tuple[int, tuple[int, ...]]] = {
    "left white matter lesion": (2, (4, 5)),
    "right white matter lesion": (41, (43, 44)),
}
"""Lesion -> (white matter, lateral ventricle) of its side."""

BRAIN_TUMOR_PARTS: tuple[str, ...] = ("brain tumor necrosis", "enhancing brain tumor", "brain tumor edema")

LESIONS: dict[str, tuple[str, ...]] = {
    "maisi": tuple(MAISI_SITES),
    "brain": (*WHITE_MATTER_LESIONS, *BRAIN_TUMOR_PARTS),
}
"""Vocabulary -> names of the lesions that ``insert_lesion`` knows."""


def check_lesion(vocabulary: str, lesion: str) -> None:
    """``AnatomyError`` unless ``lesion`` can be put into label maps of ``vocabulary``."""
    known = LESIONS.get(vocabulary, ())
    if lesion not in known:
        raise AnatomyError(f"no such lesion in the {vocabulary} vocabulary", found=lesion, allowed=known)
