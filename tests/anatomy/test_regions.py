import pytest

from ctmr_core.anatomy.regions import REGIONS, center_labels, region_labels, regions_present
from ctmr_core.anatomy.vocabulary import load_vocabulary
from ctmr_core.errors import AnatomyError


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({22}, ("head",)),
        ({120, 200}, ("head",)),
        ({28}, ("chest",)),
        ({1, 32}, ("chest", "abdomen")),
        ({14, 93}, ("abdomen", "pelvis")),
        ({95, 96, 15}, ()),
        ({6, 200}, ()),
        (set(), ()),
        ({22, 30, 5, 94}, REGIONS),
    ],
)
def test_labels_prove_regions_in_order_from_head_to_pelvis(labels, expected):
    assert regions_present("maisi", labels) == expected


def test_any_label_of_the_brain_vocabulary_proves_the_head():
    brain = load_vocabulary("brain")
    assert regions_present(brain, {511}) == ("head",)
    assert regions_present(brain, {9999}) == ()


def test_a_field_of_view_is_centred_on_labels_that_are_in_view():
    assert center_labels("maisi", "pelvis", present={94, 96, 1}) == (96,)
    assert center_labels("maisi", "pelvis", present={94, 1}) == (94,)
    assert center_labels("maisi", "liver") == (1,)
    assert center_labels("brain", "left thalamus", present={10, 11}) == (10,)
    assert set(region_labels("maisi", "chest")) == {28, 29, 30, 31, 32}
    assert 2 in region_labels("brain", "head")


def test_a_reserved_id_proves_the_abdomen_but_is_never_centred_on():
    assert regions_present("maisi", {2}) == ("abdomen",)
    assert 2 not in region_labels("maisi", "abdomen")


def test_centres_that_are_not_in_view_or_do_not_exist_are_refused_with_what_is_allowed():
    with pytest.raises(AnatomyError, match="left lung upper lobe"):
        center_labels("maisi", "chest", present={1})
    with pytest.raises(AnatomyError, match="spleen"):
        center_labels("maisi", "splen")
    with pytest.raises(AnatomyError, match="no such region"):
        center_labels("brain", "pelvis")
    with pytest.raises(AnatomyError, match="head, chest, abdomen, pelvis"):
        region_labels("maisi", "thigh")
