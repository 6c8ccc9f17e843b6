from __future__ import annotations

import pytest

from ctmr_core.anatomy.vocabulary import load_vocabulary
from ctmr_core.errors import LearningError
from ctmr_core.learning.datasets import Classes


def test_ids_are_contiguous_in_the_order_given() -> None:
    classes = Classes({"kidneys": ["left kidney", "right kidney"], "liver": "liver"})
    vocabulary = load_vocabulary("maisi")
    table = classes.table("maisi")
    assert classes.names == ("background", "kidneys", "liver")
    assert [table[vocabulary.label(name).id] for name in ("left kidney", "right kidney", "liver", "spleen")] == [1, 1, 2, 0]
    assert table[0] == 0


def test_a_group_of_a_vocabulary_is_all_its_labels() -> None:
    table = Classes({"lesions": "group:lesion"}).table("maisi")
    lesions = load_vocabulary("maisi").ids("lesion")
    assert lesions
    assert set(table.nonzero()[0].tolist()) == set(lesions)


def test_labels_of_one_vocabulary_are_background_in_the_other() -> None:
    classes = Classes(["liver"])
    assert not classes.table("brain").any()
    assert len(classes.table("brain")) == 65536


def test_misspelt_labels_are_refused_with_near_names() -> None:
    with pytest.raises(LearningError, match="liver"):
        Classes(["livr"])


def test_a_label_in_two_classes_is_refused() -> None:
    with pytest.raises(LearningError, match="two classes"):
        Classes({"a": "liver", "b": ["spleen", "liver"]})
