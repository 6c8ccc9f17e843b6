"""nnU-Net, MONAI, WebDataset, Hugging Face and Croissant, each read by the code that reads them."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
from pathlib import Path

import monai.data
import nibabel as nib
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from monai.transforms import LoadImaged

from ctmr_core.anatomy.vocabulary import load_vocabulary
from ctmr_core.errors import AnatomyError, ExchangeError
from ctmr_core.exchange import Selection, export, load_exporter
from ctmr_core.exchange.folds import splits_of
from ctmr_core.exchange.label_tables import label_table
from ctmr_core.store import Dataset
from tests.exchange.exchange_maker import BODY, LEFT_KIDNEY, LIVER, SIZE, TUMOR, exchange_case, exchange_dataset, straight_affine
from tests.fresh_process import run_fresh

SPLITS = ("train", "train", "val", "test", "train")
INTEGRITY = """
import sys
from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity
verify_dataset_integrity(sys.argv[1], num_processes=1)
"""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    cases = [exchange_case(i, split=split, sequences=("ct", "mri_t1")) for i, split in enumerate(SPLITS)]
    return exchange_dataset(tmp_path_factory.mktemp("exchange") / "set", cases)


def load_json(path: Path) -> dict:
    return json.loads(path.read_text())


def test_nnunet_raw(dataset: Dataset, tmp_path: Path) -> None:
    export(dataset, load_exporter("nnunet", {"id": "12", "name": "Night"}), tmp_path)
    root = tmp_path / "Dataset012_Night"
    document = load_json(root / "dataset.json")
    assert document["channel_names"] == {"0": "CT", "1": "mri_t1"}
    assert document["labels"] == {"background": 0, "liver": 1, "left kidney": 2, "hepatic tumor": 3, "body": 4}
    assert document["numTraining"] == 4
    assert sorted(path.name for path in (root / "imagesTs").iterdir()) == ["case-0003_0000.nii.gz", "case-0003_0001.nii.gz"]
    true = np.asarray(dataset["case-0004"].labels)
    read = np.asanyarray(nib.load(root / "labelsTr/case-0004.nii.gz").dataobj)
    assert read.dtype == np.uint8
    for label, number in ((LIVER, 1), (LEFT_KIDNEY, 2), (TUMOR, 3), (BODY, 4)):
        assert np.array_equal(read == number, true == label)
    second = np.asanyarray(nib.load(root / "imagesTr/case-0001_0001.nii.gz").dataobj)
    assert np.array_equal(second, np.asarray(dataset["case-0001"].images["mri_t1"]))
    splits = json.loads((root / "splits_final.json").read_text())
    assert splits == [{"train": ["case-0000", "case-0001", "case-0004"], "val": ["case-0002"]}]
    assert load_json(root / "label_ids.json")["labels"]["3"] == {"id": 26, "name": "hepatic tumor"}


def test_nnunet_regions_and_chosen_labels(dataset: Dataset, tmp_path: Path) -> None:
    regions = tmp_path / "regions.yaml"
    regions.write_text("whole liver: [liver, hepatic tumor]\ntumor: [lesion]\n")
    export(dataset, load_exporter("nnunet", {"regions": str(regions)}), tmp_path / "out")
    root = tmp_path / "out/Dataset001_Synthetic"
    document = load_json(root / "dataset.json")
    assert document["labels"] == {"background": 0, "whole liver": [1, 2], "tumor": [2]}
    assert document["regions_class_order"] == [1, 2]
    assert set(np.unique(np.asanyarray(nib.load(root / "labelsTr/case-0000.nii.gz").dataobj))) == {0, 1, 2}
    export(dataset, load_exporter("nnunet", {"labels": "left kidney, lesion"}), tmp_path / "some")
    labels = load_json(tmp_path / "some/Dataset001_Synthetic/dataset.json")["labels"]
    assert labels == {"background": 0, "left kidney": 1, "hepatic tumor": 2}
    with pytest.raises(AnatomyError, match="no such label"):
        export(dataset, load_exporter("nnunet", {"labels": "livver"}), tmp_path / "none")


@pytest.mark.parametrize("regions", [False, True])
def test_nnunet_accepts_its_dataset(dataset: Dataset, tmp_path: Path, regions: bool) -> None:
    """nnU-Net's own check of raw data, which forks a pool of processes."""
    settings: dict[str, object] = {"id": 3}
    if regions:
        (tmp_path / "regions.yaml").write_text("whole: [liver, hepatic tumor]\ntumor: [hepatic tumor]\n")
        settings["regions"] = str(tmp_path / "regions.yaml")
    export(dataset, load_exporter("nnunet", settings), tmp_path / "out")
    run_fresh(INTEGRITY, tmp_path / "out/Dataset003_Synthetic")


