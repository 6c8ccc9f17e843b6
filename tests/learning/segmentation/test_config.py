from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from ctmr_core.errors import LearningError
from ctmr_core.learning.segmentation.config import SegmentationConfig, load_segmentation_config
from ctmr_core.learning.training import parse_config
from tests.conftest import REPOSITORY

TEXT = """
classes: {liver: liver, kidneys: [left kidney, right kidney]}
patch: [32, 32, 32]
sources:
  - dataset: runs/quick
    share: 2
training:
  steps: 10
"""


def test_a_configuration_is_read_from_yaml(tmp_path: Path) -> None:
    (tmp_path / "train.yaml").write_text(TEXT)
    config = load_segmentation_config(tmp_path / "train.yaml")
    assert config.class_table.names == ("background", "liver", "kidneys")
    assert config.training.steps == 10
    assert SegmentationConfig.model_validate(config.model_dump(mode="json")) == config
    assert len(config.digest) == 64


def test_what_is_wrong_is_said_with_line_and_near_name(tmp_path: Path) -> None:
    (tmp_path / "train.yaml").write_text(TEXT.replace("steps: 10", "stepz: 10").replace("share: 2", "share: -1"))
    with pytest.raises(LearningError) as raised:
        load_segmentation_config(tmp_path / "train.yaml")
    text = str(raised.value)
    assert "train.yaml line 6, field sources[0].share" in text
    assert "did you mean 'steps'?" in text
    with pytest.raises(LearningError, match="there is no such training configuration"):
        load_segmentation_config(tmp_path / "absent.yaml")


def test_the_configurations_that_are_shown_are_valid() -> None:
    load_segmentation_config(REPOSITORY / "manifests" / "training" / "segmentation.yaml")
    blocks = (REPOSITORY / "docs" / "training.md").read_text().split("```yaml\n")[1:]
    shown = [block.split("```")[0] for block in blocks if "sources:" in block]
    assert shown
    for text in shown:
        parse_config(YAML(typ="safe").load(text), SegmentationConfig)


BASE: dict[str, Any] = {"classes": ["liver"], "patch": [32, 32, 32], "sources": [{"dataset": "x"}]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": ["livr"]}, "no vocabulary has such a label: 'livr'\n  found.*\n  allowed: liver"),
        ({"sources": [{"dataset": "x", "recipe": "y"}]}, "exactly one of these is given, not dataset and recipe"),
        ({"sources": [{}]}, "not none"),
        ({"sources": [{"scans": "list.json"}]}, "scans need a meaning of their label ids"),
        ({"sources": [{"scans": "list.json", "labels": {"spleen": 1}}]}, "there is no such class: spleen"),
        ({"sources": [{"dataset": "x", "sequences": ["ct", "mri_t1"]}]}, "as many sequences"),
        ({"sequences": ["mri_t7"]}, "unknown sequence 'mri_t7'"),
        ({"validation": [{"dataset": "x"}, {"dataset": "y"}]}, "its own name"),
        ({"best_by": "real"}, "best_by is the name of a validation set"),
        ({"intensity": {"ct_window": [300, -200]}}, "the lower value comes first"),
        ({"training": {"batch_size": 3, "accumulate": 2}}, "a batch is divided into equal parts"),
    ],
)
def test_what_does_not_fit_together_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(LearningError, match=message):
        parse_config({**BASE, **changes}, SegmentationConfig)
