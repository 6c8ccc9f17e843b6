from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ctmr_core.errors import LearningError
from ctmr_core.learning.segmentation.export import export_torchscript
from ctmr_core.learning.segmentation.predict import load_segmenter
from ctmr_core.learning.segmentation.trainer import train
from ctmr_core.quality.segmenters import Segmenter, segment
from ctmr_core.store import Dataset
from tests.learning.segmentation.conftest import config_of, training


def test_an_exported_network_is_a_segmenter_of_a_policy(blob_dataset: Dataset, tmp_path: Path) -> None:
    summary = train(config_of(blob_dataset, validation=[], inference={"overlap": 0.25}), tmp_path / "run")
    entry = export_torchscript(summary.last, tmp_path / "organs.ts")
    assert json.loads(json.dumps(entry))["mapping"] == {"1": ["liver"], "2": ["spleen"]}
    segmenter = Segmenter.model_validate(entry)
    image = np.asarray(blob_dataset["case-0002"].images["ct"][...])
    found = segment(segmenter, image, (2.0, 2.0, 2.0))
    assert np.array_equal(found, load_segmenter(summary.last).segment([image], (2.0, 2.0, 2.0)))


def test_what_a_policy_can_not_feed_is_refused(blob_dataset: Dataset, tmp_path: Path) -> None:
    short = training(steps=1)
    two = train(config_of(blob_dataset, validation=[], sequences=["ct", "mri_t1"], training=short), tmp_path / "two")
    with pytest.raises(LearningError, match="takes one image"):
        export_torchscript(two.last, tmp_path / "two.ts")
    mr = config_of(blob_dataset, validation=[], sequences=["mri_t1"], intensity={"mr": "zscore"}, training=short)
    with pytest.raises(LearningError, match="can't scale the images"):
        export_torchscript(train(mr, tmp_path / "mr").last, tmp_path / "mr.ts")
