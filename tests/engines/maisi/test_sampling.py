"""Properties of the samplers, on shrunken networks."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ctmr_core.engines.maisi import MaisiModels, sample_image, sample_image_from_mask
from ctmr_core.errors import EngineError
from tests.engines.maisi.checkpoints import RELEASED_FILES, Golden, shrink, write_checkpoints

SMALL: dict[str, Any] = {"spacing": (1.5, 1.5, 2.0), "steps": 2, "seed": 3}
SIZE = (64, 32, 32)


@pytest.fixture(scope="module")
def rflow(golden: Golden, tmp_path_factory: pytest.TempPathFactory) -> MaisiModels:
    config = shrink(golden.network("rflow"))
    networks = [name for name in RELEASED_FILES["rflow-ct"] if not name.startswith("mask")]
    folder = write_checkpoints(tmp_path_factory.mktemp("rflow"), "rflow-ct", config, netseed=1, networks=networks)
    return MaisiModels.load("rflow-ct", root=folder, network_config=config)


@pytest.fixture(scope="module")
def ddpm(golden: Golden, tmp_path_factory: pytest.TempPathFactory) -> MaisiModels:
    config = shrink(golden.network("ddpm"))
    networks = [name for name in RELEASED_FILES["ddpm-ct"] if not name.startswith("mask")]
    folder = write_checkpoints(tmp_path_factory.mktemp("ddpm"), "ddpm-ct", config, netseed=1, networks=networks)
    return MaisiModels.load("ddpm-ct", root=folder / "models", network_config=config)


@pytest.fixture(scope="module")
def mask() -> np.ndarray:
    """A body with a liver, a hepatic tumour and a lung lobe."""
    labels = np.zeros(SIZE, np.uint8)
    labels[8:56, 4:28, 2:30] = 200
    labels[16:40, 8:24, 4:16] = 1
    labels[20:30, 12:20, 6:12] = 26
    labels[16:40, 8:24, 18:28] = 28
    return labels


@pytest.mark.parametrize("compat", [True, False])
def test_the_same_seed_gives_the_same_image_and_another_one_does_not(rflow: MaisiModels, compat: bool) -> None:
    images = [sample_image(rflow, size=SIZE, compat=compat, **{**SMALL, "seed": seed}) for seed in (3, 3, 4)]

    np.testing.assert_array_equal(images[0], images[1])
    assert not np.array_equal(images[0], images[2])


@pytest.mark.parametrize("compat", [True, False])
def test_ddpm_noise_of_steps_is_seeded_too(ddpm: MaisiModels, mask: np.ndarray, compat: bool) -> None:
    images = [sample_image_from_mask(ddpm, mask, compat=compat, **SMALL) for _ in range(2)]

    np.testing.assert_array_equal(images[0], images[1])
    assert np.isfinite(images[0]).all()


def test_sampling_leaves_global_random_states_alone(ddpm: MaisiModels) -> None:
    random.seed(1)
    torch.manual_seed(1)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002

    sample_image(ddpm, size=SIZE, **SMALL)

    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[1:]  # noqa: NPY002


def test_compat_noise_is_that_of_a_globally_seeded_torch(rflow: MaisiModels) -> None:
    from ctmr_core.engines.maisi.behaviour import COMPAT
    from ctmr_core.engines.maisi.noise import Noise

    torch.manual_seed(7)
    expected = torch.randn(1, 4, 16, 16, 8), torch.randn(5)

    noise = Noise(7, torch.device("cpu"), COMPAT)

    assert torch.equal(noise.initial((1, 4, 16, 16, 8), on_device=True), expected[0])
    assert torch.equal(torch.randn(5, generator=noise.of_steps), expected[1])


def test_generators_are_taken_as_seeds(rflow: MaisiModels) -> None:
    request = {**SMALL, "size": SIZE, "compat": False}
    from_torch = [sample_image(rflow, **{**request, "seed": torch.Generator().manual_seed(5)}) for _ in range(2)]
    from_numpy = [sample_image(rflow, **{**request, "seed": np.random.default_rng(5)}) for _ in range(2)]
    huge = sample_image(rflow, **{**request, "seed": 2**127 + 1})

    np.testing.assert_array_equal(*from_torch)
    np.testing.assert_array_equal(*from_numpy)
    assert not np.array_equal(from_torch[0], from_numpy[0])
    assert huge.shape == SIZE


def test_spacing_modality_and_mask_reach_the_networks(rflow: MaisiModels, mask: np.ndarray) -> None:
    base = sample_image_from_mask(rflow, mask, **SMALL)
    other_mask = np.where(mask == 28, np.uint8(1), mask)

    assert not np.array_equal(base, sample_image_from_mask(rflow, mask, **{**SMALL, "spacing": (1.0, 1.0, 2.0)}))
    assert not np.array_equal(base, sample_image_from_mask(rflow, mask, modality=2, **SMALL))
    assert not np.array_equal(base, sample_image_from_mask(rflow, other_mask, **SMALL))


def test_regions_reach_the_network_and_come_from_the_mask(ddpm: MaisiModels, mask: np.ndarray) -> None:
    default = sample_image(ddpm, size=SIZE, **SMALL)
    derived = sample_image_from_mask(ddpm, mask, **SMALL)

    np.testing.assert_array_equal(
        default, sample_image(ddpm, size=SIZE, top_region="thorax", bottom_region=[0, 0, 1, 0], **SMALL)
    )
    assert not np.array_equal(default, sample_image(ddpm, size=SIZE, top_region="head", **SMALL))
    np.testing.assert_array_equal(
        derived, sample_image_from_mask(ddpm, mask, top_region="chest", bottom_region="abdomen", **SMALL)
    )


def test_a_mask_without_region_labels(ddpm: MaisiModels, mask: np.ndarray) -> None:
    vertebra = np.where(mask > 0, np.uint8(40), np.uint8(0))

    with pytest.raises(EngineError, match="no body region"):
        sample_image_from_mask(ddpm, vertebra, **SMALL)
    helped = sample_image_from_mask(ddpm, vertebra, compat=False, **SMALL)
    named = sample_image_from_mask(ddpm, vertebra, compat=False, top_region="chest", bottom_region="chest", **SMALL)
    np.testing.assert_array_equal(helped, named)


@pytest.mark.parametrize("guided", [0.5, 3.0])
def test_fixed_guidance_one_after_another_is_that_of_a_batch(
    rflow: MaisiModels, mask: np.ndarray, guided: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from ctmr_core.engines.maisi import sampling
    from ctmr_core.engines.maisi.behaviour import FIXED

    request = {**SMALL, "guidance": guided, "compat": False}
    in_turn = sample_image_from_mask(rflow, mask, **request)
    monkeypatch.setattr(sampling, "behaviour", lambda compat: replace(FIXED, paired_guidance=True))
    as_batch = sample_image_from_mask(rflow, mask, **request)

    np.testing.assert_allclose(in_turn, as_batch, atol=0.05)
    assert np.abs(in_turn - sample_image_from_mask(rflow, mask, **{**request, "guidance": 0})).max() > 1


def test_fixed_guidance_that_changes_nothing_is_not_computed(ddpm: MaisiModels, mask: np.ndarray) -> None:
    healthy = np.where(mask == 26, np.uint8(1), mask)
    request = {**SMALL, "compat": False}

    np.testing.assert_array_equal(
        sample_image_from_mask(ddpm, healthy, guidance=4.0, **request), sample_image_from_mask(ddpm, healthy, **request)
    )
    assert not np.array_equal(
        sample_image_from_mask(ddpm, mask, guidance=4.0, **request), sample_image_from_mask(ddpm, mask, **request)
    )


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"size": (64, 64, 40)}, "multiples of 32"),
        ({"size": (64, 64)}, "multiples of 32"),
        ({"size": (0, 64, 64)}, "multiples of 32"),
        ({"spacing": (1.0, 0.0, 1.0)}, "spacing"),
        ({"spacing": (1.0, float("nan"), 1.0)}, "spacing"),
        ({"modality": 128}, "modality"),
        ({"modality": True}, "modality"),
        ({"steps": 0}, "steps"),
        ({"steps": 1001}, "steps"),
        ({"guidance": -1}, "guidance"),
        ({"seed": -1}, "seed"),
        ({"seed": "0"}, "seed"),
        ({"decode_overlap": 1.0}, "overlap"),
        ({"decode_window": (0, 8, 8)}, "window"),
    ],
)
def test_impossible_requests_are_refused(rflow: MaisiModels, wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(EngineError, match=named):
        sample_image(rflow, **{"size": SIZE, **SMALL, **wrong})


@pytest.mark.parametrize(
    "labels",
    [
        np.zeros((30, 32, 32), np.uint8),
        np.zeros(SIZE, np.float32),
        np.zeros(SIZE[:2], np.uint8),
        np.full(SIZE, 256),
        np.full(SIZE, -1),
    ],
)
def test_arrays_that_are_no_label_maps_are_refused(rflow: MaisiModels, labels: np.ndarray) -> None:
    with pytest.raises(EngineError):
        sample_image_from_mask(rflow, labels, **SMALL)


def test_integer_types_of_a_mask_do_not_matter(rflow: MaisiModels, mask: np.ndarray) -> None:
    expected = sample_image_from_mask(rflow, mask, **SMALL)

    np.testing.assert_array_equal(sample_image_from_mask(rflow, mask.astype(np.int64), **SMALL), expected)
    np.testing.assert_array_equal(sample_image_from_mask(rflow, np.asfortranarray(mask), **SMALL), expected)


def test_unknown_regions_are_refused(ddpm: MaisiModels) -> None:
    with pytest.raises(EngineError, match="unknown body region"):
        sample_image(ddpm, size=SIZE, top_region="knee", **SMALL)
    with pytest.raises(EngineError, match="one-hot"):
        sample_image(ddpm, size=SIZE, top_region=[1, 1, 0, 0], **SMALL)


def test_memory_efficient_attention_changes_nothing_but_rounding(rflow: MaisiModels, mask: np.ndarray) -> None:
    asking = {
        name: {**entry, "use_flash_attention": True} if name in ("diffusion_unet_def", "controlnet_def") else entry
        for name, entry in rflow.config.items()
    }
    efficient = MaisiModels.load("rflow-ct", root=rflow.root, network_config=asking)

    image = sample_image_from_mask(efficient, mask, **SMALL)

    flags = {getattr(module, "use_flash_attention", True) for module in efficient.diffusion_unet.modules()}
    assert flags == {True}
    np.testing.assert_allclose(image, sample_image_from_mask(rflow, mask, **SMALL), atol=0.05)


def test_a_mask_embedded_in_slabs_is_that_embedded_at_once(
    rflow: MaisiModels, mask: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ctmr_core.engines.maisi import conditioning

    long_mask = np.tile(mask, (3, 1, 1))
    with torch.inference_mode():
        monkeypatch.setattr(conditioning, "EMBEDDED_AT_ONCE", 1000)
        whole = conditioning.embed_mask(rflow, long_mask)
        monkeypatch.setattr(conditioning, "EMBEDDED_AT_ONCE", 32)
        slabs = conditioning.embed_mask(rflow, long_mask)

    assert whole.shape[2:] == (48, 8, 8)
    torch.testing.assert_close(slabs, whole, rtol=1e-5, atol=1e-5)


def test_other_dtypes_and_devices_are_refused_where_they_can_not_work(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="CUDA"):
        MaisiModels.load("rflow-ct", root=tmp_path, dtype="float16")
    with pytest.raises(EngineError, match="dtype"):
        MaisiModels.load("rflow-ct", root=tmp_path, dtype="int8")
    with pytest.raises(EngineError, match="variant"):
        MaisiModels.load("rflow-us", root=tmp_path)
