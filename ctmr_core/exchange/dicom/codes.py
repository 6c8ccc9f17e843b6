"""Coded names and colours of labels: SNOMED CT where DICOM lists a concept of that name, our own code otherwise."""

from __future__ import annotations

import re
from functools import cache

from highdicom.color import CIELabColor
from highdicom.sr import CodedConcept
from pydicom.sr.codedict import codes

from ctmr_core.anatomy.vocabulary import Label

PRIVATE = "99CTMR"  # private coding schemes begin with 99 (PS3.3 8.2)
LATERALITY = {"left": ("7771000", "Left"), "right": ("24028007", "Right")}  # SNOMED CT; DICOM CID 244
#: Label, without its side -> keyword of the SNOMED CT concepts of PS3.16 where the names differ.
_KEYWORDS = {
    "small bowel": "SmallIntestine",
    "esophagus": "Esophagus",
    "adrenal gland": "AdrenalGland",
    "lung upper lobe": "UpperLobeOfLung",
    "lung middle lobe": "MiddleLobeOfRightLung",
    "lung lower lobe": "LowerLobeOfLung",
    "clavicula": "Clavicle",
    "hip": "",  # the label is the hip bone, DICOM's concept the region
    "iliac artery": "CommonIliacArtery",
    "iliac vena": "CommonIliacVein",
    "costal cartilages": "CostalCartilage",
    "caudate": "CaudateNucleus",
    "pallidum": "GlobusPallidus",
    "accumbens area": "NucleusAccumbens",
    "cerebellum white matter": "CerebellarWhiteMatter",
    "cerebellum cortex": "CerebellarCortex",
    "inferior lateral ventricle": "InferiorHornOfLateralVentricle",
    "thyroid gland": "Thyroid",
    "eye lens": "CrystallineLens",
    "3rd ventricle": "ThirdVentricle",
    "4th ventricle": "FourthVentricle",
}
_LESIONS = "lesion"


def category_of(label: Label) -> CodedConcept:
    """What kind of thing it is (DICOM CID 7150)."""
    code = codes.SCT.MorphologicallyAbnormalStructure if label.group == _LESIONS else codes.SCT.AnatomicalStructure
    return CodedConcept.from_code(code)


@cache
def type_of(label: Label, vocabulary: str) -> CodedConcept:
    """What it is."""
    name = label.name.removeprefix("left ").removeprefix("right ")
    vertebra = re.fullmatch(r"vertebrae ([CTL])(\d+)", name)
    if name.startswith("rib "):
        keyword = "Rib"  # which one is in the segment's label
    elif vertebra:
        keyword = f"{vertebra[1]}{vertebra[2]}Vertebra"
    else:
        keyword = _KEYWORDS.get(name, "".join(word[:1].upper() + word[1:] for word in name.split()))
    code = getattr(codes.SCT, keyword, None) if keyword.isidentifier() else None
    if code is not None:
        return CodedConcept.from_code(code)
    return CodedConcept(value=f"{vocabulary}-{label.id}", scheme_designator=PRIVATE, meaning=label.name[:64])


def color_of(label: Label) -> CIELabColor:
    """The colour of the vocabulary, as CIELab."""
    return CIELabColor.from_rgb(*label.rgb)
