"""Each check of images accepts rendered bodies and names what was done to them."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from scipy import ndimage

from ctmr_core.anatomy.label_map import LabelMap
from ctmr_core.anatomy.vocabulary import load_vocabulary
from ctmr_core.cases.case import Case, Lesion
from ctmr_core.cases.label_maps import build_label_map
from ctmr_core.engines import load_engine
from ctmr_core.quality.alignment import AlignmentCheck, SequencesCheck
from ctmr_core.quality.base import Candidate, ScoredCheck
from ctmr_core.quality.continuity import ContinuityCheck, _jump
from ctmr_core.quality.histogram import GapsCheck, HuSpreadCheck
from ctmr_core.quality.judge import judge
from ctmr_core.quality.lesion_contrast import LesionContrastCheck
from ctmr_core.quality.noise import NoiseCheck
from ctmr_core.quality.overlap import OverlapCheck
from ctmr_core.quality.surroundings import SurroundingsCheck

CHECKS: tuple[ScoredCheck, ...] = (
    SurroundingsCheck(),
    ContinuityCheck(),
    NoiseCheck(),
    GapsCheck(),
    HuSpreadCheck(),
    AlignmentCheck(),
    SequencesCheck(),
    LesionContrastCheck(),
)


@cache
def rendered(kind: str) -> tuple[Case, LabelMap, dict[str, np.ndarray]]:
    """An abdomen in CT without and with contrast, with a tumour of the liver; a head in T1 and T2."""
    fields: dict[str, object] = {"case_id": "a", "body": f"parametric:{kind}", "body_seed": 3}
    if kind == "torso":
        lesion = Lesion(label="hepatic tumor", diameter=30.0)
        fields |= {"sequences": ("ct", "ct_contrast"), "center": "abdomen", "lesions": (lesion,)}
        fields |= {"size": (112, 88, 56), "spacing": (3.5, 3.5, 4.0)}
    else:
        fields |= {"sequences": ("mri_t1", "mri_t2"), "size": (80, 96, 72), "spacing": (2.4, 2.4, 2.4), "center": "head"}
    case = Case.model_validate(fields)
    label_map = build_label_map(case, None, 0)[0]
    return case, label_map, load_engine("tissue").render(case, label_map, 0)


def candidate(kind: str = "torso", change=None) -> Candidate:
    case, label_map, images = rendered(kind)
    if change is not None:
        images = {name: change(image.copy()) for name, image in images.items()}
    return Candidate(case, label_map, images)


def reasons(check: ScoredCheck, change, kind: str = "torso") -> str:
    return " | ".join(check.run(candidate(kind, change)).reasons)


@pytest.mark.parametrize("kind", ["torso", "head"])
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_a_rendered_body_is_accepted(check, kind):
    plain = candidate(kind)
    if not check.applies(plain.case):
        return
    result = check.run(plain)
    assert result.passed, result.reasons
    assert result.scores


def test_a_table_beside_the_body_is_named():
    def table(image):
        image[10:-10, 3:6, :] = 200
        return image

    assert "something beside the body" in reasons(SurroundingsCheck(), table)


def with_couch(asked: bool) -> Candidate:
    plain, label_map, _ = rendered("torso")
    case = plain.model_copy(update={"engine_parameters": {"ct": {"couch": True}}, "sequences": ("ct",)})
    images = load_engine("tissue").render(case, label_map, 0)
    return Candidate(case if asked else plain, label_map, images)


def test_a_table_is_named_unless_it_was_asked_for():
    asked = with_couch(asked=True)
    assert SurroundingsCheck().run(asked).passed
    assert OverlapCheck().run(asked).passed
    assert "something beside the body" in " ".join(SurroundingsCheck().run(with_couch(asked=False)).reasons)
    image = asked.images["ct"].copy()
    image[10:-10, -6:-3, :] = 200  # in front of the body: no table that was asked for
    assert not SurroundingsCheck().run(Candidate(asked.case, asked.label_map, {"ct": image})).passed


def test_a_bright_background_is_named():
    outside = rendered("head")[1].voxels == 0

    def ghost(image):
        image[outside] += np.int16(0.6 * np.median(image[~outside]))
        return image

    assert "the background has" in reasons(SurroundingsCheck(), ghost, "head")


def test_a_seam_a_repeated_and_a_shifted_slice_are_named():
    def seam(image):
        image[:, :, image.shape[2] // 2 :] += 40
        return image

    assert "has a seam head-foot" in reasons(ContinuityCheck(), seam)

    def repeated(image):
        image[:, :, 30] = image[:, :, 31]
        return image

    assert "repeats a slice head-foot" in reasons(ContinuityCheck(), repeated)

    def noisy(image):
        image[:, :, 30] += np.random.default_rng(1).normal(0, 60, image.shape[:2]).astype(np.int16)
        return image

    assert "is broken head-foot" in reasons(ContinuityCheck(), noisy)


def test_smoothed_flat_and_drowned_images_are_named():
    def smooth(image):
        return np.round(ndimage.gaussian_filter(image.astype(np.float32), 2.5)).astype(np.int16)

    assert "correlate by" in reasons(NoiseCheck(), smooth)
    labels = rendered("torso")[1].voxels

    def flat(image):
        means = np.zeros(256)
        present = np.unique(labels)
        means[present] = ndimage.mean(image, labels, present)
        return np.round(means[labels]).astype(np.int16)

    assert "the noise in even tissue is 0 HU" in reasons(NoiseCheck(), flat)
    assert "values of liver spread by 0.0 HU" in reasons(HuSpreadCheck(), flat)

    def drowned(image):
        return image + np.random.default_rng(2).normal(0, 400, image.shape).astype(np.int16)

    assert "the noise in even tissue is" in reasons(NoiseCheck(), drowned)
    assert "values of liver spread by" in reasons(HuSpreadCheck(), drowned)


def test_values_stored_in_few_levels_are_named():
    assert "has gaps in its histogram" in reasons(GapsCheck(), lambda image: image // 4 * 4)
    assert "has gaps in its histogram" in reasons(GapsCheck(), lambda image: image * 2, "head")


@pytest.mark.parametrize("kind", ["torso", "head"])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_shift_against_the_labels_is_measured(kind, axis):
    result = AlignmentCheck().run(candidate(kind, lambda image: np.roll(image, 3, axis)))
    assert not result.passed
    along = [shift for name, shift in result.scores.items() if name.endswith("xyz"[axis])]
    assert along == pytest.approx([3.0] * len(along), abs=0.6)


def test_a_sequence_shifted_against_the_first_is_named():
    case, label_map, images = rendered("head")
    moved = {"mri_t1": images["mri_t1"], "mri_t2": np.roll(images["mri_t2"], 4, axis=1)}
    result = SequencesCheck().run(Candidate(case, label_map, moved))
    assert result.scores["mri_t2/shift"] == 4
    assert "mri_t2 lies 4 voxels beside the first sequence" in " ".join(result.reasons)


def test_a_lesion_that_does_not_show_is_named():
    case, label_map, _ = rendered("torso")
    tumor = label_map.voxels == label_map.vocabulary.label("hepatic tumor").id
    liver = label_map.voxels == label_map.vocabulary.label("liver").id

    def hide(image):
        image[tumor] = np.random.default_rng(4).choice(image[liver], np.count_nonzero(tumor))
        return image

    assert case.lesions
    assert "hepatic tumor does not show" in reasons(LesionContrastCheck(), hide)


def unlabelled(change=None) -> Candidate:
    """The head without its labels."""
    case, label_map, images = rendered("head")
    empty = LabelMap(np.zeros_like(label_map.voxels), label_map.affine, label_map.vocabulary)
    bare = case.model_copy(update={"body": "unlabelled:head", "center": ""})
    return Candidate(bare, empty, {name: change(image.copy()) if change else image for name, image in images.items()})


def test_unlabelled_bodies_are_judged_where_that_is_possible():
    found = unlabelled()
    assert ContinuityCheck().run(found).passed
    assert GapsCheck().run(found).passed
    assert not AlignmentCheck().applies(found.case)


def test_seams_and_repeated_slices_of_unlabelled_bodies_are_named():
    half = rendered("head")[1].size[2] // 2

    def seam(image):
        image[:, :, half:] += (0.3 * image[:, :, half:]).astype(np.int16)
        return image

    def repeated(image):
        image[:, :, half] = image[:, :, half - 1]
        return image

    assert "seam head-foot" in " ".join(ContinuityCheck().run(unlabelled(seam)).reasons)
    assert "repeats a slice head-foot" in " ".join(ContinuityCheck().run(unlabelled(repeated)).reasons)


def test_an_unlabelled_brain_without_its_skull_repeats_no_slice():
    def bare(image):
        away = ~np.isin(rendered("head")[1].voxels, [2, 3, 41, 42, 4, 43, 10, 49, 11, 50, 12, 51, 7, 8, 46, 47, 16])
        image[away] = 0
        return image

    assert ContinuityCheck().run(unlabelled(bare)).passed


def imported(kept, engine="import") -> Candidate:
    """The torso as if its label map had come with the scan, and held nothing but ``kept`` (label -> bool)."""
    case, label_map, images = rendered("torso")
    table = np.zeros(256, label_map.voxels.dtype)
    for label in label_map.vocabulary:
        table[label.id] = label.id if kept(label) else 0
    some = LabelMap(table[label_map.voxels], label_map.affine, label_map.vocabulary)
    return Candidate(case.model_copy(update={"engine": engine, "body": "template:a", "lesions": ()}), some, images)


def test_an_imported_map_of_organs_alone_has_no_outside():
    def kept(label):
        return label.group == "organ"

    assert judge(imported(kept)).accepted
    reasons = " | ".join(judge(imported(kept, engine="tissue")).reasons)
    assert "something beside the body" in reasons
    assert "overlap with a Dice" in reasons


def test_a_lung_that_an_imported_map_calls_body_is_no_mismatch():
    some = imported(lambda label: label.group not in ("lung", "organ") or label.name == "liver")
    voxels, vocabulary = some.label_map.voxels.copy(), some.label_map.vocabulary
    voxels[(voxels == 0) & (rendered("torso")[1].voxels != 0)] = vocabulary.label("body").id
    whole = LabelMap(voxels, some.label_map.affine, vocabulary)
    assert OverlapCheck().run(Candidate(some.case, whole, some.images)).passed
    shifted = {name: np.roll(image, 12, axis=1) for name, image in some.images.items()}
    assert not OverlapCheck().run(Candidate(some.case, whole, shifted)).passed


def test_air_that_is_no_air_is_named():
    assert "the air around the body has" in reasons(SurroundingsCheck(), lambda image: image + np.int16(80))
    assert "the air around the body has" not in reasons(SurroundingsCheck(), lambda image: image + np.int16(10))


def test_a_lesion_is_compared_with_the_label_it_lies_on():
    plain = candidate("head")
    voxels = plain.label_map.voxels.copy()
    ids = {label.name: label.id for label in plain.label_map.vocabulary}
    thalamus = voxels == ids["left thalamus"]
    inside = ndimage.binary_erosion(thalamus)
    voxels[inside] = ids["enhancing brain tumor"]  # looks like the thalamus it lies in
    case = plain.case.model_copy(update={"lesions": (Lesion(label="enhancing brain tumor", diameter=16.0),)})
    hidden = Candidate(case, LabelMap(voxels, plain.label_map.affine, plain.label_map.vocabulary), plain.images)
    scores = LesionContrastCheck().measure(hidden)
    contrasts = [value for name, value in scores.items() if "/mri" in name]
    assert 0 < max(contrasts) < 0.5, "its rim, which is partial volume, against its core; white matter would be far off"


def test_a_slope_that_the_midline_interrupts_is_no_seam():
    steps = np.array([1, 2, 3, 4, 5, 9, 10, 11, 12, 13])
    slope = np.array([0.0, 0.0, -0.1, -0.2, -0.3, 0.8, 0.6, 0.4, 0.2, 0.0])
    assert _jump(slope, np.ones(10), steps) < 0.45
    jump = np.where(steps == 3, 1.0, 0.0)
    assert _jump(jump, np.ones(10), steps) == 1.0


def test_steps_of_few_voxels_count_in_proportion():
    steps, jump = np.arange(20), np.where(np.arange(20) == 8, 1.0, 0.0)
    assert _jump(jump, np.where(steps == 8, 0.4, 1.0), steps) == pytest.approx(0.4)


def test_the_wall_and_the_blood_of_the_heart_are_no_seam_in_mr():
    heart = load_vocabulary("maisi").label("heart").id
    voxels = np.full((40, 40, 30), heart, np.uint8)
    image = np.random.default_rng(0).normal(100, 5, voxels.shape).astype(np.int16)
    image[:, :, 15:] += 60
    case = Case.model_construct(case_id="a", body="parametric:torso", sequences=("ct", "mri_t1"), checks={})
    made = Candidate(
        case, LabelMap(voxels, np.diag([4.0, 4.0, 4.0, 1.0]), load_vocabulary("maisi")), {"ct": image, "mri_t1": image}
    )
    scores = ContinuityCheck().measure(made)
    assert scores["ct/jump_head_foot"] > 1
    assert not any(name.startswith("mri_t1") for name in scores)


def test_susceptibility_moves_edges_along_the_main_field_only():
    case, label_map, images = rendered("head")
    image = np.roll(images["mri_t1"], 2, axis=2)
    scores = AlignmentCheck().measure(Candidate(case, label_map, {"mri_swi": image, "mri_t1": image}))
    assert scores["mri_t1/shift_z"] == pytest.approx(2, abs=0.3)
    assert "mri_swi/shift_z" not in scores
    assert "mri_swi/shift_x" in scores


def test_labels_a_voxel_beside_the_image_are_named():
    for axis in range(3):
        assert "voxels beside its labels" in reasons(AlignmentCheck(), lambda image, axis=axis: np.roll(image, 1, axis))
