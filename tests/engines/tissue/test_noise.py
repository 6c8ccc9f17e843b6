import numpy as np
import pytest
import torch

from ctmr_core.engines.tissue.ct import KERNELS
from ctmr_core.engines.tissue.noise import correlated_noise, noise_profile, water_equivalent_diameter
from ctmr_core.engines.tissue.textures import upsample


def noise(
    size: tuple[int, int, int], spacing: tuple[float, float, float], f0: float, lag_z: float = 0.15, threads: int = 1
) -> np.ndarray:
    rng = np.random.default_rng(0)

    def draw(shape: tuple[int, ...]) -> np.ndarray:
        return rng.standard_normal(shape, dtype=np.float32)

    return correlated_noise(size, spacing, f0, lag_z, draw, threads).numpy()


def lag_one(values: np.ndarray, axis: int) -> float:
    first, second = np.take(values, range(values.shape[axis] - 1), axis), np.take(values, range(1, values.shape[axis]), axis)
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])


@pytest.mark.parametrize("kernel", list(KERNELS))
@pytest.mark.parametrize("mm", [0.7, 1.5, 3.0])
def test_neighbouring_voxels_are_correlated_as_in_real_scans(mm: float, kernel: str) -> None:
    values = noise((128, 121, 16), (mm, mm, mm), KERNELS[kernel][1])
    assert values.std() == pytest.approx(1.0, abs=0.03)
    for axis in range(3):
        assert 0.1 < lag_one(values, axis) < 0.55


def test_a_soft_kernel_gives_coarser_noise_than_a_sharp_one() -> None:
    soft, sharp = (lag_one(noise((128, 128, 8), (0.8, 0.8, 1.0), KERNELS[kernel][1]), 0) for kernel in ("soft", "sharp"))
    assert soft > sharp + 0.1


def test_overlapping_slices_share_their_noise() -> None:
    values = noise((64, 64, 40), (1.0, 1.0, 1.0), 0.45, lag_z=0.45)
    assert lag_one(values, 2) == pytest.approx(0.45, abs=0.03)


def test_opposite_borders_do_not_know_each_other() -> None:
    values = noise((96, 100, 40), (1.0, 1.0, 1.0), 0.35)
    for axis in range(3):
        first, last = np.take(values, 0, axis), np.take(values, -1, axis)
        assert abs(np.corrcoef(first.ravel(), last.ravel())[0, 1]) < 0.08


def test_the_spectrum_rises_from_a_floor_and_falls_again() -> None:
    mm = 0.6
    values = noise((256, 256, 12), (mm, mm, 1.0), 0.35)
    power = (np.abs(np.fft.fft2(values, axes=(0, 1))) ** 2).mean(axis=2)
    f = np.hypot(np.fft.fftfreq(256, mm)[:, None], np.fft.fftfreq(256, mm)[None, :])
    low, middle, high = (power[(f > a) & (f < b)].mean() for a, b in ((0.005, 0.03), (0.2, 0.3), (0.7, 0.8)))
    assert middle > 1.8 * low
    assert middle > 4 * high
    assert low > 0.02 * middle


def test_threads_do_not_change_the_noise() -> None:
    assert np.array_equal(noise((75, 66, 9), (1.0, 1.0, 1.0), 0.4), noise((75, 66, 9), (1.0, 1.0, 1.0), 0.4, threads=2))


def test_noise_is_strongest_in_the_middle_of_a_large_body() -> None:
    x, y = np.meshgrid((np.arange(100) - 49.5) * 4, (np.arange(90) - 44.5) * 4, indexing="ij")
    disc = np.where(np.hypot(x, y) < 160, 0.0, -1000.0).astype(np.float32)
    hu = torch.from_numpy(np.repeat(disc[:, :, None], 10, axis=2))
    profile = upsample(noise_profile(hu, (4.0, 4.0, 4.0)), (100, 90, 10)).numpy()
    assert water_equivalent_diameter(hu, (4.0, 4.0, 4.0)) == pytest.approx(320, rel=0.03)
    centre, edge, air = profile[50, 45, 5], profile[50 + 37, 45, 5], profile[3, 3, 5]
    assert centre > 1.15 * edge
    assert edge > air
    assert profile[hu.numpy() > -500].mean() == pytest.approx(1.0, abs=0.06)
