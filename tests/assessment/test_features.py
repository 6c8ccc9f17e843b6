"""Slices are taken as the protocol says, and features are those of the filters or of the network in the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ctmr_core.assessment.features import CHANNEL_MEANS, FilterBank, NetworkFile
from ctmr_core.assessment.slices import SliceProtocol, plane_slices
from ctmr_core.errors import CheckError

CELL = (1.0, 1.0, 1.0)


def random_image(seed: int = 0, size: tuple[int, int, int] = (40, 50, 60)) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1500, 2500, size).astype(np.int16)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two convolutions with random weights, as TorchScript."""
    torch.manual_seed(0)
    layers = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, stride=2), torch.nn.ReLU(), torch.nn.Conv2d(8, 12, 3, stride=2)).eval()
    file = tmp_path_factory.mktemp("network") / "small.pt"
    torch.jit.script(layers).save(str(file))
    return file


def test_planes_are_the_middle_of_each_axis_clipped_and_stretched() -> None:
    image = random_image()
    planes = plane_slices(image, CELL, "ct", SliceProtocol())
    clipped = np.clip(image.astype(np.float32), -1000, 1000)
    expected = {
        "xy": np.moveaxis(clipped[:, :, 18:42], 2, 0),
        "yz": clipped[12:28],
        "zx": np.moveaxis(clipped[:, 15:35], 1, 0),
    }
    for plane, slices in expected.items():
        stretched = (slices - slices.min()) / (slices.max() - slices.min())
        np.testing.assert_allclose(planes[plane], stretched, atol=1e-6)


def test_a_small_volume_is_padded_with_air_and_a_large_one_cropped() -> None:
    image = np.full((20, 20, 20), 200, np.int16)
    slices = plane_slices(image, CELL, "ct", SliceProtocol(size=(40, 10, 20), middle=1.0))["xy"]
    assert slices.shape == (20, 40, 10)
    np.testing.assert_array_equal(slices[:, 10:30], 1.0)
    np.testing.assert_array_equal(slices[:, :10], 0.0)


def test_another_spacing_is_interpolated() -> None:
    ramp = np.broadcast_to(np.linspace(-900, 900, 40, dtype=np.float32)[:, None, None], (40, 20, 20))
    slices = plane_slices(ramp, (2.0, 2.0, 2.0), "ct", SliceProtocol(spacing=CELL, middle=1.0))["xy"]
    assert slices.shape[1] in (79, 80)
    assert np.all(np.diff(slices[0, 2:-2, 5]) > 0)


def test_mr_does_not_depend_on_its_unit() -> None:
    image = np.abs(random_image(1)).astype(np.float32)
    one = plane_slices(image, CELL, "mri_t1", SliceProtocol())
    other = plane_slices(image * 7 + 100, CELL, "mri_t1", SliceProtocol())
    for plane in one:
        np.testing.assert_allclose(one[plane], other[plane], atol=1e-4)


def test_so_many_slices_and_no_more() -> None:
    planes = plane_slices(random_image(), CELL, "ct", SliceProtocol(slices=5))
    assert {plane: len(slices) for plane, slices in planes.items()} == {"xy": 5, "yz": 5, "zx": 5}


def test_the_bank_is_the_same_everywhere_and_sees_texture() -> None:
    slices = plane_slices(random_image(), CELL, "ct", SliceProtocol(slices=20))["xy"]
    first, again = FilterBank(), FilterBank()
    assert first.digest == again.digest
    features = first.features(slices)
    assert features.shape == (20, 256)
    assert np.isfinite(features).all()
    np.testing.assert_array_equal(features, again.features(slices))
    np.testing.assert_allclose(features[3:5], first.features(slices[3:5]), atol=1e-4)  # a slice's features are its own
    smooth = np.repeat(np.repeat(slices[:, ::4, ::4], 4, 1), 4, 2)
    assert np.abs(first.features(smooth) - features).mean() > 10 * features.std(axis=0).mean() / 20


def test_constant_slices_have_finite_features() -> None:
    assert np.isfinite(FilterBank().features(np.zeros((2, 30, 40), np.float32))).all()


def test_a_network_sees_what_the_protocol_of_maisi_says(network: Path) -> None:
    """Against the steps written down one by one: three channels, their means in the order B, G, R, mean over space."""
    image = random_image(2)
    slices = plane_slices(image, CELL, "ct", SliceProtocol())["yz"]
    whole = torch.from_numpy(np.clip(image, -1000, 1000).astype(np.float32))[12:28][:, None].repeat(1, 3, 1, 1)
    whole = (whole - whole.min()) / (whole.max() - whole.min())
    for channel, mean in enumerate((0.406, 0.456, 0.485)):
        whole[:, channel] -= mean
    with torch.inference_mode():
        expected = torch.jit.load(str(network))(whole).mean(dim=(2, 3)).numpy()
    np.testing.assert_allclose(NetworkFile(network).features(slices), expected, atol=1e-5)
    assert CHANNEL_MEANS == (0.406, 0.456, 0.485)


def test_a_file_that_is_no_network_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "weights.pt"
    file.write_bytes(b"not a network")
    with pytest.raises(CheckError, match="TorchScript"):
        NetworkFile(file)
    with pytest.raises(CheckError, match="can not be loaded"):
        NetworkFile(tmp_path / "nothing.pt")