def test_formats_with_one_list_of_labels_and_channels_say_what_they_can_not_hold(tmp_path: Path) -> None:
    cases = [exchange_case(0), exchange_case(1, sequences=("ct", "mri_t1"))]
    mixed = exchange_dataset(tmp_path / "set", cases)
    for name in ("nnunet", "monai"):
        with pytest.raises(ExchangeError, match="same channels"):
            export(mixed, load_exporter(name), tmp_path / name)
        assert export(mixed, load_exporter(name), tmp_path / name, selection=Selection(sequences=("ct",))).cases == 2


def test_monai_loads_the_data_list(dataset: Dataset, tmp_path: Path) -> None:
    export(dataset, load_exporter("monai"), tmp_path)
    listed = {
        key: monai.data.load_decathlon_datalist(tmp_path / "dataset.json", True, key)
        for key in ("training", "validation", "test")
    }
    assert {key: len(items) for key, items in listed.items()} == {"training": 3, "validation": 1, "test": 1}
    assert all(0 <= item["fold"] < 5 for item in listed["training"])
    properties = monai.data.load_decathlon_properties(tmp_path / "dataset.json", ["labels", "modality", "numTraining"])
    assert properties["modality"] == {"0": "CT", "1": "mri_t1"}
    assert properties["labels"]["3"] == "hepatic tumor"
    loaded = LoadImaged(keys=["image", "label"], ensure_channel_first=True)(listed["training"][1])
    assert loaded["image"].shape == (2, *SIZE)
    assert loaded["label"].shape == (1, *SIZE)
    assert np.allclose(loaded["image"].affine.numpy(), straight_affine(), atol=1e-4)
    assert np.array_equal(loaded["image"][0].numpy(), np.asarray(dataset["case-0001"].images["ct"]))
    assert np.array_equal(loaded["label"][0].numpy() == 3, np.asarray(dataset["case-0001"].labels) == TUMOR)


def test_monai_with_true_ids(dataset: Dataset, tmp_path: Path) -> None:
    export(dataset, load_exporter("monai", {"numbering": "true"}), tmp_path)
    labels = np.asanyarray(nib.load(tmp_path / "labelsTr/case-0000.nii.gz").dataobj)
    assert np.array_equal(labels, np.asarray(dataset["case-0000"].labels))
    assert load_json(tmp_path / "dataset.json")["labels"]["200"] == "body"


def test_webdataset_streams_the_shards(dataset: Dataset, tmp_path: Path) -> None:
    import webdataset

    export(dataset, load_exporter("webdataset", {"voxels": "npy", "cases_per_shard": "2"}), tmp_path)
    shards = load_json(tmp_path / "shards.json")
    assert shards["train"] == {"cases": 3, "shards": ["train-000000.tar", "train-000001.tar"]}
    urls = [str(tmp_path / name) for name in shards["train"]["shards"]]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False).decode())
    assert [sample["__key__"] for sample in samples] == ["case-0000", "case-0001", "case-0004"]
    for sample in samples:
        volume = dataset[sample["__key__"]]
        assert np.array_equal(sample["ct.npy"], np.asarray(volume.images["ct"]))
        assert np.array_equal(sample["labels.npy"], np.asarray(volume.labels))
        assert np.allclose(sample["json"]["affine"], volume.affine)
        assert sample["json"]["label_ids"] == [LIVER, LEFT_KIDNEY, TUMOR, BODY]


