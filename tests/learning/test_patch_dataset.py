from __future__ import annotations

import os
from collections import Counter

import numpy as np
import pyarrow.dataset as pads
import pytest
import torch
from monai.transforms import Compose, RandFlipd, RandGaussianNoised, ScaleIntensityRanged

from ctmr_core.anatomy.vocabulary import load_vocabulary
from ctmr_core.errors import LearningError
from ctmr_core.learning.datasets import PatchDataset
from ctmr_core.store import Dataset, create_snapshot
from tests.learning.comparing import digest, digests
from tests.store.store_maker import make_case, make_dataset

TRAINING = {"soft": ["liver", "spleen", "pancreas"], "bones": "group:bone"}


def test_a_patch_is_cut_from_the_stored_volume(bodies: Dataset) -> None:
    patches = PatchDataset(bodies, 16, ("mri_t1", "ct"), seed=3, items=12)
    for item in patches:
        case_id, corner = item["image"].meta["case_id"], item["image"].meta["corner"]
        cut = tuple(slice(c, c + 16) for c in corner)
        volume = bodies[case_id]
        assert np.array_equal(item["image"][0].numpy(), volume.images["mri_t1"][cut])
        assert np.array_equal(item["image"][1].numpy(), volume.images["ct"][cut])
        assert np.array_equal(item["label"][0].numpy(), volume.labels[cut])
        assert item["image"].shape == (2, 16, 16, 16)
        assert (item["image"].dtype, item["label"].dtype) == (torch.float32, torch.uint8)


def test_a_voxel_of_a_patch_lies_where_it_lies_in_the_volume(bodies: Dataset) -> None:
    for item in PatchDataset(bodies, (8, 12, 16), border="pad", items=8):
        image, corner = item["image"], np.asarray(item["image"].meta["corner"])
        voxel = np.array([3, 5, 7])
        world = bodies[image.meta["case_id"]].affine @ [*(corner + voxel), 1]
        assert np.allclose(image.affine.numpy() @ [*voxel, 1], world)
        assert np.allclose(item["label"].affine, image.affine)


def test_items_depend_on_seed_epoch_and_number_alone(bodies: Dataset) -> None:
    first = PatchDataset(bodies, 16, seed=5, items=6)
    again = PatchDataset(bodies, 16, seed=5, items=6)
    backwards = [again[i] for i in reversed(range(6))]
    assert digests(first) == digests(reversed(backwards))
    assert digests(first.__getitems__([4, 1])) == [digest(again[4]), digest(again[1])]
    assert digests(PatchDataset(bodies, 16, seed=6, items=6)) != digests(first)
    again.set_epoch(1)
    other = digests(again)
    assert set(other).isdisjoint(digests(first))
    again.set_epoch(0)
    assert digests(again) == digests(first)


def test_classes_get_equal_shares_whatever_their_size(bodies: Dataset) -> None:
    patches = PatchDataset(bodies, 16, labels=TRAINING, foreground=0.75, items=4000)
    drawn = Counter(patches.where(0, item)[0].number for item in range(4000))
    assert drawn[0] / 4000 == pytest.approx(0.25, abs=0.03)
    assert drawn[1] / 4000 == pytest.approx(0.375, abs=0.03)
    assert drawn[2] / 4000 == pytest.approx(0.375, abs=0.03)
    voxels = patches.table.class_voxels()
    assert voxels[2] > 3 * voxels[1]  # equal shares are not what chance would give


def test_class_weights_move_the_shares(bodies: Dataset) -> None:
    weights = {"soft": 3, "bones": 1}
    patches = PatchDataset(bodies, 16, labels=TRAINING, foreground=1, class_weights=weights, items=4000)
    drawn = Counter(patches.where(0, item)[0].number for item in range(4000))
    assert drawn[1] / 4000 == pytest.approx(0.75, abs=0.03)
    assert not drawn[0]


def test_a_patch_centred_on_a_class_shows_it_under_its_training_id(bodies: Dataset) -> None:
    shown = set()
    for item in PatchDataset(bodies, 16, labels=TRAINING, foreground=1, items=40):
        number = item["label"].meta["class_id"]
        assert (item["label"] == number).any()
        assert int(item["label"].max()) <= 2
        shown.add(number)
    assert shown == {1, 2}


def test_training_ids_are_those_of_the_stored_labels(bodies: Dataset) -> None:
    vocabulary = load_vocabulary("maisi")
    for item in PatchDataset(bodies, 16, labels=TRAINING, items=5):
        cut = tuple(slice(c, c + 16) for c in item["label"].meta["corner"])
        stored = bodies[item["label"].meta["case_id"]].labels[cut]
        soft = np.isin(stored, [vocabulary.label(name).id for name in TRAINING["soft"]])
        bones = np.isin(stored, vocabulary.ids("bone"))
        assert np.array_equal(item["label"][0].numpy(), soft + 2 * bones)


