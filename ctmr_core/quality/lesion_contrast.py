"""Can a lesion be seen against the organ it grows in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from ctmr_core.anatomy.lesions.sites import BRAIN_TUMOR_PARTS
from ctmr_core.cases.case import Case
from ctmr_core.quality.base import Candidate, ScoredCheck
from ctmr_core.quality.neighbours import HOSTS
from ctmr_core.quality.settings import Thresholds

#: Hosts of lesions of heads, for their contrast only.
_BRAIN_HOSTS = {
    "brain tumor edema": ("left cerebral white matter", "right cerebral white matter"),
    "enhancing brain tumor": ("left cerebral white matter", "right cerebral white matter"),
    "brain tumor necrosis": ("left cerebral white matter", "right cerebral white matter"),
    "left white matter lesion": ("left cerebral white matter",),
    "right white matter lesion": ("right cerebral white matter",),
}


class LesionContrastCheck(ScoredCheck):
    """Distance of a lesion's median from its host's, over the host's spread (1.4826 MAD): the largest of all sequences counts.

    The host is, of the labels the lesion may grow in, the one most of its surface lies on. The parts of a brain tumour have one
    host, the white matter around all of them, or any tissue of the brain where they touch none.

    A lesion that shows in one sequence may be hidden in others; one that shows in none teaches a network to guess.
    """

    name = "lesion_contrast"
    version = "3"
    #: Spread includes noise: 0.15 of it over some hundred voxels is still seen. Lesions under ``voxels`` are passed over.
    thresholds: ClassVar[Thresholds] = {"contrast": 0.15, "voxels": 30.0}

    def applies(self, case: Case) -> bool:
        return bool(case.lesions)

    def measure(self, candidate: Candidate) -> dict[str, float]:
        vocabulary = candidate.label_map.vocabulary
        scores = {}
        for name, hosts in {**HOSTS, **_BRAIN_HOSTS}.items():
            if name not in vocabulary or not candidate.census.voxels(vocabulary.label(name).id):
                continue
            lesion_id = vocabulary.label(name).id
            host_ids = _host(candidate, lesion_id, hosts)
            scores[f"{name}/voxels"] = float(candidate.census.voxels(lesion_id))
            for sequence in candidate.images:
                table = candidate.histogram(sequence)
                lesion, host = table.of([lesion_id]), table.of(host_ids)
                if host.voxels:
                    scores[f"{name}/{sequence}"] = abs(lesion.median - host.median) / max(1.4826 * host.mad, 1.0)
        return scores

    def decide(self, case: Case, scores: Mapping[str, float], limits: Mapping[str, float]) -> list[str]:
        asked = {lesion.label for lesion in case.lesions}
        best: dict[str, float] = {}
        for score, value in scores.items():
            name, _, what = score.partition("/")
            if what != "voxels" and name in asked and scores.get(f"{name}/voxels", 0.0) >= limits["voxels"]:
                best[name] = max(best.get(name, 0.0), value)
        return [
            f"{name} does not show: its contrast is {contrast:.2f} of its host's spread; allowed: {limits['contrast']:g} or more"
            for name, contrast in best.items()
            if contrast < limits["contrast"]
        ]


def _host(candidate: Candidate, lesion: int, hosts: tuple[str, ...]) -> list[int]:
    """Ids of the label that most of the lesion's surface lies on; all ``hosts`` where it lies on none of them."""
    vocabulary = candidate.label_map.vocabulary
    known = [vocabulary.label(host).id for host in hosts if host in vocabulary and host != "body"]
    whole = [lesion]
    if vocabulary.name == "brain" and vocabulary.label(lesion).name in BRAIN_TUMOR_PARTS:
        whole = [vocabulary.label(part).id for part in BRAIN_TUMOR_PARTS]
    brain = [label.id for label in vocabulary if label.group == "brain"] if vocabulary.name == "brain" else []
    for around in (known, brain):
        faces = {label: candidate.contacts.between(whole, [label]) for label in around}
        most = max(faces, key=lambda label: faces[label], default=0)
        if faces.get(most):
            return [most]
    return known
