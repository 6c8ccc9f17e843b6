"""Body regions: which labels prove that a region is in view, and which labels a field of view is centred on.

The four regions and the labels that prove them in the ``maisi`` vocabulary are those of NVIDIA's MAISI
(``get_body_region_index_from_mask``): head 22, 120; chest 28-32; abdomen 1, 2, 3, 4, 5, 14; pelvis 93, 94.
For centring, the pelvis is taken from its own bones and organs first: femurs may reach down to the knee.
"""

from __future__ import annotations

from collections.abc import Iterable

from ctmr_core.anatomy.vocabulary import Vocabulary, load_vocabulary
from ctmr_core.errors import AnatomyError

REGIONS = ("head", "chest", "abdomen", "pelvis")

_PROOF: dict[str, dict[str, frozenset[int]]] = {
    "maisi": {
        "head": frozenset({22, 120}),
        "chest": frozenset({28, 29, 30, 31, 32}),
        "abdomen": frozenset({1, 2, 3, 4, 5, 14}),
        "pelvis": frozenset({93, 94}),
    },
}
#: region -> label ids to centre on, best first: the first set with any label in view is used.
_CENTRES: dict[str, dict[str, tuple[tuple[int, ...], ...]]] = {
    "maisi": {
        "head": ((22, 120),),
        "chest": ((28, 29, 30, 31, 32),),
        "abdomen": ((1, 3, 4, 5, 14),),
        "pelvis": ((95, 96, 97, 15, 118), (93, 94)),
    },
}


def _vocabulary(vocabulary: Vocabulary | str) -> Vocabulary:
    return load_vocabulary(vocabulary) if isinstance(vocabulary, str) else vocabulary


def regions_present(vocabulary: Vocabulary | str, label_ids: Iterable[int]) -> tuple[str, ...]:
    """The regions proved by ``label_ids``, from head to pelvis.

    Every label of the ``brain`` vocabulary proves the head. Ids outside the vocabulary prove nothing.
    """
    vocabulary = _vocabulary(vocabulary)
    present = frozenset(int(label) for label in label_ids)
    if vocabulary.name not in _PROOF:
        return ("head",) if any(label in vocabulary for label in present) else ()
    proof = _PROOF[vocabulary.name]
    return tuple(region for region in REGIONS if proof[region] & present)


def region_labels(vocabulary: Vocabulary | str, region: str) -> tuple[int, ...]:
    """The labels whose common box centre is the centre of ``region``; ``AnatomyError`` for an unknown region."""
    return center_labels(vocabulary, _known_region(vocabulary, region))


def center_labels(vocabulary: Vocabulary | str, center: str, present: Iterable[int] | None = None) -> tuple[int, ...]:
    """The labels whose common box centre a field of view is centred on.

    center: a region name, or the exact name of a label of the vocabulary.
    present: label ids in view. Given, only those are returned, and an ``AnatomyError`` says when none of them is in view.
    """
    vocabulary = _vocabulary(vocabulary)
    choices = _choices(vocabulary, center)
    if present is None:
        return tuple(label for choice in choices for label in choice)
    in_view = frozenset(int(label) for label in present)
    for choice in choices:
        found = tuple(label for label in choice if label in in_view)
        if found:
            return found
    names = [vocabulary.label(label).name for choice in choices for label in choice]
    raise AnatomyError(
        "nothing to centre on: none of the labels of this centre is in the label map",
        found=center,
        allowed="a map with " + " or ".join(names[:8]),
        fix="choose another centre, or a template that shows this one (`ctmr templates find`)",
    )


def _choices(vocabulary: Vocabulary, center: str) -> tuple[tuple[int, ...], ...]:
    if center in REGIONS:
        _known_region(vocabulary, center)
        if vocabulary.name in _CENTRES:
            return _CENTRES[vocabulary.name][center]
        return (tuple(label.id for label in vocabulary),)
    if center in vocabulary:
        return ((vocabulary.label(center).id,),)
    raise AnatomyError(
        f"the {vocabulary.name} vocabulary has no region or label of this name",
        found=center,
        allowed=[*_regions_of(vocabulary), *_near(vocabulary, center)],
    )


def _regions_of(vocabulary: Vocabulary) -> tuple[str, ...]:
    return REGIONS if vocabulary.name in _PROOF else ("head",)


def _known_region(vocabulary: Vocabulary | str, region: str) -> str:
    vocabulary = _vocabulary(vocabulary)
    if region not in _regions_of(vocabulary):
        raise AnatomyError(f"the {vocabulary.name} vocabulary has no such region", found=region, allowed=_regions_of(vocabulary))
    return region


def _near(vocabulary: Vocabulary, name: str) -> list[str]:
    import difflib

    return difflib.get_close_matches(name.lower().replace("_", " "), list(vocabulary.by_name), n=6, cutoff=0.4)
