from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch

from ctmr_core.errors import LearningError
from ctmr_core.learning.segmentation.config import load_segmentation_config
from ctmr_core.learning.segmentation.predict import load_segmenter, segment
from ctmr_core.learning.segmentation.trainer import TrainingSummary, train
from ctmr_core.learning.training import load_checkpoint
from ctmr_core.store import Dataset
from tests.learning.segmentation.conftest import config_of, training


def weights(path: str | Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_checkpoint(path).weights["network"]
    return found


def learning(dataset: Dataset, scan: tuple[Path, Path]) -> Any:
    """Sixty steps, validated on a case of the dataset and on a scan of another spacing."""
    pair = {"image": str(scan[0]), "label": str(scan[1])}
    return config_of(
        dataset,
        validation=[
            {"name": "synthetic", "dataset": dataset.uri},
            {"name": "real", "scans": [pair], "labels": {"liver": 5, "spleen": 7}},
        ],
        patch=[24, 24, 24],
        best_by="real",
        inference={"overlap": 0.25},
        training=training(steps=60, epoch=20, validate_every=30, optimizer={"learning_rate": 0.01}, ema=0.5),
    )


def test_a_few_steps_learn_two_volumes_and_the_checkpoint_segments_scans(
    blob_dataset: Dataset, scan: tuple[Path, Path], tmp_path: Path
) -> None:
    config = learning(blob_dataset, scan)
    summary = train(config, tmp_path / "run")
    assert summary.reason == "finished"
    for name in ("synthetic/dice", "synthetic/dice/liver", "synthetic/dice/spleen", "real/dice"):
        assert summary.scores[name] > 0.8, name
    assert summary.best_by == "real/dice"
    assert summary.best_score == pytest.approx(max(summary.best_score or 0, summary.scores["real/dice"]))

    assert TrainingSummary(**json.loads((tmp_path / "run" / "summary.json").read_text())) == summary
    assert load_segmentation_config(tmp_path / "run" / "config.yaml") == config
    rows = pd.read_parquet(tmp_path / "run" / "validation" / "step-0000060.parquet")
    assert sorted(set(rows.dataset)) == ["real", "synthetic"]
    assert len(rows) == 4
    assert "| real | liver | 1 |" in Path(summary.table or "").read_text()

    checkpoint = load_checkpoint(summary.best or "")
    assert checkpoint.records["config_digest"] == config.digest
    assert len(checkpoint.records["sources"][0]["cases_digest"]) == 64
    written = segment(summary.best or "", scan[0], tmp_path / "found.nii.gz")
    found, truth = nib.load(written), nib.as_closest_canonical(nib.load(scan[1]))
    assert np.allclose(found.affine, truth.affine)
    liver, drawn = np.asarray(found.dataobj) == 1, np.asarray(truth.dataobj) == 5
    assert 2 * (liver & drawn).sum() / (liver.sum() + drawn.sum()) > 0.8
    with pytest.raises(LearningError, match="wants other images"):
        load_segmenter(summary.last).segment([np.zeros((8, 8, 8))] * 2, (1, 1, 1))


def test_a_stopped_training_goes_on_as_if_it_had_not_been(blob_dataset: Dataset, tmp_path: Path) -> None:
    config = config_of(blob_dataset, augmentation={"preset": "light", "flip": ["y"]}, validation=[])
    whole = train(config, tmp_path / "whole")
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) == 3

    stopped = train(config, tmp_path / "parts", should_stop=stop)
    assert (stopped.reason, stopped.steps, stopped.finished) == ("stopped", 3, False)
    rest = train(config, tmp_path / "parts")
    assert (rest.reason, rest.steps, rest.finished) == ("finished", 4, True)
    one, other = weights(whole.last), weights(rest.last)
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_another_configuration_in_the_same_folder_is_refused(blob_dataset: Dataset, tmp_path: Path) -> None:
    train(config_of(blob_dataset, validation=[], training=training(steps=1)), tmp_path)
    with pytest.raises(LearningError, match=r"loss.name: 'DiceCELoss' there, 'DiceLoss' here"):
        train(config_of(blob_dataset, validation=[], loss={"name": "DiceLoss"}, training=training(steps=1)), tmp_path)
    more = train(config_of(blob_dataset, validation=[], training=training(steps=2, workers=0, checkpoint_every=1)), tmp_path)
    assert more.steps == 2


def test_a_network_starts_from_weights(blob_dataset: Dataset, tmp_path: Path) -> None:
    first = train(config_of(blob_dataset, validation=[], training=training(steps=2)), tmp_path / "first")
    network = {"name": "UNet", "options": {"channels": [8, 16], "strides": [2], "norm": "batch"}, "weights": first.last}
    slow = training(steps=1, optimizer={"learning_rate": 1e-9})
    second = train(config_of(blob_dataset, validation=[], network=network, training=slow), tmp_path / "second")
    one, other = weights(first.last), weights(second.last)
    trained = [name for name in one if "running" not in name and "num_batches" not in name]
    assert all(torch.allclose(one[name], other[name], atol=1e-6) for name in trained)
    assert load_segmenter(second.last).classes == ("background", "liver", "spleen")


def test_a_batch_is_divided_among_the_ranks(blob_dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctmr_core.learning.training.ranks.ranks", lambda: 3)
    with pytest.raises(LearningError, match="multiple of 3"):
        train(config_of(blob_dataset), tmp_path)


@pytest.mark.slow
def test_workers_give_the_same_training(blob_dataset: Dataset, tmp_path: Path) -> None:
    config = config_of(blob_dataset, augmentation={"preset": "strong"}, validation=[])
    alone = train(config, tmp_path / "alone")
    many = train(config.model_copy(update={"training": config.training.model_copy(update={"workers": 2})}), tmp_path / "many")
    one, other = weights(alone.last), weights(many.last)
    assert all(torch.equal(value, other[name]) for name, value in one.items())
