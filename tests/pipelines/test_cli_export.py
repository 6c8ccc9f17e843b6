"""``ctmr export`` and ``ctmr import`` as people and scripts call them."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from ctmr_core.store import Dataset, create_snapshot
from pipelines.cli.main import app
from tests.exchange.exchange_maker import exchange_case, exchange_dataset, label_voxels, oblique_affine


def run(*arguments: object, code: int = 0) -> str:
    answer = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert answer.exit_code == code, answer.output
    return answer.output


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return exchange_dataset(tmp_path / "set", [exchange_case(i, split=("train", "val")[i % 2]) for i in range(3)])


def test_a_snapshot_becomes_nnunet_data(dataset: Dataset, tmp_path: Path) -> None:
    create_snapshot(dataset, "night-1", cases=["case-0000", "case-0001"])
    out = tmp_path / "nnUNet_raw"
    command = ("export", dataset.uri, "--snapshot", "night-1", "--format", "nnunet", "--set", "id=7", "--out", out)
    answer = json.loads(run(*command, "--json"))
    assert (answer["cases"], answer["written"], answer["failures"]) == (2, 2, {})
    assert json.loads((out / "Dataset007_Synthetic/dataset.json").read_text())["numTraining"] == 2
    assert "2 cases" in run(*command)
    assert json.loads(run(*command, "--json"))["written"] == 0


def test_what_is_exported_can_be_chosen(dataset: Dataset, tmp_path: Path) -> None:
    listed = tmp_path / "cases.txt"
    listed.write_text("case-0002\ncase-0001\n")
    answer = json.loads(
        run("export", dataset.uri, "-f", "monai", "-o", tmp_path / "out", "--cases", listed, "--split", "train", "--json")
    )
    assert answer["cases"] == 1
    assert [path.name for path in (tmp_path / "out/labelsTr").iterdir()] == ["case-0002.nii.gz"]


def test_formats_are_listed() -> None:
    shown = run("export", "--list")
    for name in ("nifti", "nnunet", "monai", "webdataset", "dicom", "huggingface", "croissant"):
        assert name in shown


def test_mistakes_are_explained(dataset: Dataset, tmp_path: Path) -> None:
    assert "unknown format" in run("export", dataset.uri, "-f", "nope", "-o", tmp_path / "out", code=1)
    assert "NAME=VALUE" in run("export", dataset.uri, "-f", "nifti", "-o", tmp_path / "out", "--set", "suffix", code=2)
    assert "--set id" in run("export", dataset.uri, "-f", "nnunet", "-o", tmp_path / "out", "--set", "id=0", code=1)
    run("export", tmp_path / "nothing", "-f", "nifti", "-o", tmp_path / "out", code=1)
    run("export", dataset.uri, "-f", "nifti", code=2)
    assert "IMAGE and LABELS" in run("import", tmp_path / "set", "--dataset", dataset.uri, code=2)


def test_a_damaged_case_is_the_exit_code(dataset: Dataset, tmp_path: Path) -> None:
    for shard in (Path(dataset.uri) / dataset["case-0001"].path / "ct/0").glob("c.*"):
        shard.unlink()
    shown = run("export", dataset.uri, "-f", "nifti", "-o", tmp_path / "out", code=1)
    assert "case-0001" in shown
    assert "2 cases in" in shown


def test_scans_are_imported_beside_synthetic_cases(dataset: Dataset, tmp_path: Path) -> None:
    labels = label_voxels()
    image, label_file = tmp_path / "scan 1.nii.gz", tmp_path / "labels.nii.gz"
    nib.save(nib.Nifti1Image(np.full(labels.shape, -900, np.int16), oblique_affine()), image)
    nib.save(nib.Nifti1Image(labels, oblique_affine()), label_file)
    command = ("import", image, label_file, "--dataset", dataset.uri, "--checks", "skip", "--licence", "CC0-1.0")
    assert "case_id" in run(*command, code=1)  # a file name with a space is no case id
    (imported,) = json.loads(run(*command, "--case-id", "scan-1", "--json"))
    assert imported["new"]
    assert "there already" in run(*command, "--case-id", "scan-1")
    assert Dataset.open(dataset.uri).row("scan-1")["licences"] == ["CC0-1.0"]
    fresh = tmp_path / "fresh"
    table = tmp_path / "pairs.csv"
    table.write_text("case_id,ct,labels\na,scan 1.nii.gz,labels.nii.gz\nb,scan 1.nii.gz,labels.nii.gz\n")
    run("import", "--table", table, "--dataset", fresh, "--checks", "skip")
    assert list(Dataset.open(fresh)) == ["a", "b"]
