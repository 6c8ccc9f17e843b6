from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ctmr_core.errors import LearningError
from ctmr_core.learning.training import TrainingSettings, fit
from ctmr_core.learning.training.board import Board, read_metrics
from tests.learning.training.lines import Line


def test_a_resumed_training_drops_what_was_written_beyond(tmp_path: Path) -> None:
    board = Board(tmp_path, 0, tensorboard=False)
    for step in (1, 2, 3):
        board.write("train", step, {"loss": 1.0 / step, "empty": float("nan")})
    board.close()
    with (tmp_path / "metrics.jsonl").open("a") as stream:
        stream.write('{"kind": "train", "st')  # killed while writing
    board = Board(tmp_path, 2, tensorboard=False)
    board.write("validation", 3, {"dice": 0.5})
    board.close()
    lines = read_metrics(tmp_path)
    assert [(line["kind"], line["step"]) for line in lines] == [("train", 1), ("train", 2), ("validation", 3)]
    assert lines[0]["empty"] is None
    assert [line["dice"] for line in read_metrics(tmp_path, "validation")] == [0.5]


def test_tensorboard_has_the_numbers_and_pictures(tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    board = Board(tmp_path, 0, tensorboard=True)
    for step in (1, 2):
        board.write("train", step, {"loss": 1.0 / step})
    board.picture("val", 2, np.zeros((4, 5, 3), np.uint8))
    board.close()
    found = events.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(one.step, one.value) for one in found.Scalars("train/loss")] == [(1, 1.0), (2, 0.5)]
    assert found.Images("val")[0].width == 5


def test_tensorboard_that_is_not_installed_is_named_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(LearningError, match=r"ctmr-factory\[train\]"):
        fit(Line(), TrainingSettings(steps=1), tmp_path)
    assert not list(tmp_path.iterdir())
