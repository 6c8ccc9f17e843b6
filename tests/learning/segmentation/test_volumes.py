"""Scans, resampling and inference on the volume's own grid."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from ctmr_core.errors import LearningError
from ctmr_core.learning.datasets import Classes
from ctmr_core.learning.segmentation.config import InferenceSettings, IntensitySettings, ScanSettings, ValidationSettings
from ctmr_core.learning.segmentation.inference import segment_volume
from ctmr_core.learning.segmentation.resampling import largest_class, resampled_image, resampled_labels, size_at
from ctmr_core.learning.segmentation.scan_patches import at_spacing
from ctmr_core.learning.segmentation.scans import LabelMeanings, read_volume, scans_of
from ctmr_core.learning.segmentation.validation import StoredVolumes
from ctmr_core.store import Dataset
from tests.learning.segmentation.conftest import SIZE, blobs

CLASSES = Classes(["liver", "spleen"])


def meanings(**fields: object) -> LabelMeanings:
    return LabelMeanings(ValidationSettings.model_validate({"scans": "x", **fields}), CLASSES)


def test_a_scan_is_read_in_ras_with_training_ids(scan: tuple[Path, Path]) -> None:
    volume = read_volume(ScanSettings(image=scan[0], label=scan[1]), ("ct",), meanings(mapping="totalsegmentator_v2"))
    truth = blobs(11, (3.0, 3.0, 3.0))
    vocabulary = truth.vocabulary
    assert np.array_equal(volume.labels == 1, truth.voxels == vocabulary.label("liver").id)
    assert volume.labels[truth.voxels == vocabulary.label("spleen").id].max() == 0  # 7 is no spleen there
    assert volume.spacing == pytest.approx((3.0, 3.0, 3.0))
    assert volume.images[0][1][volume.labels == 1].mean() == pytest.approx(120, abs=2)
    assert volume.name == "person/ct.nii.gz"


def test_classes_a_label_map_can_not_tell_are_not_scored() -> None:
    assert meanings(labels={"liver": 5}).scored == {1}
    assert meanings(mapping="totalsegmentator_v2").scored == {1, 2}


def test_sides_a_scan_does_not_tell_apart_are_refused_where_the_classes_do(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("source,name,target\n1,kidney,left kidney|right kidney\n")
    settings = ValidationSettings.model_validate({"scans": "x", "mapping": str(tmp_path / "m.csv")})
    both = LabelMeanings(settings, Classes({"kidneys": ["left kidney", "right kidney"]}))
    assert both.training_ids(np.array([0, 1]), "here").tolist() == [0, 1]
    with pytest.raises(LearningError, match="don't tell sides apart"):
        LabelMeanings(settings, Classes(["left kidney", "right kidney"]))


def test_grids_that_differ_and_lists_that_are_none_are_refused(scan: tuple[Path, Path], tmp_path: Path) -> None:
    image = nib.load(scan[0])
    moved = tmp_path / "moved.nii.gz"
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), image.affine + np.diag([0.2, 0, 0, 0])), moved)
    with pytest.raises(LearningError, match="different grids"):
        read_volume(ScanSettings(image=moved, label=scan[1]), ("ct",), meanings(labels={"liver": 5, "spleen": 7}))
    for text in ("[", "{}", "[1]", '[{"image": "a"}]'):
        (tmp_path / "list.json").write_text(text)
        with pytest.raises(LearningError, match=r"list\.json"):
            scans_of(tmp_path / "list.json")


def test_resampling_keeps_borders_and_shares() -> None:
    assert size_at((10, 20, 30), (3.0, 1.5, 1.0), (1.5, 1.5, 2.0)) == (20, 20, 15)
    ramp = np.broadcast_to(np.arange(12, dtype=np.float32)[:, None, None], (12, 4, 4))
    half = resampled_image(ramp, (6, 4, 4))
    assert half[1:-1, 0, 0] == pytest.approx([2.5, 4.5, 6.5, 8.5], abs=0.05)
    noise = np.random.default_rng(0).normal(0, 1, (40, 40, 40))
    assert resampled_image(noise, (10, 10, 10)).std() < 0.5  # smoothed, not sampled
    labels = np.zeros((12, 12, 12), np.uint8)
    labels[:6], labels[6:, :6] = 1, 2
    small = resampled_labels(labels, (6, 6, 6))
    assert np.bincount(small.ravel()).tolist() == [6 * 3 * 3, 6 * 6 * 3, 6 * 3 * 3]
    assert np.array_equal(resampled_labels(small, (12, 12, 12)), labels)


def test_a_volume_at_another_spacing_is_in_the_same_place(scan: tuple[Path, Path]) -> None:
    fields = meanings(labels={"liver": 5, "spleen": 7})
    volume = read_volume(ScanSettings(image=scan[0], label=scan[1]), ("ct",), fields)
    fine = at_spacing(volume, (2.0, 2.0, 1.5))
    assert fine.spacing == pytest.approx((2.0, 2.0, 1.5))
    for number in (1, 2):
        centres = [one.affine[:3, :3] @ np.argwhere(one.labels == number).mean(0) + one.affine[:3, 3] for one in (volume, fine)]
        assert centres[0] == pytest.approx(centres[1], abs=0.3)
        volumes = [(one.labels == number).sum() * np.prod(one.spacing) for one in (volume, fine)]
        assert volumes[0] == pytest.approx(volumes[1], rel=0.05)


def test_probabilities_are_brought_back_not_classes() -> None:
    scores = torch.full((3, 4, 4, 4), -4.0)
    scores[0], scores[1, :2] = 0.0, 4.0
    fine = largest_class(scores, (8, 8, 8))
    assert fine.shape == (8, 8, 8)
    assert set(np.unique(fine)) == {0, 1}
    assert np.array_equal(np.unique(np.argwhere(fine == 1)[:, 0]), [0, 1, 2, 3])
    assert np.array_equal(largest_class(scores, (4, 4, 4)), scores.argmax(0).numpy())


class Threshold(torch.nn.Module):
    """Liver above 0.4 of the window, spleen above 0.75; counts what it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: set[tuple[int, ...]] = set()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.sizes.add(tuple(image.shape[2:]))
        return torch.cat([0.4 - image, (image - 0.4).clamp(max=0.35), 2 * image - 1.15], 1) * 50


