"""Each check of anatomy accepts a whole body and names what was done to it."""

from __future__ import annotations

import dataclasses
from functools import cache

import numpy as np
import pytest

from ctmr_core.anatomy.label_map import LabelMap
from ctmr_core.anatomy.vocabulary import load_vocabulary
from ctmr_core.cases.case import Case
from ctmr_core.cases.label_maps import build_label_map
from ctmr_core.quality.base import Candidate, ScoredCheck
from ctmr_core.quality.components import ComponentsCheck
from ctmr_core.quality.contacts import count_contacts
from ctmr_core.quality.neighbours import NeighboursCheck
from ctmr_core.quality.sides import OrderCheck, SidesCheck
from ctmr_core.quality.truncation import TruncationCheck
from ctmr_core.quality.volumes import VolumesCheck, norms

CHECKS: tuple[ScoredCheck, ...] = (
    VolumesCheck(),
    SidesCheck(),
    OrderCheck(),
    NeighboursCheck(),
    ComponentsCheck(),
    TruncationCheck(),
)


@cache
def body(kind: str, seed: int = 1) -> tuple[Case, LabelMap]:
    """A parametric torso at 4 mm or a head at 3 mm, cut by the lower face of the volume only where the body goes on."""
    size, mm = ((110, 84, 140), 4.0) if kind == "torso" else ((72, 84, 72), 3.0)
    case = Case(case_id="a", body=f"parametric:{kind}", body_seed=seed, sequences=("ct",), size=size, spacing=(mm, mm, mm))
    return case, build_label_map(case, None, 0)[0]


def candidate(kind: str = "torso", change=None) -> Candidate:
    case, label_map = body(kind)
    voxels = label_map.voxels.copy()
    if change is not None:
        voxels = change(voxels, {label.name: label.id for label in label_map.vocabulary})
    return Candidate(case, dataclasses.replace(label_map, voxels=voxels, tissues=None), {})


def reasons(check: ScoredCheck, *arguments) -> str:
    return " | ".join(check.run(candidate(*arguments)).reasons)


@pytest.mark.parametrize("kind", ["torso", "head"])
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_a_whole_body_is_accepted(check, kind):
    result = check.run(candidate(kind))
    assert result.passed, result.reasons
    if (check.name, kind) != ("order", "head"):  # a head has no vertebrae of its own
        assert result.scores


def test_a_mirrored_body_is_named():
    assert "left and right are swapped" in reasons(SidesCheck(), "torso", lambda v, _: v[::-1])
    assert "left and right are swapped" in reasons(SidesCheck(), "head", lambda v, _: v[::-1])


def test_one_swapped_pair_is_named():
    def swap(voxels, ids):
        table = np.arange(256, dtype=np.uint8)
        table[ids["left kidney"]], table[ids["right kidney"]] = ids["right kidney"], ids["left kidney"]
        return table[voxels]

    assert reasons(SidesCheck(), "torso", swap) == "left and right are swapped: kidney"


def relabel(old: str, new: str):
    def change(voxels, ids):
        voxels[voxels == ids[old]] = ids[new]
        return voxels

    return change


def test_a_missing_vertebra_is_named():
    assert reasons(OrderCheck(), "torso", relabel("vertebrae L2", "body")).startswith(
        "missing between its neighbours: vertebrae L2"
    )


def test_swapped_vertebrae_and_lobes_are_named():
    def swap(voxels, ids):
        table = np.arange(256, dtype=np.uint8)
        for a, b in (("vertebrae T8", "vertebrae T9"), ("left lung upper lobe", "left lung lower lobe")):
            table[ids[a]], table[ids[b]] = ids[b], ids[a]
        return table[voxels]

    found = reasons(OrderCheck(), "torso", swap)
    assert "vertebrae T9" in found
    assert "left lung lower lobe" in found


def test_organs_of_impossible_size_are_named():
    assert "liver is too large" in reasons(VolumesCheck(), "torso", relabel("body", "liver"))

    def shrink(voxels, ids):
        half = voxels[:, :, ::2] == ids["spleen"]
        voxels[:, :, ::2][half] = ids["body"]
        rest = np.flatnonzero(voxels == ids["spleen"])
        voxels.reshape(-1)[rest[25:]] = ids["body"]
        return voxels

    assert "spleen is too small" in reasons(VolumesCheck(), "torso", shrink)


def test_organs_cut_by_the_field_of_view_may_be_small():
    case, label_map = body("torso")
    liver = next(label.id for label in label_map.vocabulary if label.name == "liver")
    z = int(np.flatnonzero((label_map.voxels == liver).any(axis=(0, 1)))[2])
    cut = dataclasses.replace(label_map, voxels=label_map.voxels[:, :, : z + 1].copy(), tissues=None)
    scores = VolumesCheck().run(Candidate(case, cut, {})).scores
    assert scores["liver"] == 0.0


