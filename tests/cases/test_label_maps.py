"""The label map of a case: the right grid, the same person everywhere, lesions by case and attempt."""

from __future__ import annotations

import numpy as np
import pytest

from ctmr_core.anatomy.templates.importing import import_template
from ctmr_core.anatomy.templates.library import TemplateLibrary
from ctmr_core.cases.case import Case, Lesion
from ctmr_core.cases.label_maps import build_label_map
from ctmr_core.errors import AnatomyError, ManifestError

LIVER, LIVER_TUMOR = 1, 26


@pytest.fixture(scope="module")
def library(real_data, tmp_path_factory) -> TemplateLibrary:
    library = TemplateLibrary.open(tmp_path_factory.mktemp("templates") / "library", create=True)
    labels = real_data / "ct_abdomen" / "labels_totalsegmentator_v2.nii.gz"
    image = real_data / "ct_abdomen" / "ct.nii.gz"
    import_template(labels, library, template_id="abdomen", mapping="totalsegmentator_v2", image=image, licence="Apache-2.0")
    return library


def template_case(**fields) -> Case:
    given = {
        "body": "template:abdomen",
        "size": (56, 48, 48),
        "spacing": (6.0, 6.0, 6.0),
        "center": "liver",
        "sequences": ("ct",),
    }
    return Case(case_id="a", **{**given, **fields})


def test_a_template_is_shown_on_the_grid_asked_for_around_its_centre(library):
    label_map, records = build_label_map(template_case(), library, 0)
    assert records == []
    assert label_map.size == (56, 48, 48)
    assert label_map.spacing == pytest.approx((6, 6, 6))
    places = np.argwhere(label_map.voxels == LIVER)
    middle = (places.min(axis=0) + places.max(axis=0)) / 2
    assert np.abs(middle - (np.array(label_map.size) - 1) / 2).max() <= 1.0
    assert label_map.tissues is not None
    assert label_map.tissues[label_map.voxels > 0].all()


def test_a_deformed_template_is_another_body_with_the_same_organs(library):
    plain, _ = build_label_map(template_case(), library, 0)
    deformed, _ = build_label_map(template_case(deformation=12.0), library, 0)
    liver, moved = plain.voxels == LIVER, deformed.voxels == LIVER
    dice = 2 * np.count_nonzero(liver & moved) / (np.count_nonzero(liver) + np.count_nonzero(moved))
    assert 0.6 < dice < 0.97
    assert np.count_nonzero(moved) == pytest.approx(np.count_nonzero(liver), rel=0.3)


def test_a_body_is_the_same_person_in_every_attempt_and_case(library):
    first = template_case(deformation=8.0, body_seed=5)
    other = template_case(deformation=8.0, body_seed=5, sequences=("mri_t1",), seed=3)
    assert build_label_map(first, library, 0)[0].digest() == build_label_map(first, library, 2)[0].digest()
    assert build_label_map(first, library, 0)[0].digest() == build_label_map(other, library, 0)[0].digest()
    stranger = template_case(deformation=8.0, body_seed=6)
    assert build_label_map(first, library, 0)[0].digest() != build_label_map(stranger, library, 0)[0].digest()


def test_lesions_depend_on_the_attempt_and_repeat(library):
    case = template_case(lesions=(Lesion(label="hepatic tumor", diameter=30), Lesion(label="hepatic tumor", diameter=24)))
    first, records = build_label_map(case, library, 0)
    assert [record["label"] for record in records] == ["hepatic tumor"] * 2
    assert np.count_nonzero(first.voxels == LIVER_TUMOR) > 50
    assert build_label_map(case, library, 0)[0].digest() == first.digest()
    assert build_label_map(case, library, 1)[0].digest() != first.digest()


def test_templates_that_cannot_be_used_are_refused(library):
    with pytest.raises(ManifestError, match="no template library was given"):
        build_label_map(template_case(), None, 0)
    with pytest.raises(ManifestError, match="not the one the manifest was planned with"):
        build_label_map(template_case(template_digest="0" * 64), library, 0)
    with pytest.raises(AnatomyError, match="no such template"):
        build_label_map(template_case(body="template:abdomne"), library, 0)
    with pytest.raises(AnatomyError, match="centre"):
        build_label_map(template_case(center="brain"), library, 0)