def test_cases_of_other_splits_and_without_the_sequences_are_left_out(bodies: Dataset) -> None:
    ids = {PatchDataset(bodies, 16, ("ct", "mri_t1")).table.name(i)[0] for i in range(4)}
    assert ids == {"case-0000", "case-0001", "case-0003", "case-0005"}
    assert len(PatchDataset(bodies, 16, ("ct", "mri_t1"), splits=["val"]).table) == 2
    assert len(PatchDataset(bodies, 16, "ct", splits=None).table) == 7
    chosen = PatchDataset(bodies, 16, filter=pads.field("case_id") == "case-0003")
    assert [chosen.table.name(0)[0], len(chosen)] == ["case-0003", 1]
    with pytest.raises(LearningError, match="no case fits"):
        PatchDataset(bodies, 16, "mri_flair")


def test_a_snapshot_gives_the_same_patches_after_the_dataset_grew(tmp_path: os.PathLike[str]) -> None:
    cases = [make_case(number, sequences=("ct",)) for number in range(4)]
    make_dataset(tmp_path, cases[:2])
    create_snapshot(Dataset.open(tmp_path), "two")
    before = digests(PatchDataset(Dataset.open(tmp_path, snapshot="two"), 16, items=8))
    make_dataset(tmp_path, cases)
    assert len(PatchDataset(tmp_path, 16).table) == 4
    assert digests(PatchDataset(Dataset.open(tmp_path, snapshot="two"), 16, items=8)) == before


def test_volumes_smaller_than_the_patch_are_padded_with_air(bodies: Dataset) -> None:
    item = PatchDataset(bodies, 64, ("ct", "mri_t1"), items=1)[0]
    assert item["image"].shape == (2, 64, 64, 64)
    assert float(item["image"][0, 0, 0, 0]) == -1024
    assert float(item["image"][1, 0, 0, 0]) == 0
    assert int(item["label"][0, 0, 0, 0]) == 0
    assert item["label"].meta["corner"] == [-12, -10, -8]


def test_random_transforms_of_monai_are_drawn_by_the_item(bodies: Dataset) -> None:
    def transformed() -> PatchDataset:
        steps = [
            ScaleIntensityRanged("image", -200, 300, 0, 1, clip=True),
            RandFlipd(["image", "label"], prob=0.5, spatial_axis=0),
            RandGaussianNoised("image", prob=1.0),
        ]
        return PatchDataset(bodies, 16, items=6, transform=Compose(steps))

    first = transformed()
    assert digests(first) == digests(transformed()[i] for i in range(6))
    assert len(set(digests(first))) == 6


def test_a_patch_reads_the_chunks_it_touches_and_no_whole_volume(large: Dataset) -> None:
    size = large.row(next(iter(large)), ["bytes"])["bytes"]
    patches = PatchDataset(large, 32, items=10, foreground=0)
    for item in range(10):
        _, patch = patches.where(0, item)
        chunks = np.prod([(part.stop - 1) // 64 - part.start // 64 + 1 for part in patch.inside])
        before = _bytes_read()
        patches[item]
        assert 32**3 < _bytes_read() - before < (chunks + 1) / 27 * size + 20_000


def test_cached_chunks_are_not_read_again(large: Dataset) -> None:
    patches = PatchDataset(large, 48, items=3, cache_bytes=1 << 28)
    cold = digests(patches)
    before = _bytes_read()
    assert digests(patches) == cold
    assert _bytes_read() - before < 50_000  # documents and indices


def test_large_patches_begin_where_few_chunks_are_touched(large: Dataset) -> None:
    patches = PatchDataset(large, 96, items=12)
    for item in range(12):
        centre, patch = patches.where(0, item)
        assert all(corner % 32 == 0 for corner in patch.corner)
        if centre.number:
            assert (patches[item]["label"] == centre.number).any()


def test_settings_that_can_not_be_drawn_are_refused(bodies: Dataset) -> None:
    with pytest.raises(LearningError, match="jitter"):
        PatchDataset(bodies, 16, jitter=9)
    with pytest.raises(LearningError, match="fraction"):
        PatchDataset(bodies, 16, foreground=1.5)
    with pytest.raises(LearningError, match="no such class"):
        PatchDataset(bodies, 16, labels=["liver"], class_weights={"lung": 1})
    with pytest.raises(LearningError, match="no case has a voxel"):
        PatchDataset(bodies, 16, labels=["liver"], min_voxels=10**9)
    with pytest.raises(IndexError):
        PatchDataset(bodies, 16, items=2)[2]


def _bytes_read() -> int:
    """Bytes this process has asked files for."""
    with open("/proc/self/io") as counters:  # noqa: PTH123
        return next(int(line.split()[1]) for line in counters if line.startswith("rchar"))