def relabelled_away(voxels, ids):
    """Organs without the body around them."""
    voxels[voxels == ids["body"]] = 0
    voxels[0, 0, 0] = ids["body"]
    return voxels


def test_what_the_end_of_a_template_cuts_may_be_small_and_out_of_order():
    case, label_map = body("torso")
    abdomen = np.zeros_like(label_map.voxels)
    abdomen[:, :, 52:84] = label_map.voxels[:, :, 52:84]
    cut = dataclasses.replace(label_map, voxels=abdomen, tissues=None)
    template = case.model_copy(update={"body": "template:abdomen"})
    for check in (VolumesCheck(), OrderCheck(), NeighboursCheck(), ComponentsCheck()):
        assert check.run(Candidate(template, cut, {})).passed, check.name
    assert not VolumesCheck().run(Candidate(case, cut, {})).passed  # a body made whole should not be cut in view


def test_an_organ_in_pieces_and_a_hole_in_the_body_are_named():
    def split(voxels, ids):
        liver = np.argwhere(voxels == ids["liver"])
        middle = int(np.median(liver[:, 0]))
        voxels[middle - 1 : middle + 2][voxels[middle - 1 : middle + 2] == ids["liver"]] = ids["body"]
        return voxels

    assert "liver is in pieces" in reasons(ComponentsCheck(), "torso", split)

    def hollow(voxels, ids):
        voxels[np.isin(voxels, [ids["liver"], ids["spleen"], ids["stomach"]])] = 0
        return voxels

    assert "background inside the body" in reasons(ComponentsCheck(), "torso", hollow)
    assert "inner structures lie open to the air" in reasons(NeighboursCheck(), "torso", relabelled_away)


def test_pieces_of_an_organ_the_view_cuts_count_as_one_where_they_reach_its_face():
    voxels = np.zeros((40, 40, 30), np.uint8)
    label_map = LabelMap(voxels, np.diag([4.0, 4.0, 4.0, 1.0]), load_vocabulary("maisi"))
    case = Case.model_construct(case_id="a", body="parametric:torso", sequences=("ct",), checks={}, center="", lesions=())

    def share(*boxes: tuple[slice, slice, slice], body: str = "parametric:torso") -> float | None:
        drawn = voxels.copy()
        for box in boxes:
            drawn[box] = 1
        made = Candidate(case.model_copy(update={"body": body}), dataclasses.replace(label_map, voxels=drawn), {})
        return ComponentsCheck().measure(made).get("liver")

    left, right = np.s_[5:15, 5:15, 20:30], np.s_[20:30, 5:15, 20:30]
    loose = np.s_[20:30, 20:30, 5:15]
    assert share(left, right) == 1.0
    assert share(left, right, loose) == pytest.approx(2 / 3)
    assert share(left, right, loose, body="template:t") is None


def test_a_lesion_holds_the_pieces_of_its_organ_together():
    voxels = np.zeros((40, 40, 30), np.uint8)
    voxels[5:25, 5:15, 5:15] = 1
    label_map = LabelMap(voxels, np.diag([4.0, 4.0, 4.0, 1.0]), load_vocabulary("maisi"))
    case = Case.model_construct(case_id="a", body="parametric:torso", sequences=("ct",), checks={}, center="", lesions=())

    def share(between: int) -> float:
        parted = voxels.copy()
        parted[10:13, 5:15, 5:15] = between
        parted[30:33, 5:15, 5:15] = 26  # another lesion, elsewhere
        return ComponentsCheck().measure(Candidate(case, dataclasses.replace(label_map, voxels=parted), {}))["liver"]

    assert share(between=26) == 1.0
    assert share(between=200) == pytest.approx(12 / 17)


def test_a_lesion_outside_its_organ_is_named():
    def place(voxels, ids):
        x, y, z = np.median(np.argwhere(voxels == ids["left gluteus maximus"]), axis=0).astype(int)
        voxels[x - 2 : x + 3, y - 2 : y + 3, z - 2 : z + 3] = ids["hepatic tumor"]
        return voxels

    assert "hepatic tumor is outside its organ: 0%" in reasons(NeighboursCheck(), "torso", place)

    def place_well(voxels, ids):
        x, y, z = np.median(np.argwhere(voxels == ids["liver"]), axis=0).astype(int)
        voxels[x - 2 : x + 3, y - 2 : y + 3, z - 2 : z + 3] = ids["hepatic tumor"]
        return voxels

    assert not reasons(NeighboursCheck(), "torso", place_well)


