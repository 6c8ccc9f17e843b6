from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from monai.transforms import Compose, EnsureChannelFirstd, LoadImage, LoadImaged, Spacingd

from ctmr_core.learning.datasets import PatchDataset, VolumeDataset
from ctmr_core.learning.monai_reader import CtmrReader
from ctmr_core.store import Dataset, create_snapshot
from tests.learning.comparing import digests
from tests.s3_servers import S3Server, fresh_uri
from tests.store.store_maker import make_case, make_dataset


def test_volumes_for_validation_are_whole_and_in_order(bodies: Dataset) -> None:
    volumes = VolumeDataset(bodies, ("ct", "mri_t1"), labels=["liver"])
    assert [item["image"].meta["case_id"] for item in volumes] == ["case-0002", "case-0004"]
    item, volume = volumes[0], bodies["case-0002"]
    assert np.array_equal(item["image"][1].numpy(), volume.images["mri_t1"])
    assert np.array_equal(item["image"].affine, volume.affine)
    liver = volume.vocabulary.label("liver").id
    assert np.array_equal(item["label"][0].numpy() == 1, np.asarray(volume.labels) == liver)


def test_monai_loads_cases_by_name(bodies: Dataset) -> None:
    create_snapshot(bodies, "all")
    names = {"image": f"{bodies.uri}#case-0001/mri_t1", "label": f"{bodies.uri}#case-0001/labels"}
    for options in ({}, {"snapshot": "all"}):
        item = LoadImaged(["image", "label"], reader=CtmrReader, **options)(names)
        volume = bodies["case-0001"]
        assert np.array_equal(item["image"].numpy(), volume.images["mri_t1"])
        assert np.array_equal(item["label"].numpy(), volume.labels)
        assert np.array_equal(item["image"].affine, volume.affine)


def test_monai_loads_a_volume_by_path_and_resamples_it(bodies: Dataset) -> None:
    path = bodies["case-0003"].url
    image = LoadImage(reader=CtmrReader, ensure_channel_first=True)(path)
    assert np.array_equal(image[0].numpy(), bodies["case-0003"].images["ct"])
    assert image.meta["case_id"] == "case-0003"
    steps = [LoadImaged("image", reader=CtmrReader), EnsureChannelFirstd("image"), Spacingd("image", (3, 3, 3))]
    resampled = Compose(steps)({"image": f"{path}/mri_t1"})["image"]
    assert resampled.shape[1:] == (20, 22, 48)


def test_several_names_are_channels(bodies: Dataset) -> None:
    names = [f"{bodies.uri}#case-0000/{sequence}" for sequence in ("mri_t1", "ct")]
    image = LoadImage(reader=CtmrReader, ensure_channel_first=True)(names)
    assert image.shape == (2, 40, 44, 48)
    assert np.array_equal(image[1].numpy(), bodies["case-0000"].images["ct"])


@pytest.mark.parametrize("name", ["case-9999/ct", "case-0000/mri_flair", "case-0007/ct"])
def test_what_is_not_there_is_refused(bodies: Dataset, name: str) -> None:
    with pytest.raises(RuntimeError, match="has no such"):
        LoadImage(reader=CtmrReader)(f"{bodies.uri}#{name}")


def test_the_same_from_an_object_store(moto: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: os.PathLike[str]) -> None:
    moto.enter(monkeypatch)
    cases = [make_case(number, sequences=("ct",)) for number in range(3)]
    here, there = make_dataset(tmp_path, cases), make_dataset(fresh_uri(), cases)
    patches = [PatchDataset(dataset.uri, 12, seed=2, items=9) for dataset in (here, there)]
    assert digests(patches[0].__getitems__(list(range(9)))) == digests(patches[1].__getitems__(list(range(9))))
    create_snapshot(there, "now")
    assert len(PatchDataset(Dataset.open(there.uri, snapshot="now"), 12)) == 3
    image = LoadImage(reader=CtmrReader)(f"{there.uri}#case-0001/ct")
    assert torch.equal(image.as_tensor(), LoadImage(reader=CtmrReader)(f"{here.uri}#case-0001/ct").as_tensor())
    assert torch.equal(image.as_tensor(), LoadImage(reader=CtmrReader)(there["case-0001"].url).as_tensor())
