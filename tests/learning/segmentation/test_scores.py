from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from monai.metrics import compute_hausdorff_distance

from ctmr_core.learning.segmentation.scores import class_table, hausdorff95, mean_dice, score_case, score_frame, write_scores

NAMES = {1: "liver", 2: "spleen", 3: "pancreas", 4: "aorta"}


def hand_made() -> tuple[np.ndarray, np.ndarray]:
    """Liver: 4x4x4, found one voxel along x. Spleen: 10 voxels, missed. Pancreas: in neither. Aorta: 3 found, none there."""
    truth, found = np.zeros((12, 10, 10), np.uint8), np.zeros((12, 10, 10), np.uint8)
    truth[2:6, 2:6, 2:6] = 1
    found[3:7, 2:6, 2:6] = 1
    truth[9, 0:10, 0] = 2
    found[11, 0:3, 9] = 4
    return truth, found


def test_scores_of_a_hand_made_case() -> None:
    truth, found = hand_made()
    liver, spleen, pancreas, aorta = score_case(truth, found, (2.0, 1.0, 1.0), NAMES, case="a")
    assert liver.dice == pytest.approx(2 * 48 / 128)
    assert liver.hd95 == pytest.approx(2.0)  # one voxel along x
    assert (liver.truth_ml, liver.found_ml) == (pytest.approx(0.128), pytest.approx(0.128))
    assert spleen.dice == 0.0
    assert math.isnan(spleen.hd95)
    assert math.isnan(pancreas.dice)
    assert math.isnan(aorta.dice)
    assert aorta.found_ml == pytest.approx(0.006)


def test_a_perfect_segmentation_has_dice_1_and_distance_0() -> None:
    truth, _ = hand_made()
    for score in score_case(truth, truth, (1.0, 1.0, 1.0), {1: "liver", 2: "spleen"}):
        assert (score.dice, score.hd95) == (1.0, 0.0)


def test_distances_are_those_of_monai() -> None:
    rng = np.random.default_rng(4)
    for spacing in ((1.0, 1.0, 1.0), (0.7, 1.3, 3.0)):
        smooth = [torch.nn.functional.avg_pool3d(torch.from_numpy(rng.random((1, 1, 24, 20, 16))), 5, 1, 2) for _ in range(2)]
        masks = [(one > 0.5).numpy()[0, 0] for one in smooth]
        ours = hausdorff95(masks[0], masks[1], spacing)
        pair = [torch.from_numpy(mask.astype(np.float32))[None, None] for mask in masks]
        theirs = compute_hausdorff_distance(pair[0], pair[1], include_background=True, percentile=95, spacing=list(spacing))
        assert ours == pytest.approx(float(theirs), rel=1e-4)


def test_the_table_counts_what_is_there_missed_and_made_up(tmp_path: Path) -> None:
    truth, found = hand_made()
    rows = score_case(truth, found, (1.0, 1.0, 1.0), NAMES, dataset="real", case="a")
    rows += score_case(truth, truth, (1.0, 1.0, 1.0), NAMES, dataset="real", case="b")
    frame = score_frame(rows)
    table = class_table(frame).set_index("class")
    assert list(table.index) == ["liver", "spleen", "pancreas", "aorta"]
    assert table.loc["liver", "dice_mean"] == pytest.approx((0.75 + 1) / 2)
    assert list(table.cases) == [2, 2, 0, 0]
    assert list(table.missed) == [0, 1, 0, 0]
    assert table.loc["aorta", "false_ml"] == pytest.approx(0.003)
    assert mean_dice(table) == pytest.approx((0.875 + 0.5) / 2)
    path = write_scores(frame, tmp_path, "step-1")
    assert "| real | liver | 2 | 0.875 | 0.875 |" in path.read_text()
    assert "| real | pancreas | 0 | - | - | - | - | 0 | 0.0 |" in path.read_text()
    assert len(pd.read_parquet(tmp_path / "step-1.parquet")) == 8
    assert list(pd.read_csv(tmp_path / "step-1.csv")["class"]) == list(table.index)
