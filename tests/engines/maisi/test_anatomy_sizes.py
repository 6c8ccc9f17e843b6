from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctmr_core.engines.maisi.anatomy_sizes import (
    SIZE_SLOTS,
    absent_labels,
    check_sizes,
    check_vector,
    condition_vector,
    read_known_sizes,
    target_tumor,
)
from ctmr_core.errors import EngineError

KNOWN = np.array(
    [
        [0.5, 0.5, 0.5, 0.5, 0.5, -1, -1, -1, -1, -1],
        [0.2, 0.9, 0.5, 0.1, -1, -1, -1, 0.7, -1, -1],
        [-1, -1, -1, -1, -1, 0.3, -1, -1, -1, -1],
        [0.2, 0.9, 0.4, 0.2, 0.2, -1, -1, -1, -1, -1],
    ]
)


def test_slots_are_those_of_the_released_network():
    assert list(SIZE_SLOTS.items()) == [
        ("gallbladder", 10),
        ("liver", 1),
        ("stomach", 12),
        ("pancreas", 4),
        ("colon", 62),
        ("lung tumor", 23),
        ("pancreatic tumor", 24),
        ("hepatic tumor", 26),
        ("colon cancer primaries", 27),
        ("bone lesion", 128),
    ]


@pytest.mark.parametrize("size", [-0.5, 1.01, float("nan"), float("inf")])
def test_refuses_impossible_sizes(size):
    with pytest.raises(EngineError, match="impossible size"):
        check_sizes({"liver": size})


def test_refuses_unknown_structures_and_two_tumours():
    with pytest.raises(EngineError, match="cannot be controlled"):
        check_sizes({"spleen": 0.5})
    with pytest.raises(EngineError, match="one kind of tumour"):
        check_sizes({"lung tumor": 0.5, "bone lesion": 0.1})
    assert check_sizes({"lung tumor": 0.5, "bone lesion": -1}) == {"lung tumor": 0.5, "bone lesion": -1.0}


def test_the_reference_copies_the_first_nearest_vector_with_its_tumours():
    vector = condition_vector({"liver": 0.9, "gallbladder": 0.1}, KNOWN, compat=True)
    assert vector.tolist() == [0.1, 0.9, 0.5, 0.1, -1, -1, -1, 0.7, -1, -1]
    assert target_tumor(vector) == 26


def test_tumours_that_were_not_asked_for_are_absent():
    for seed in range(8):
        vector = condition_vector({"liver": 0.9}, KNOWN, np.random.default_rng(seed))
        assert vector[1] == 0.9
        assert target_tumor(vector) is None
        assert set(absent_labels(vector)) >= {23, 24, 26, 27, 128}


def test_seeds_choose_among_the_near_vectors():
    known = np.random.default_rng(0).uniform(0, 1, (200, 10))
    drawn = {tuple(condition_vector({"liver": 0.5}, known, np.random.default_rng(seed))) for seed in range(30)}
    assert 5 < len(drawn) <= 16
    again = condition_vector({"liver": 0.5}, known, np.random.default_rng(3))
    assert again.tolist() == condition_vector({"liver": 0.5}, known, np.random.default_rng(3)).tolist()
    near = set(np.argsort(np.abs(known[:, 1] - 0.5), kind="stable")[:16])
    assert {int(np.abs(known[:, 0] - vector[0]).argmin()) for vector in drawn} <= near


@given(st.lists(st.sampled_from([-1.0, 0.0, 0.4, 1.0]), min_size=10, max_size=10))
def test_the_last_tumour_slot_that_is_not_absent_is_the_target(sizes):
    tumours = [label for label, size in zip(SIZE_SLOTS.values(), sizes, strict=True) if size != -1][::-1]
    expected = next((label for label in tumours if label in (23, 24, 26, 27, 128)), None)
    assert target_tumor(sizes) == expected
    assert len(absent_labels(sizes)) == sizes.count(-1.0)


def test_vectors_have_ten_values():
    with pytest.raises(EngineError, match="one value per structure"):
        check_vector([0.5] * 9)
    with pytest.raises(EngineError, match="impossible size"):
        check_vector([0.5] * 9 + [-0.2])


def test_known_sizes_are_read_and_damaged_files_named(tmp_path):
    file = tmp_path / "all_anatomy_size_conditions.json"
    file.write_text(json.dumps([{"organ_size": row} for row in KNOWN.tolist()]))
    assert np.array_equal(read_known_sizes(file), KNOWN)
    for content in ("{", "[]", '[{"organ_size": [1, 2]}]', '[{"sizes": []}]', '[{"organ_size": "x"}]'):
        file.write_text(content)
        with pytest.raises(EngineError, match="all_anatomy_size_conditions"):
            read_known_sizes(file)
    with pytest.raises(EngineError, match="cannot be read"):
        read_known_sizes(tmp_path / "missing.json")


def test_all_ten_sizes_need_no_known_ones():
    sizes = {name: -1.0 if name == "liver" else 0.0 if index < 5 else -1.0 for index, name in enumerate(SIZE_SLOTS)}
    vector = condition_vector(dict(reversed(sizes.items())), np.empty((0, 10)), np.random.default_rng(1))
    assert vector.tolist() == list(sizes.values())
    with pytest.raises(EngineError, match="give all ten sizes"):
        condition_vector({"liver": 0.5}, np.empty((0, 10)))
