"""Does each structure lie where it belongs: lesions in their hosts, organs inside the body, partners beside each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from ctmr_core.anatomy.vocabulary import Vocabulary
from ctmr_core.cases.case import Case
from ctmr_core.quality.base import Candidate, ScoredCheck
from ctmr_core.quality.contacts import Contacts
from ctmr_core.quality.settings import Thresholds
from ctmr_core.quality.structures import Structure, box_gap, ends_in_view, is_surrounded, shows_anatomy

#: Structures that touch or nearly touch in everybody: the pair and the mm their boxes may lie apart (coarse voxels included).
PARTNERS: dict[str, tuple[tuple[str, str, float], ...]] = {
    "maisi": (
        ("liver", "gallbladder", 15.0),
        ("left kidney", "left adrenal gland", 25.0),
        ("right kidney", "right adrenal gland", 25.0),
        ("pancreas", "duodenum", 15.0),
        ("heart", "left lung lower lobe", 15.0),
        ("heart", "aorta", 15.0),
        ("sacrum", "left hip", 15.0),
        ("sacrum", "right hip", 15.0),
        ("vertebrae L5", "vertebrae L4", 15.0),
        ("vertebrae L3", "left autochthon", 15.0),
    ),
    "brain": (
        ("left thalamus", "3rd ventricle", 10.0),
        ("right thalamus", "3rd ventricle", 10.0),
        ("brain stem", "4th ventricle", 10.0),
        ("left putamen", "left pallidum", 8.0),
        ("right putamen", "right pallidum", 8.0),
    ),
}
#: Never in contact: what lies between them is thick in everybody.
STRANGERS: dict[str, tuple[tuple[str, str], ...]] = {
    "maisi": (
        ("bladder", "liver"),
        ("bladder", "left lung lower lobe"),
        ("bladder", "right lung lower lobe"),
        ("bladder", "heart"),
        ("left lung upper lobe", "right lung lower lobe"),
        ("left kidney", "right kidney"),
        ("brain", "heart"),
        ("spleen", "right kidney"),
    ),
    "brain": (("left putamen", "right putamen"), ("left hippocampus", "right hippocampus"), ("eyes", "brain stem")),
}
#: organ -> structures above and below it: where both are in view, and nothing is cut off at the sides, so is the organ.
WITNESSES: dict[str, dict[str, tuple[str, ...]]] = {
    "maisi": {
        "liver": ("right kidney", "right lung lower lobe"),
        "spleen": ("left kidney", "left lung lower lobe"),
        "stomach": ("left kidney", "left lung lower lobe"),
        "pancreas": ("left lung lower lobe", "vertebrae L3"),
        "heart": ("left lung upper lobe", "vertebrae T7", "liver"),  # the lingula alone may reach below the heart
        "left lung lower lobe": ("left lung upper lobe", "spleen"),
        "right lung lower lobe": ("right lung upper lobe", "liver"),
        "right lung middle lobe": ("right lung upper lobe", "right lung lower lobe"),
        "aorta": ("vertebrae L1", "vertebrae L2"),
        "colon": ("liver", "bladder"),
        "small bowel": ("liver", "bladder"),
        "bladder": ("left gluteus maximus", "right gluteus maximus", "prostate"),
    },
    "brain": {
        "brain stem": ("left thalamus", "left cerebellum cortex"),
        "3rd ventricle": ("left thalamus", "right thalamus"),
    },
}
_WITNESS_VOXELS = 200
#: lesion -> labels it may grow in; others of its surface are foreign. Lesions may border on each other.
HOSTS: dict[str, tuple[str, ...]] = {
    "lung tumor": (
        "left lung upper lobe",
        "left lung lower lobe",
        "right lung upper lobe",
        "right lung middle lobe",
        "right lung lower lobe",
    ),
    "pancreatic tumor": ("pancreas",),
    "hepatic tumor": ("liver", "hepatic vessel"),
    "colon cancer primaries": ("colon", "body"),
    "left kidney cyst": ("left kidney",),
    "right kidney cyst": ("right kidney",),
}
#: Groups of labels that the skin, or its stand-in, always covers.
_INNER_GROUPS = frozenset({"organ", "heart", "lung", "bone", "vessel"})
_ORGAN_GROUPS = frozenset({"organ", "heart", "lung", "brain"})
_BODY = "body"
_OTHER = {"left": "right", "right": "left"}
#: Both sides of these reach about as far, so the one is not whole while the other is out of view.
_TWIN_GROUPS = frozenset({"brain"})
_TWIN_VOXELS = 100


class NeighboursCheck(ScoredCheck):
    """Organs don't lie open to the air, strangers don't touch, partners are near, lesions are in their hosts, and no organ is
    absent where what lies on two sides of it, or its twin on the other side of the body, is in view.

    Templates may lack labels, so absence is only asked of made bodies.
    Openness and contacts are only asked of label maps that have a body around their organs.
    """

    name = "neighbours"
    version = "5"
    #: host_share: of a lesion's surface on its host or another lesion; lesions are clipped to 80 % of their
    #: volume inside the host.
    #: open_share: of the surface of all inner structures together that faces background.
    thresholds: ClassVar[Thresholds] = {"host_share": 0.3, "open_share": 0.02, "stranger_faces": 4.0, "absent": 0.0}

    def applies(self, case: Case) -> bool:
        return shows_anatomy(case)

    def measure(self, candidate: Candidate) -> dict[str, float]:
        vocabulary = candidate.label_map.vocabulary
        structures, contacts = candidate.structures, candidate.contacts
        scores = {}
        for a, b, allowed in PARTNERS.get(vocabulary.name, ()):
            if a in structures and b in structures and structures[a].whole and structures[b].whole:
                scores[f"apart/{a}/{b}"] = box_gap(structures[a], structures[b]) - allowed
        for a, b in STRANGERS.get(vocabulary.name, ()):
            if a in structures and b in structures:
                scores[f"touch/{a}/{b}"] = float(contacts.between([structures[a].id], [structures[b].id]))
        if _sides_in_view(candidate):
            scores |= {f"absent/{name}": 1.0 for name in _absent(structures, vocabulary)}
        lesions = [s.id for s in structures.values() if vocabulary.label(s.id).group == "lesion"]
        for name, hosts in HOSTS.items():
            if name in structures and any(host in structures for host in hosts):
                own = structures[name].id
                inside = [structures[host].id for host in hosts if host in structures] + [i for i in lesions if i != own]
                scores[f"host/{name}"] = contacts.between([own], inside) / max(contacts.surface(own), 1)
        if _BODY in structures and is_surrounded(candidate) and not ends_in_view(candidate):
            inner = [s.id for s in structures.values() if vocabulary.label(s.id).group in _INNER_GROUPS]
            scores["open_share"] = _open_share(contacts, inner)
        return scores

    def decide(self, case: Case, scores: Mapping[str, float], limits: Mapping[str, float]) -> list[str]:
        reasons = []
        absent = [name.removeprefix("absent/") for name in scores if name.startswith("absent/")]
        if len(absent) > limits["absent"] and case.template_id is None:
            reasons.append(f"not there, though what lies around it is: {', '.join(absent[:6])}")
        for name, value in scores.items():
            kind, _, rest = name.partition("/")
            a, _, b = rest.partition("/")
            if kind == "apart" and value > 0:
                reasons.append(f"{a} and {b} lie far apart: {value:.0f} mm more than allowed")
            elif kind == "touch" and value > limits["stranger_faces"]:
                reasons.append(f"{a} touches {b} with {value:.0f} faces; allowed: {limits['stranger_faces']:g}")
            elif kind == "host" and value < limits["host_share"]:
                share = f"{value:.0%} of its surface"
                reasons.append(f"{rest} is outside its organ: {share} lies on it; allowed: {limits['host_share']:.0%} or more")
            elif kind == "open_share" and value > limits["open_share"]:
                allowed = f"{limits['open_share']:.0%}"
                reasons.append(f"inner structures lie open to the air: {value:.1%} of their surface; allowed: {allowed}")
        return reasons


def _sides_in_view(candidate: Candidate) -> bool:
    """Whether no organ touches a face of the volume along x or y; skin, arms and muscles may."""
    nx, ny, _ = candidate.label_map.size
    vocabulary, entries = candidate.label_map.vocabulary, candidate.census.entries
    boxes = [entries[s.id].box for s in candidate.structures.values() if vocabulary.label(s.id).group in _ORGAN_GROUPS]
    return all(box[0] > 0 and box[1] > 0 and box[3] < nx and box[4] < ny for box in boxes)


def _absent(structures: Mapping[str, Structure], vocabulary: Vocabulary) -> list[str]:
    """Organs that must be in view and are not: witnesses see them, or their twin is whole."""
    there = {name for name, structure in structures.items() if structure.voxels >= _WITNESS_VOXELS}
    missing = [
        name for name, around in WITNESSES.get(vocabulary.name, {}).items() if name not in structures and there >= {*around}
    ]
    for name in sorted(structures):
        side = name.partition(" ")[0]
        twin = name.replace(side, _OTHER.get(side, side), 1)
        paired = twin != name and twin in vocabulary and vocabulary.label(name).group in _TWIN_GROUPS
        if paired and twin not in structures and structures[name].whole and structures[name].voxels >= _TWIN_VOXELS:
            missing.append(twin)
    return missing


def _open_share(contacts: Contacts, inner: list[int]) -> float:
    surface = sum(contacts.surface(label) for label in inner)
    return contacts.between(inner, [0]) / surface if surface else 0.0
