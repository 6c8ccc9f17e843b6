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
