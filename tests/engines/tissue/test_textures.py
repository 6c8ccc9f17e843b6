import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from ctmr_core.engines.tissue.psf import blur, fwhm_to_sigma
from ctmr_core.engines.tissue.textures import coarse_field, upsample, upsample_box


def field(size: tuple[int, int, int], spacing: tuple[float, float, float], scale: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    lattice = coarse_field(size, spacing, scale, lambda shape: rng.standard_normal(shape, dtype=np.float32))
    return upsample(lattice, size).numpy()


@pytest.mark.parametrize(
    ("spacing", "scale"), [((1.0, 1.0, 1.0), 9.0), ((1.0, 1.0, 1.0), 2.0), ((0.8, 0.8, 4.0), 6.0), ((3.0, 3.0, 3.0), 2.0)]
)
def test_a_texture_has_mean_zero_and_variance_one(spacing: tuple[float, float, float], scale: float) -> None:
    values = np.stack([field((64, 64, 48), spacing, scale, seed) for seed in range(4)])
    assert abs(values.mean()) < 0.12
    assert 0.8 < values.std() < 1.08


def test_the_correlation_length_is_in_mm_along_every_axis() -> None:
    scale, spacing = 8.0, (1.0, 2.0, 4.0)
    values = np.stack([field((96, 64, 48), spacing, scale, seed) for seed in range(4)])
    expected = np.exp(-0.5)
    for axis, mm in enumerate(spacing, start=1):
        n = int(scale / mm)
        first = np.take(values, range(values.shape[axis] - n), axis)
        second = np.take(values, range(n, values.shape[axis]), axis)
        assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1] - expected) < 0.12


@settings(max_examples=25, deadline=None)
@given(st.tuples(*[st.integers(3, 9)] * 3), st.tuples(*[st.integers(9, 30)] * 3), st.randoms(use_true_random=False))
def test_a_box_of_a_texture_equals_the_cut_of_the_whole(nodes: tuple, size: tuple, random: object) -> None:
    lattice = torch.from_numpy(np.random.default_rng(1).standard_normal(nodes, dtype=np.float32))
    starts = [random.randrange(0, n - 1) for n in size]  # type: ignore[attr-defined]
    box = tuple(slice(a, random.randrange(a + 1, n + 1)) for a, n in zip(starts, size, strict=True))  # type: ignore[attr-defined]
    assert torch.allclose(upsample_box(lattice, size, box), upsample(lattice, size)[box], atol=1e-4)


def test_blur_is_close_to_a_gaussian_and_keeps_the_sum() -> None:
    volume = np.zeros((31, 31, 31), np.float32)
    volume[15, 15, 15] = 1000.0
    sigmas = (0.6, 0.9, 1.3)
    blurred = blur(torch.from_numpy(volume), sigmas).numpy()
    assert blurred.sum() == pytest.approx(1000.0, rel=1e-5)
    assert np.abs(blurred - gaussian_filter(volume, sigmas)).max() < 0.12 * blurred.max()
    for axis, sigma in enumerate(sigmas):
        profile = blurred.sum(axis=tuple(a for a in range(3) if a != axis)) / 1000.0
        assert np.sqrt((profile * (np.arange(31) - 15) ** 2).sum()) == pytest.approx(sigma, rel=1e-3)


def test_blur_never_wraps_round_and_does_not_depend_on_slabs() -> None:
    rng = np.random.default_rng(0)
    volume = torch.from_numpy(rng.standard_normal((70, 100, 120), dtype=np.float32))
    whole = blur(volume, (0.8, 0.8, 0.8))  # several slabs
    part = blur(volume[:30], (0.8, 0.8, 0.8))
    assert torch.equal(whole[:25], part[:25])
    wall = torch.zeros(20, 20, 20)
    wall[:, :, -1] = wall[-1] = wall[:, -1] = 1000.0
    assert float(blur(wall, (0.9, 0.9, 0.9))[:15, :15, :15].abs().max()) == 0.0


def test_fwhm_of_a_gaussian() -> None:
    sigma = fwhm_to_sigma(2.0)
    assert np.exp(-0.5 * (1.0 / sigma) ** 2) == pytest.approx(0.5)
