"""Decoding in windows, and intensities."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import pytest
import torch

from ctmr_core.engines.maisi.behaviour import COMPAT, FIXED
from ctmr_core.engines.maisi.decode import conv_splits, decode
from ctmr_core.engines.maisi.intensities import image_only_values, paired_values
from tests.engines.maisi.checkpoints import AUTOENCODER, Golden, build, filled_state, shrink


@pytest.fixture(scope="module")
def autoencoder(golden: Golden) -> torch.nn.Module:
    network = build(shrink(golden.network("rflow")), AUTOENCODER).eval()
    network.load_state_dict(filled_state(network, 1))
    return network


@pytest.fixture(scope="module")
def latent() -> torch.Tensor:
    return torch.randn(1, 4, 16, 12, 10, generator=torch.Generator().manual_seed(1))


@torch.inference_mode()
def test_a_window_as_large_as_the_latent_decodes_at_once(autoencoder: torch.nn.Module, latent: torch.Tensor) -> None:
    whole = decode(autoencoder, latent, (80, 80, 80), 0.4, nullcontext())

    assert whole.shape == (1, 1, 64, 48, 40)
    torch.testing.assert_close(decode(autoencoder, latent, (16, 12, 10), 0.4, nullcontext()), whole)
    torch.testing.assert_close(whole, autoencoder.decode_stage_2_outputs(latent))


class Enlarger(torch.nn.Module):
    """A decoder that looks at single voxels: windows cannot change what it makes."""

    def decode_stage_2_outputs(self, latent: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.interpolate(latent[:, :1], scale_factor=4.0)


@torch.inference_mode()
@pytest.mark.parametrize(("window", "overlap"), [((4, 5, 6), 0.5), ((16, 4, 4), 0.0), ((7, 80, 3), 0.6667)])
def test_windows_cover_everything_with_weights_that_add_up(
    latent: torch.Tensor, window: tuple[int, int, int], overlap: float
) -> None:
    expected = Enlarger().decode_stage_2_outputs(latent)

    torch.testing.assert_close(decode(Enlarger(), latent, window, overlap, nullcontext()), expected, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
@pytest.mark.parametrize("splits", [1, 2, 3, 4, 5, 8])
def test_splits_never_lose_rows_nor_change_values(autoencoder: torch.nn.Module, latent: torch.Tensor, splits: int) -> None:
    whole = decode(autoencoder, latent, (80, 80, 80), 0.4, nullcontext())

    torch.testing.assert_close(
        decode(autoencoder, latent, (80, 80, 80), 0.4, nullcontext(), splits=splits), whole, rtol=1e-4, atol=1e-4
    )


def test_a_cpu_does_not_split_but_in_compat() -> None:
    assert conv_splits({"num_splits": 4}, torch.device("cpu"), compat=False) == 1
    assert conv_splits({"num_splits": 4}, torch.device("cuda"), compat=False) == 4
    assert conv_splits({"num_splits": 4}, torch.device("cpu"), compat=True) == 4


def volume(*values: float) -> torch.Tensor:
    return torch.tensor(values).reshape(1, 1, 1, 1, -1)


def test_image_only_ct_is_cut_to_integers_in_compat_and_rounded_when_fixed() -> None:
    decoded = (-0.2, 0.4998, 0.50039, 0.7, 1.3)

    assert image_only_values(volume(*decoded), 1, COMPAT).ravel().tolist() == [-1000, 0, 0, 400, 1000]
    assert image_only_values(volume(*decoded), 1, FIXED).ravel().tolist() == [-1000, 0, 1, 400, 1000]


def test_image_only_mr_starts_at_zero_and_is_clipped_when_fixed() -> None:
    assert image_only_values(volume(-0.1, 0.0016, 1.5), 8, COMPAT).ravel().tolist() == [0, 1, 1500]
    assert image_only_values(volume(-0.1, 0.0016, 40.0), 8, FIXED).ravel().tolist() == [0, 2, 32767]


def test_paired_images_have_the_floor_outside_of_the_mask() -> None:
    mask = np.array([[[0, 1, 1, 1]]], np.uint8)

    ct, mr = paired_values(volume(0.5, 0.5, -1.0, 2.0), mask, 1), paired_values(volume(0.5, 0.5, -1.0, 2.0), mask, 9)

    assert ct.dtype == mr.dtype == np.float32
    assert ct.ravel().tolist() == [-1000, 0, -1000, 1000]
    assert mr.ravel().tolist() == [0, 500, 0, 2000]