@pytest.mark.parametrize("to", [(3.0, 3.0, 3.0), (2.0, 2.0, 4.0)])
def test_a_volume_is_segmented_on_its_own_grid(scan: tuple[Path, Path], to: tuple[float, float, float]) -> None:
    fields = meanings(labels={"liver": 5, "spleen": 7})
    volume = read_volume(ScanSettings(image=scan[0], label=scan[1]), ("ct",), fields)
    network = Threshold().train()
    found = segment_volume(
        network,
        volume.images,
        volume.spacing,
        to=to,
        intensity=IntensitySettings(ct_window=(-100, 300)),
        window=(24, 24, 24),
        inference=InferenceSettings(),
        device=torch.device("cpu"),
    )
    assert (found.shape, found.dtype) == (SIZE, np.uint8)
    for number, least in ((1, 0.9), (2, 0.85)):
        truth, seen = volume.labels == number, found == number
        assert 2 * (truth & seen).sum() / (truth.sum() + seen.sum()) > least
    assert network.sizes == {(24, 24, 24)}
    assert network.training


def test_cases_of_a_dataset_are_volumes(blob_dataset: Dataset) -> None:
    settings = ValidationSettings(dataset=blob_dataset.uri, splits=("train", "val"), limit=3)
    volumes = StoredVolumes(settings, ("mri_t1", "ct"), CLASSES)
    assert len(volumes) == 3
    volume = volumes.volume(2)
    stored = blob_dataset[volume.name]
    assert [name for name, _ in volume.images] == ["mri_t1", "ct"]
    assert np.array_equal(volume.images[1][1], stored.images["ct"][...])
    assert volume.scored == {1, 2}
    assert volume.spacing == (2.0, 2.0, 2.0)
