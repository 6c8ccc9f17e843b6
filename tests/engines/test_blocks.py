"""The engine for measuring: deterministic boxes that pass the checks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctmr_core.cases.case import Case
from ctmr_core.engines import load_engine
from ctmr_core.engines.bodies import label_map_of
from ctmr_core.errors import EngineError
from ctmr_core.quality.base import Candidate
from ctmr_core.quality.judge import judge
from ctmr_core.quality.registry import load_checks


def case(**changes: object) -> Case:
    fields: dict[str, object] = {
        "case_id": "blocks",
        "body": "generated:blocks",
        "sequences": ("ct",),
        "size": (16, 16, 16),
        "spacing": (2.0, 2.0, 2.0),
        "engine": "blocks",
    }
    return Case.model_validate(fields | changes)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**40), st.integers(0, 2**40), st.tuples(*[st.integers(16, 40)] * 3), st.integers(0, 2))
def test_every_body_is_accepted_and_made_again_to_the_byte(
    body_seed: int, seed: int, size: tuple[int, int, int], attempt: int
) -> None:
    planned = case(body_seed=body_seed, seed=seed, size=size)
    first, second = (load_engine("blocks") for _ in range(2))
    label_map, record = label_map_of(planned, None, first, attempt)
    images = first.render(planned, label_map, attempt)
    of_form = [check for check in load_checks() if check.name in ("geometry", "labels", "finite", "constant", "clipped")]
    verdict = judge(Candidate(planned, label_map, images), of_form)  # boxes have no anatomy to check
    assert verdict.accepted, verdict.reasons
    again, _ = label_map_of(planned, None, second, attempt)
    assert again.digest() == label_map.digest()
    np.testing.assert_array_equal(second.render(planned, again, attempt)["ct"], images["ct"])
    assert record["lesions"] == []


def test_other_seeds_give_other_voxels() -> None:
    engine = load_engine("blocks")
    maps = {label_map_of(case(body_seed=seed), None, engine, 0)[0].digest() for seed in range(8)}
    assert len(maps) == 8
    label_map, _ = label_map_of(case(), None, engine, 0)
    offset = engine.render(case(seed=3), label_map, 0)["ct"] - engine.render(case(), label_map, 0)["ct"]
    assert np.count_nonzero(offset != 3) == 2  # all but the two marked voxels


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"body": "parametric:torso"}, "body"),
        ({"sequences": ("mri_t1",)}, "sequences"),
        ({"lesions": ({"label": "hepatic tumor", "diameter": 9},)}, "lesions"),
        ({"engine_parameters": {"second": 1}}, "engine_parameters"),
        ({"engine_parameters": {"seconds": -1}}, "engine_parameters"),
    ],
)
def test_what_boxes_cannot_be_is_refused(changes: dict[str, object], field: str) -> None:
    with pytest.raises(EngineError, match=f"field {field}"):
        load_engine("blocks").validate(case(**changes))
