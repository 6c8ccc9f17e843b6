from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ctmr_core.cases.case import Case
from ctmr_core.cases.manifest import Manifest
from ctmr_core.errors import LearningError
from ctmr_core.learning.datasets import PatchDataset
from ctmr_core.learning.segmentation.sources import training_patches, training_spacing
from ctmr_core.store import Dataset
from tests.learning.segmentation.conftest import config_of, training

MM = (2.0, 2.0, 2.0)


def test_patches_are_those_of_the_dataset_scaled(blob_dataset: Dataset) -> None:
    mixed, records = training_patches(config_of(blob_dataset, intensity={"ct_window": [-100, 300]}), MM)
    source = mixed.sources[0].source
    assert isinstance(source, PatchDataset)
    for number in range(4):
        raw, item = source.item(0, number), mixed.item(0, number)
        expected = np.clip((raw["image"].numpy() + 100) / 400, 0, 1)
        assert np.allclose(item["image"].numpy(), expected, atol=1e-6)
        assert torch.equal(item["label"], raw["label"].as_tensor())
        assert item["case_id"] == raw["image"].meta["case_id"]
    assert records[0]["cases"] == 2


@pytest.mark.parametrize("mr", ["percentiles", "zscore"])
def test_mr_is_scaled_by_the_whole_volume(blob_dataset: Dataset, mr: str) -> None:
    config = config_of(blob_dataset, sequences=["mri_t1"], intensity={"mr": mr})
    mixed, _ = training_patches(config, MM)
    source = mixed.sources[0].source
    for number in range(3):
        raw, item = source.item(0, number), mixed.item(0, number)
        whole = np.asarray(blob_dataset[item["case_id"]].images["mri_t1"][...], np.float64)
        whole = whole[whole > 0]
        low, high = np.percentile(whole, [1, 99])
        if mr == "percentiles":
            expected = np.clip((raw["image"].numpy() - low) / (high - low), 0, 1)
        else:
            expected = (raw["image"].numpy() - whole.mean()) / whole.std()
        assert np.allclose(item["image"].numpy(), expected, atol=1e-3)


def test_a_stripped_patch_shows_classes_alone(blob_dataset: Dataset) -> None:
    strip = {"probability": 1.0, "margin": [0, 0]}
    config = config_of(blob_dataset, sequences=["mri_t1"], augmentation={"preset": "none", "strip": strip})
    mixed, _ = training_patches(config, MM)
    items = [mixed.item(0, number) for number in range(6)]
    labelled = [item for item in items if item["label"].any()]
    assert len(labelled) > 2
    for item in labelled:
        assert (item["image"][item["label"] == 0] == 0).all()
        assert float(item["image"].max()) == 1.0
    never = config_of(blob_dataset, sequences=["mri_t1"], augmentation={"preset": "none", "strip": {**strip, "probability": 0.0}})
    plain = training_patches(never, MM)[0].item(0, 0)
    assert (plain["image"][plain["label"] == 0] > 0).any()


def test_two_sources_of_one_dataset_show_different_patches_and_are_both_balanced(blob_dataset: Dataset) -> None:
    uri = blob_dataset.uri
    config = config_of(uri, sources=[{"dataset": uri}, {"dataset": uri}], training=training(epoch=400))
    mixed, _ = training_patches(config, MM)
    chosen = np.array([mixed.source_of(0, item) for item in range(400)])
    for number in (0, 1):
        source = mixed.sources[number].source
        centred = [source.where(0, int(item))[0].number > 0 for item in np.flatnonzero(chosen == number)]
        assert np.mean(centred) == pytest.approx(0.5, abs=0.12)  # the choice of the source is no choice of foreground
    places = [[mixed.sources[number].source.where(0, item)[1].corner for item in range(10)] for number in (0, 1)]
    assert places[0] != places[1]


def test_cases_of_another_spacing_are_left_out_and_named(blob_dataset: Dataset) -> None:
    with pytest.raises(LearningError, match=r"2x2x2 mm: 2 cases, 3x3x3 mm: 1 cases"):
        training_spacing(config_of(blob_dataset, spacing=None))
    with pytest.raises(LearningError, match=r"(?s)sources\[0\].*2x2x2 mm: 2 cases.*1x1x1 mm, within 1%"):
        training_patches(config_of(blob_dataset), (1.0, 1.0, 1.0))
    assert training_spacing(config_of(blob_dataset, spacing=None, spacing_tolerance=0.5)) == MM
    _, records = training_patches(config_of(blob_dataset, spacing_tolerance=0.5), MM)
    assert records[0]["cases"] == 3


def test_scans_are_resampled_and_their_ids_get_a_meaning(scan: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text(json.dumps({"training": [{"image": "person/ct.nii.gz", "label": "person/seg.nii.gz"}]}))
    source = {"scans": str(tmp_path / "list.json"), "labels": {"liver": 5, "spleen": [7]}, "foreground": 1.0}
    config = config_of("unused", sources=[source], validation=[], intensity={"ct_window": [-100, 300]})
    mixed, records = training_patches(config, MM)
    assert records[0]["scans"] == 1
    item = mixed.item(0, 0)
    assert item["image"].shape == (1, 16, 16, 16)
    for number, hu in ((1, 120), (2, 250)):
        found = torch.cat([one["image"][one["label"] == number] for one in (mixed.item(0, i) for i in range(12))])
        assert float(found.median()) == pytest.approx((hu + 100) / 400, abs=0.03)
    whole = mixed.sources[0].source.whole_image(0, 0, "ct")
    assert whole.shape == (48, 54, 60)


def test_ids_without_a_meaning_are_refused_or_dropped(scan: tuple[Path, Path]) -> None:
    pair = {"image": str(scan[0]), "label": str(scan[1])}
    source = {"scans": [pair], "labels": {"liver": 5}}
    with pytest.raises(LearningError, match=r"(?s)sources\[0\].*without a meaning.*found: \[7\]"):
        training_patches(config_of("unused", sources=[source], validation=[]), MM)
    config = config_of("unused", sources=[{**source, "drop_unknown": True, "foreground": 1.0}], validation=[])
    mixed, _ = training_patches(config, MM)
    assert {int(value) for i in range(6) for value in mixed.item(0, i)["label"].unique()} == {0, 1}


def test_cases_are_rendered_while_training(tmp_path: Path) -> None:
    cases = [
        Case(case_id=f"c{n}", body="generated:blocks", engine="blocks", body_seed=n, split="train", sequences=("ct",),
             size=(32, 32, 32), spacing=(mm, mm, mm))
        for n, mm in enumerate((2.0, 3.0))
    ]  # fmt: skip
    Manifest.from_cases(cases).write(tmp_path / "cases.parquet")
    config = config_of("unused", sources=[{"recipe": str(tmp_path / "cases.parquet")}], validation=[])
    mixed, records = training_patches(config, MM)
    assert records[0]["cases"] == 1
    assert mixed.item(0, 0)["image"].shape == (1, 16, 16, 16)
    with pytest.raises(LearningError, match="no case has the spacing"):
        training_patches(config, (1.0, 1.0, 1.0))