def test_webdataset_with_nifti_and_the_same_bytes_again(dataset: Dataset, tmp_path: Path) -> None:
    import webdataset

    for name in ("one", "two"):
        export(dataset, load_exporter("webdataset"), tmp_path / name)
    shard = tmp_path / "one/train-000000.tar"
    assert shard.read_bytes() == (tmp_path / "two/train-000000.tar").read_bytes()
    sample = next(iter(webdataset.WebDataset(str(shard), shardshuffle=False)))
    image = nib.Nifti1Image.from_bytes(gzip.decompress(sample["ct.nii.gz"]))
    assert np.array_equal(np.asanyarray(image.dataobj), np.asarray(dataset["case-0000"].images["ct"]))


def test_hugging_face_folder(dataset: Dataset, tmp_path: Path) -> None:
    huggingface_hub = pytest.importorskip("huggingface_hub")
    export(dataset, load_exporter("huggingface"), tmp_path)
    table = pq.read_table(tmp_path / "train/metadata.parquet")
    assert table["case_id"].to_pylist() == ["case-0000", "case-0001", "case-0004"]
    for row in table.to_pylist():
        assert (tmp_path / "train" / row["mri_t1_file_name"]).is_file()
        assert (tmp_path / "train" / row["labels_file_name"]).is_file()
        for file in row["files"]:
            assert hashlib.sha256((tmp_path / file["name"]).read_bytes()).hexdigest() == file["sha256"]
    assert pq.read_table(tmp_path / "validation/metadata.parquet").num_rows == 1
    card = huggingface_hub.DatasetCard.load(tmp_path / "README.md")
    assert card.data.tags == ["medical", "synthetic", "ct", "mri"]


def test_croissant_is_valid_and_its_records_load(dataset: Dataset, tmp_path: Path) -> None:
    import mlcroissant

    export(dataset, load_exporter("croissant", {"licence": "CC-BY-4.0"}), tmp_path)
    described = mlcroissant.Dataset(jsonld=tmp_path / "croissant.json")
    assert not described.metadata.ctx.issues.errors
    records = [dict(record) for record in described.records("cases")]
    assert [record["cases/case_id"] for record in records] == [
        b"case-0000",
        b"case-0001",
        b"case-0002",
        b"case-0003",
        b"case-0004",
    ]
    assert records[3]["cases/split"] == b"test"
    file = described.metadata.distribution[0]
    assert file.sha256 == hashlib.sha256((tmp_path / "cases.parquet").read_bytes()).hexdigest()


@given(st.lists(st.tuples(st.uuids().map(str), st.integers(0, 6)), unique_by=lambda item: item[0], min_size=1))
def test_no_body_is_on_both_sides_of_a_fold(drawn: list[tuple[str, int]]) -> None:
    bodies = {case: f"body:{body}" for case, body in drawn}
    folds = splits_of((case, "train", body) for case, body in bodies.items())
    for fold in folds:
        assert set(fold["train"]) | set(fold["val"]) == set(bodies)
        assert {bodies[case] for case in fold["train"]}.isdisjoint(bodies[case] for case in fold["val"])
    held_out = [case for fold in folds for case in fold["val"]]
    assert len(held_out) == len(set(held_out))


@given(st.sets(st.sampled_from([label.id for label in load_vocabulary("brain")]), min_size=1))
def test_numbers_without_gaps_can_be_turned_back(ids: set[int]) -> None:
    table = label_table(load_vocabulary("brain"), ids, "contiguous")
    voxels = np.array([[[0, *ids]]], np.uint16)
    numbered = table.apply(voxels)
    assert sorted(numbered.ravel()) == list(range(len(ids) + 1))
    back = {number: label for label, number in table.numbers.items()} | {0: 0}
    assert [back[int(number)] for number in numbered.ravel()] == [0, *ids]


def test_npy_members_need_no_package_of_ours(dataset: Dataset, tmp_path: Path) -> None:
    import tarfile

    export(dataset, load_exporter("webdataset", {"voxels": "npy"}), tmp_path)
    with tarfile.open(tmp_path / "test-000000.tar") as tar:
        assert {entry.mtime for entry in tar} == {0}
        member = tar.extractfile("case-0003.labels.npy")
        assert member is not None
        assert np.load(io.BytesIO(member.read())).shape == SIZE
