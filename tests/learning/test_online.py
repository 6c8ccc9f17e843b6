from __future__ import annotations

import pickle

import numpy as np
import pytest

from ctmr_core.cases.case import Case
from ctmr_core.cases.manifest import Manifest
from ctmr_core.cases.recipe import parse_recipe
from ctmr_core.engines import load_engine
from ctmr_core.engines.bodies import label_map_of
from ctmr_core.engines.tissue.engine import TissueEngine
from ctmr_core.errors import LearningError
from ctmr_core.learning.datasets import OnlineDataset, PatchStream
from tests.learning.comparing import digests


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    def case(number: int, split: str) -> Case:
        return Case(
            case_id=f"torso-{number}",
            body="generated:blocks",
            engine="blocks",
            body_seed=number,
            split=split,
            sequences=("ct",),
            size=(40, 32, 40),
            spacing=(3, 3, 3),
        )

    return Manifest.from_cases([case(0, "train"), case(1, "train"), case(2, "val")])


def test_patches_are_of_the_volumes_the_factory_would_make(manifest: Manifest) -> None:
    online = OnlineDataset(manifest, 16, patches_per_case=2)
    assert len(online) == 4
    seen = set()
    for number, item in enumerate(online):
        case = online.case_of(0, number)
        engine = load_engine(case.engine)
        label_map, _ = label_map_of(case, None, engine, 0)
        cut = tuple(slice(c, c + 16) for c in item["image"].meta["corner"])
        assert np.array_equal(item["label"][0].numpy(), label_map.voxels[cut])
        assert np.array_equal(item["image"][0].numpy(), engine.render(case, label_map, 0)["ct"][cut])
        seen.add(item["image"].meta["case_id"])
    assert seen == {"torso-0", "torso-1"}


def test_a_case_is_rendered_once_for_its_patches_and_anew_every_epoch(manifest: Manifest) -> None:
    online = OnlineDataset(manifest, 16, labels=["liver"], foreground=1)
    rendered = []
    render = online._engine("blocks").render
    online._engine("blocks").render = lambda case, label_map, attempt: (  # type: ignore[method-assign]
        rendered.append((case.case_id, attempt)) or render(case, label_map, attempt)
    )
    stream = PatchStream(online, 4)
    first = list(stream)
    assert sorted(rendered) == [("torso-0", 0), ("torso-1", 0)]
    assert all((item["label"] == 1).any() for item in first if item["label"].meta["class_id"])
    list(stream)
    assert sorted(rendered[2:]) == [("torso-0", 3), ("torso-1", 3)]  # drawn anew: the attempts behind those of epoch 0
    again = pickle.loads(pickle.dumps(online))
    assert digests(again.item(0, number) for number in range(8)) == digests(first)


def test_a_recipe_is_planned_first() -> None:
    recipe = parse_recipe(
        {
            "name": "online",
            "seed": 3,
            "groups": [
                {
                    "name": "t",
                    "cases": 2,
                    "bodies": {"parametric": "torso"},
                    "sequences": ["ct"],
                    "size": [32] * 3,
                    "spacing": [9] * 3,
                }
            ],
        }
    )
    online = OnlineDataset(recipe, 16, patches_per_case=1)
    assert len(online) == 2
    assert {online.case_of(0, item).engine_identity for item in range(2)} == {f"tissue/{TissueEngine.version}"}


def test_a_manifest_without_fitting_cases_is_refused(manifest: Manifest) -> None:
    with pytest.raises(LearningError, match="no case fits"):
        OnlineDataset(manifest, 16, "mri_t1")
