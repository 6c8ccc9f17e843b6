"""A bundle does what the checkpoint does: run by MONAI, by a quality policy and by us."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow
from typer.testing import CliRunner

from ctmr_core.errors import LearningError
from ctmr_core.learning.segmentation.bundle import export_bundle
from ctmr_core.learning.segmentation.predict import load_segmenter, segment
from ctmr_core.learning.segmentation.trainer import train
from ctmr_core.quality.segmenters import Segmenter
from ctmr_core.quality.segmenters import segment as segment_by_policy
from ctmr_core.store import Dataset, create_snapshot
from pipelines.cli.main import app
from tests.learning.segmentation.conftest import blobs, config_of, training, write_scan

#: What the MONAI bundle specification requires of metadata.json, "schema" for `verify_metadata`.
REQUIRED = {
    "schema", "version", "monai_version", "pytorch_version", "numpy_version", "required_packages_version", "task",
    "description", "authors", "copyright", "network_data_format", "changelog",
}  # fmt: skip
SIXTY_STEPS = training(steps=60, optimizer={"name": "adamw", "learning_rate": 0.01}, epoch=120, checkpoint_every=60)


@pytest.fixture(scope="module")
def run(blob_dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that tells the blobs from the rest."""
    snapshot = create_snapshot(Dataset.open(blob_dataset.uri), "for-a-bundle").name
    sources = [{"dataset": blob_dataset.uri, "snapshot": snapshot}]
    config = config_of(blob_dataset, sources=sources, training=SIXTY_STEPS, name="blobs", intensity={"ct_window": [-150, 300]})
    folder = tmp_path_factory.mktemp("training") / "run"
    train(config, folder)
    return folder