@pytest.mark.parametrize(("body", "center", "vocabulary"), [("torso", "abdomen", "maisi"), ("head", "head", "brain")])
def test_parametric_bodies_are_drawn_from_body_and_seed(body, center, vocabulary):
    case = Case(
        case_id="a", body=f"parametric:{body}", sequences=("ct",), size=(24, 24, 24), spacing=(10.0, 10.0, 10.0), center=center
    )
    label_map, _ = build_label_map(case, None, 0)
    assert label_map.vocabulary.name == vocabulary
    assert label_map.size == (24, 24, 24)
    assert label_map.tissues is not None
    if body == "torso":
        again, _ = build_label_map(case.model_copy(update={"case_id": "b", "seed": 9}), None, 1)
        assert again.digest() == label_map.digest()
    else:
        other, _ = build_label_map(case.model_copy(update={"body_seed": 1}), None, 0)
        assert other.digest() != label_map.digest()


VENTRICLES = (4, 43)


def head_case(**fields) -> Case:
    given = {
        "body": "parametric:head",
        "size": (64, 72, 64),
        "spacing": (4.0, 4.0, 4.0),
        "sequences": ("mri_t1",),
        "body_seed": 2,
    }
    return Case(case_id="h", **{**given, **fields})


def _place(label_map, label: int) -> np.ndarray:
    return (label_map.affine @ [*np.argwhere(label_map.voxels == label).mean(axis=0), 1])[:3]


def test_a_case_without_a_pose_has_the_key_it_had_before_poses() -> None:
    case = Case(case_id="a", body="parametric:head", sequences=("mri_t1",), size=(16, 16, 16), spacing=(9.0, 9.0, 9.0))
    assert "pose" not in case.canonical_row()
    assert case.key == case.model_validate(case.model_dump() | {"pose": (0, 0, 0)}).key
    assert case.key == "67798d0a02196092b240ebf65a5c46b92e27522999317e2ec9e61d00d1e9f8fc"


def test_a_nod_turns_the_whole_head() -> None:
    """The frontal white matter against the brain stem, seen from the side."""
    nod = -25
    lying, posed = (build_label_map(head_case(pose=pose), None, 0)[0] for pose in ((), (nod, 0, 0)))
    before, after = (_place(one, 2) - _place(one, 16) for one in (lying, posed))
    angle = np.rad2deg(np.arctan2(after[2], after[1]) - np.arctan2(before[2], before[1]))
    assert angle == pytest.approx(-nod, abs=3)
    assert np.linalg.norm(after) == pytest.approx(np.linalg.norm(before), abs=2.5)
    for label in VENTRICLES:
        volumes = [np.count_nonzero(one.voxels == label) for one in (lying, posed)]
        assert volumes[1] == pytest.approx(volumes[0], rel=0.25)  # some 200 voxels


def test_a_posed_body_is_the_same_in_every_field_of_view_and_attempt() -> None:
    whole = head_case(pose=(-20, 5, 5))
    near = head_case(pose=(-20, 5, 5), size=(32, 32, 32), center="brain stem", sequences=("mri_t2",))
    first, second = (build_label_map(case, None, attempt)[0] for case, attempt in ((whole, 0), (near, 2)))
    assert np.abs(_place(first, 14) - _place(second, 14)).max() < 3.0  # third ventricle


def test_a_posed_template_keeps_its_organs(library) -> None:
    lying, posed, again = (
        build_label_map(template_case(deformation=6.0, pose=pose, size=(64, 56, 72)), library, attempt)[0]
        for pose, attempt in (((), 0), ((-12, 0, 6), 0), ((-12, 0, 6), 1))
    )
    assert np.count_nonzero(posed.voxels == LIVER) == pytest.approx(np.count_nonzero(lying.voxels == LIVER), rel=0.1)
    assert posed.digest() == again.digest() != lying.digest()


def test_anatomy_is_never_turned_out_of_view_silently() -> None:
    tight = head_case(size=(40, 60, 64))
    build_label_map(tight, None, 0)
    with pytest.raises(AnatomyError, match="out of the field of view") as caught:
        build_label_map(tight.model_copy(update={"pose": (0.0, 45.0, 0.0)}), None, 0)
    assert "larger field of view" in caught.value.fix


@pytest.mark.parametrize("pose", [(50, 0, 0), (0, 0), (float("nan"), 0, 0)])
def test_a_pose_is_three_angles_that_a_patient_can_lie_in(pose) -> None:
    with pytest.raises(ValueError, match="allowed: nod, turn and tilt"):
        head_case(pose=pose)
