from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.transforms import Compose

from ctmr_core.anatomy.vocabulary import load_vocabulary
from ctmr_core.errors import LearningError
from ctmr_core.learning.datasets import Classes
from ctmr_core.learning.datasets.draws import item_rng, seed_transform
from ctmr_core.learning.segmentation.augmentation import make_augmentation, mirrored_ids
from ctmr_core.learning.segmentation.config import AugmentationSettings, TransformSettings
from ctmr_core.learning.segmentation.stripping import stripped

SIDED = Classes({"left": "left kidney", "right": "right kidney", "liver": "liver", "both": ["left hip", "right hip"]})


def item() -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(0)
    label = np.zeros((1, 12, 14, 16), np.uint8)
    label[0, 1:4, 3:6, 3:6], label[0, 8:11, 3:6, 3:6], label[0, 5:8, 7:10, 7:10] = 1, 2, 3
    image = rng.random((1, 12, 14, 16), np.float32) * 0.1 + label * 0.2
    return {"image": torch.from_numpy(image.astype(np.float32)), "label": torch.from_numpy(label)}


def drawn(transform: Compose, number: int) -> dict[str, torch.Tensor]:
    seed_transform(transform, item_rng(0, 0, number))
    found: dict[str, torch.Tensor] = transform(item())
    return found


def test_a_flip_along_x_exchanges_the_sides() -> None:
    flip = make_augmentation(AugmentationSettings(preset="none", flip=("x",)), SIDED, ["ct"])
    plain, flipped = 0, 0
    for number in range(20):
        found = drawn(flip, number)
        if torch.equal(found["label"], item()["label"]):
            plain += 1
            continue
        flipped += 1
        mirrored = item()["label"].flip(1)
        assert torch.equal(found["image"], item()["image"].flip(1))
        assert torch.equal(found["label"] == 1, mirrored == 2)
        assert torch.equal(found["label"] == 2, mirrored == 1)
        assert torch.equal(found["label"] == 3, mirrored == 3)
    assert plain > 4
    assert flipped > 4


def test_other_axes_leave_the_sides_alone() -> None:
    flip = make_augmentation(AugmentationSettings(preset="none", flip=("y", "z")), SIDED, ["ct"])
    several = {tuple(np.argwhere(drawn(flip, number)["label"][0].numpy() == 1).min(0)) for number in range(40)}
    assert several == {(1, 3, 3), (1, 8, 3), (1, 3, 10), (1, 8, 10)}


def test_mirrored_classes() -> None:
    assert list(mirrored_ids(SIDED)[:5]) == [0, 2, 1, 3, 4]
    heads = Classes(["left hippocampus", "right hippocampus", "brain stem"])
    assert list(mirrored_ids(heads)[:4]) == [0, 2, 1, 3]
    lungs = [f"{side} lung {lobe} lobe" for side in ("left", "right") for lobe in ("upper", "lower")]
    assert list(mirrored_ids(Classes({"lungs": [*lungs, "right lung middle lobe"]}))[:2]) == [0, 1]
    for vocabulary in ("maisi", "brain"):
        pairs = [(name, name.replace("left", "right")) for name in load_vocabulary(vocabulary).by_name if name.startswith("left")]
        sided = [name for pair in pairs if pair[1] in load_vocabulary(vocabulary) for name in pair]
        assert len(sided) > 20
        table = mirrored_ids(Classes(sided))
        assert all(table[number] != number for number in range(1, len(sided) + 1))


@pytest.mark.parametrize("lonely", [["left kidney"], {"left": ["left kidney", "left hip"], "right": "right kidney"}])
def test_a_class_without_its_other_side_is_not_flipped_along_x(lonely: object) -> None:
    settings = AugmentationSettings(flip=("x",))
    with pytest.raises(LearningError, match="other side"):
        make_augmentation(settings, Classes(lonely), ["ct"])  # type: ignore[arg-type]
    assert make_augmentation(AugmentationSettings(flip=("z",)), Classes(lonely), ["ct"])  # type: ignore[arg-type]


def test_inverting_turns_contrast_and_keeps_the_background() -> None:
    settings = AugmentationSettings(preset="none", invert=1.0)
    image = torch.zeros(1, 4, 4, 4)
    image[0, 1], image[0, 2] = 0.3, 1.0
    found = make_augmentation(settings, SIDED, ["mri_t1"])({"image": image, "label": torch.zeros(1, 4, 4, 4)})["image"]
    assert [round(float(found[0, x, 0, 0]), 3) for x in range(4)] == [0.0, 0.7, 0.0, 0.0]
    ct = make_augmentation(settings, SIDED, ["ct"])({"image": image, "label": torch.zeros(1, 4, 4, 4)})["image"]
    assert torch.equal(ct, image)


@pytest.mark.parametrize("preset", ["light", "strong"])
def test_presets_vary_the_item_by_its_own_draws(preset: str) -> None:
    transform = make_augmentation(AugmentationSettings(preset=preset), SIDED, ["mri_t1"])  # type: ignore[arg-type]
    found = [drawn(transform, number) for number in range(8)]
    assert len({one["image"].numpy().tobytes() for one in found}) > 4
    for number, one in enumerate(found):
        assert torch.equal(drawn(transform, number)["image"], one["image"])
        assert (one["image"].dtype, one["image"].shape) == (torch.float32, (1, 12, 14, 16))
        assert type(one["image"]) is torch.Tensor
        assert set(one["label"].unique().tolist()) <= {0, 1, 2, 3}
        assert one["label"].dtype == torch.uint8


def test_transforms_of_monai_by_name() -> None:
    named = TransformSettings(name="RandScaleIntensityd", options={"factors": [1.0, 1.0], "prob": 1.0})
    transform = make_augmentation(AugmentationSettings(preset="none", transforms=(named,)), SIDED, ["ct"])
    assert torch.allclose(drawn(transform, 0)["image"], item()["image"] * 2)
    for wrong, message in (
        (TransformSettings(name="RandGausianNoised"), "did you mean 'RandGaussianNoised'"),
        (TransformSettings(name="RandGaussianNoised", options={"sdt": 1}), "can't be made"),
    ):
        with pytest.raises(LearningError, match=message):
            make_augmentation(AugmentationSettings(transforms=(wrong,)), SIDED, ["ct"])


def test_stripping_leaves_the_classes_and_a_margin() -> None:
    label = np.zeros((15, 15, 15), np.uint8)
    label[7, 7, 7] = 3
    image = np.full((2, 15, 15, 15), 50.0, np.float32)
    bare = stripped(image, label, [-1000, 0], 0.0, [1, 1, 1])
    assert (bare[0] == 50).sum() == 1
    assert (bare[0] == -1000).sum() == 15**3 - 1
    assert (bare[1] == 0).sum() == 15**3 - 1
    wide = stripped(image, label, [-1000, 0], 3.0, [1, 1, 3])
    kept = np.argwhere(wide[0] == 50)
    assert list(kept.min(0)) == [4, 4, 6]  # 3 mm are three voxels in the plane and one across
    assert list(kept.max(0)) == [10, 10, 8]
    assert (image == 50).all()