def test_strangers_that_touch_and_partners_that_part_are_named():
    assert "bladder touches liver" in reasons(NeighboursCheck(), "torso", relabel("body", "bladder"))

    def move(voxels, ids):
        voxels[voxels == ids["gallbladder"]] = ids["body"]
        x, y, z = np.median(np.argwhere(voxels == ids["bladder"]), axis=0).astype(int)
        voxels[x - 1 : x + 2, y - 1 : y + 2, z - 1 : z + 2] = ids["gallbladder"]
        return voxels

    assert "liver and gallbladder lie far apart" in reasons(NeighboursCheck(), "torso", move)


def test_a_body_that_ends_in_mid_air_is_named():
    def cut(voxels, ids):
        voxels[:, :, -30:] = 0
        return voxels

    found = reasons(TruncationCheck(), "torso", cut)
    assert "the body ends flat above" in found

    def mostly_air(voxels, ids):
        voxels[:, :, 20:] = 0
        return voxels

    assert "of the slices hold no body" in reasons(TruncationCheck(), "torso", mostly_air)


def test_contacts_are_counted_once_per_face_in_any_memory_order():
    rng = np.random.default_rng(3)
    voxels = rng.choice(np.array([0, 1, 7, 200], np.uint8), (7, 9, 300))
    expected = {}
    for axis in range(3):
        near, far = np.moveaxis(voxels, axis, 0)[:-1], np.moveaxis(voxels, axis, 0)[1:]
        for a in (0, 1, 7, 200):
            for b in (0, 1, 7, 200):
                if a < b:
                    pairs = ((near == a) & (far == b)) | ((near == b) & (far == a))
                    expected[a, b] = expected.get((a, b), 0) + int(pairs.sum())
    for order in ("C", "F"):
        contacts = count_contacts(np.asarray(voxels, order=order), (1, 7, 200))
        assert {pair: contacts.between([pair[0]], [pair[1]]) for pair in expected} == expected
        assert contacts.between([1], [999]) == 0


def test_slabs_of_a_large_volume_meet(monkeypatch):
    from ctmr_core.quality import contacts

    voxels = np.random.default_rng(5).integers(0, 4, (20, 21, 22)).astype(np.uint8)
    whole = count_contacts(voxels, (1, 2, 3)).faces
    monkeypatch.setattr(contacts, "_SLAB_VOXELS", 1000)
    assert (count_contacts(voxels, (1, 2, 3)).faces == whole).all()


def test_norms_name_labels_of_their_vocabulary():
    from ctmr_core.anatomy.vocabulary import load_vocabulary

    for (vocabulary, label), (low, high) in norms().items():
        assert label in {entry.name for entry in load_vocabulary(vocabulary)}
        assert 0 < low < high


@pytest.mark.parametrize("kind", ["torso", "head"])
def test_a_body_turned_over_is_named(kind):
    assert "front and back are swapped" in reasons(OrderCheck(), kind, lambda v, _: v[:, ::-1])
    assert "above what should lie above it" in reasons(OrderCheck(), kind, lambda v, _: v[:, :, ::-1])


@pytest.mark.parametrize(
    ("kind", "organ", "instead"),
    [("torso", "liver", "body"), ("torso", "heart", "body"), ("torso", "colon", "body"), ("head", "left putamen", "eyes")],
)
def test_an_absent_organ_is_named_in_made_bodies_only(kind, organ, instead):
    assert "not there" not in reasons(NeighboursCheck(), kind)
    gone = candidate(kind, relabel(organ, instead))
    check = NeighboursCheck()
    scores = check.measure(gone)
    named = [reason for reason in check.decide(gone.case, scores, dict(check.thresholds)) if "not there" in reason]
    assert len(named) == 1
    assert organ in named[0]
    template = gone.case.model_copy(update={"body": "template:t"})
    assert not [reason for reason in check.decide(template, scores, dict(check.thresholds)) if "not there" in reason]


def test_a_field_of_view_that_ends_below_the_heart_lacks_no_heart():
    """The tip of the left upper lobe reaches below the heart: it and the liver in view say nothing of the heart."""

    def below_t7(voxels, ids):
        voxels = relabel("heart", "body")(voxels, ids)
        return voxels[:, :, : np.flatnonzero((voxels == ids["vertebrae T7"]).any(axis=(0, 1)))[0]]

    cut = candidate("torso", below_t7)
    assert cut.structures["left lung upper lobe"].voxels >= 200
    assert "heart" not in " ".join(NeighboursCheck().run(cut).reasons)