@pytest.fixture(scope="module")
def bundle(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "blobs"
    export_bundle(run / "checkpoints" / "best.pt", folder, licence="CC0-1.0", authors="The authors")
    return folder


@pytest.mark.parametrize(("spacing", "agreement"), [((2.0, 2.0, 2.0), 1.0), ((3.0, 2.0, 1.0), 0.99)])
def test_monai_runs_a_bundle_and_finds_what_the_checkpoint_finds(
    run: Path, bundle: Path, tmp_path: Path, spacing: tuple[float, float, float], agreement: float
) -> None:
    image, _ = write_scan(tmp_path / "person", blobs(11, spacing))
    (tmp_path / "scans").mkdir()
    image.rename(tmp_path / "scans" / "ct.nii.gz")
    workflow = ConfigWorkflow(
        config_file=str(bundle / "configs" / "inference.json"),
        meta_file=str(bundle / "configs" / "metadata.json"),
        workflow_type="infer",
        bundle_root=str(bundle),
        dataset_dir=str(tmp_path / "scans"),
        output_dir=str(tmp_path / "found"),
        device="cpu",
    )
    workflow.initialize()
    assert not workflow.check_properties()
    workflow.run()
    workflow.finalize()
    found = nib.load(tmp_path / "found" / "ct_seg.nii.gz")
    assert np.allclose(found.affine, nib.load(tmp_path / "scans" / "ct.nii.gz").affine)
    assert found.get_data_dtype() == np.uint8
    ours = nib.load(segment(run / "checkpoints" / "best.pt", tmp_path / "scans" / "ct.nii.gz", tmp_path / "ours.nii.gz"))
    there, here = (np.asarray(nib.as_closest_canonical(one).dataobj) for one in (found, ours))
    assert set(np.unique(here)) == {0, 1, 2}
    assert (there == here)[(there > 0) | (here > 0)].mean() >= agreement


def test_a_bundle_is_a_segmenter_of_a_policy_and_of_ours(run: Path, blob_dataset: Dataset, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["train", "export", str(run), "--out", str(tmp_path / "b"), "--json"])
    assert result.exit_code == 0, result.output
    entry = json.loads(result.stdout)["segmenter"]
    image = np.asarray(blob_dataset["case-0002"].images["ct"][...])
    ours = load_segmenter(run / "checkpoints" / "best.pt").segment([image], (2.0, 2.0, 2.0))
    assert np.array_equal(load_segmenter(tmp_path / "b").segment([image], (2.0, 2.0, 2.0)), ours)
    segmenter = Segmenter.model_validate(entry)
    assert np.array_equal(segment_by_policy(segmenter, image, (2.0, 2.0, 2.0)), ours)
    (tmp_path / "b" / "models" / "model.ts").unlink()  # then its network_def and model.pt
    assert np.array_equal(segment_by_policy(segmenter.model_copy(update={"sha256": ""}), image, (2.0, 2.0, 2.0)), ours)


def test_ctmr_segment_takes_a_bundle(bundle: Path, tmp_path: Path) -> None:
    image, _ = write_scan(tmp_path / "person", blobs(11))
    result = CliRunner().invoke(app, ["segment", str(bundle), str(image), "--out", str(tmp_path / "labels"), "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["classes"] == {"0": "background", "1": "liver", "2": "spleen"}
    assert (np.asarray(nib.load(tmp_path / "labels" / "ct.nii.gz").dataobj) > 0).any()


def test_a_bundle_says_what_it_is_and_what_it_was_trained_on(bundle: Path, blob_dataset: Dataset) -> None:
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    assert set(metadata) >= REQUIRED
    assert "synthetic" in metadata["intended_use"]
    assert metadata["eval_metrics"]["val/dice"] > 0
    formats = metadata["network_data_format"]
    assert formats["outputs"]["pred"]["channel_def"] == {"0": "background", "1": "liver", "2": "spleen"}
    digest = Dataset.open(blob_dataset.uri, snapshot="for-a-bundle").snapshot.digest
    for text in (metadata["data_source"], (bundle / "docs" / "data_license.txt").read_text()):
        assert "synthetic volumes of dataset" in text
        assert digest in text
        assert "licences of templates" in text or "made without templates" in text
    assert "CC0-1.0" in (bundle / "LICENSE").read_text()
    everything = "".join(path.read_text() for path in bundle.rglob("*") if path.suffix in {".json", ".md", ".txt"})
    assert str(Path(blob_dataset.uri).parent) not in everything
    parser = ConfigParser(json.loads((bundle / "configs" / "inference.json").read_text()))
    shape = formats["inputs"]["image"]["spatial_shape"]
    scores = parser.get_parsed_content("network_def").eval()(torch.zeros(1, 1, *shape))
    assert list(scores.shape) == [1, formats["outputs"]["pred"]["num_channels"], *shape]


def test_mr_of_several_channels_is_scaled_as_in_the_training(blob_dataset: Dataset, tmp_path: Path) -> None:
    config = config_of(
        blob_dataset, sequences=["mri_t1", "mri_t1"], intensity={"mr": "zscore"}, validation=[], training=training(steps=1)
    )
    checkpoint = train(config, tmp_path / "run").last
    assert export_bundle(checkpoint, tmp_path / "bundle") is None  # a policy feeds one channel
    label_map = blobs(11, (2.0, 2.0, 2.0))
    rng = np.random.default_rng(3)
    for name in ("a", "b"):
        path = tmp_path / "scans" / "person" / f"{name}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(rng.integers(-20, 900, label_map.size).astype(np.int16), label_map.affine), path)
    parser = ConfigParser()
    parser.read_config(str(tmp_path / "bundle" / "configs" / "inference.json"))
    parser["dataset_dir"] = str(tmp_path / "scans")
    image = parser.get_parsed_content("dataset")[0]["image"]
    assert image.shape == (2, *label_map.size)
    for channel, name in zip(image.numpy(), ("a", "b"), strict=True):
        voxels = np.asarray(nib.load(tmp_path / "scans" / "person" / f"{name}.nii.gz").dataobj, np.float32)
        inside = voxels[voxels > 0]
        assert np.allclose(channel, (voxels - inside.mean()) / inside.std(), atol=1e-3)


def test_what_a_bundle_can_not_be_is_refused(run: Path, bundle: Path, blob_dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(LearningError, match="something here already"):
        export_bundle(run / "checkpoints" / "best.pt", bundle)
    network = {
        "name": "BasicUNetPlusPlus",
        "options": {"features": [4, 4, 8, 8, 8, 4], "deep_supervision": True, "norm": "batch"},
    }
    config = config_of(blob_dataset, network=network, validation=[], training=training(steps=1))
    with pytest.raises(LearningError, match="gives one output"):
        export_bundle(train(config, tmp_path / "run").last, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
