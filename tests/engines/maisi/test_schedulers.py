"""Timesteps and steps of the samplers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctmr_core.engines.maisi.behaviour import COMPAT, FIXED, Behaviour
from ctmr_core.engines.maisi.network_config import reference_config
from ctmr_core.engines.maisi.networks import build_scheduler
from ctmr_core.engines.maisi.schedulers import Ddpm, ExactFlow, ReferenceFlow, make_sampler
from ctmr_core.errors import EngineError

RFLOW = reference_config("rflow")
DDPM = reference_config("ddpm")
LATENT_SIZES = st.tuples(*[st.sampled_from([8, 16, 32, 64, 96, 128, 192])] * 3)


@given(steps=st.integers(1, 60), size=LATENT_SIZES)
@settings(deadline=None, max_examples=60)
def test_fixed_flow_steps_add_up_to_one(steps: int, size: tuple[int, int, int]) -> None:
    sampler = make_sampler(build_scheduler(RFLOW), steps, size, FIXED)

    assert isinstance(sampler, ExactFlow)
    assert sum(sampler.step_sizes) == pytest.approx(1, abs=1e-12)
    assert min(sampler.step_sizes) > 0
    assert sampler.timesteps[0] == pytest.approx(1000)


@pytest.mark.parametrize(
    ("size", "total"),
    [((64, 64, 32), 1.009844), ((64, 64, 64), 1.009625), ((128, 128, 32), 1.008688), ((128, 128, 192), 1.007375)],
)
def test_compat_flow_steps_add_up_to_what_they_do_in_the_reference(size: tuple[int, int, int], total: float) -> None:
    sampler = make_sampler(build_scheduler(RFLOW), 30, size, COMPAT)

    assert isinstance(sampler, ReferenceFlow)
    assert sum(sampler.step_sizes) == pytest.approx(total, abs=6e-7)


def test_compat_flow_timesteps_are_the_half_precision_table() -> None:
    sampler = make_sampler(build_scheduler(RFLOW), 30, (64, 64, 64), COMPAT)

    assert sampler.timesteps[:5] == [1000, 983, 965.5, 947.5, 928.5]
    assert sampler.timesteps[-3:] == [181.875, 125, 64.5]


@pytest.mark.parametrize("switches", [COMPAT, FIXED])
def test_flow_steps_follow_a_constant_velocity(switches: Behaviour) -> None:
    sampler = make_sampler(build_scheduler(RFLOW), 7, (16, 16, 8), switches)
    latent = torch.zeros(1, 4, 2, 2, 2)
    velocity = torch.ones_like(latent)

    for index in range(7):
        latent = sampler.step(index, velocity, latent, torch.Generator())

    expected = sum(sampler.step_sizes)  # type: ignore[attr-defined]
    torch.testing.assert_close(latent, torch.full_like(latent, expected))


def test_ddpm_timesteps_are_evenly_spaced_and_end_at_zero() -> None:
    assert make_sampler(build_scheduler(DDPM), 4, (8, 8, 8), COMPAT).timesteps == [999, 666, 333, 0]
    assert make_sampler(build_scheduler(DDPM), 1000, (8, 8, 8), COMPAT).timesteps == list(range(999, -1, -1))


SPREAD = 0.1
"""Standard deviation of the data in the next test."""


def sampled_spread(sampler: Ddpm, alphas_cumprod: torch.Tensor) -> float:
    """Standard deviation of what is sampled under a perfect noise prediction for data of standard deviation ``SPREAD``."""
    generator = torch.Generator().manual_seed(1)
    latent = torch.randn(1, 1, 20000, generator=generator)
    for index, timestep in enumerate(sampler.timesteps):
        kept = alphas_cumprod[int(timestep)]
        noise = (1 - kept).sqrt() / (kept * SPREAD**2 + 1 - kept) * latent  # expectation of the noise given the latent
        latent = sampler.step(index, noise, latent, generator)
    return float(latent.std())


def test_few_ddpm_steps_reach_the_data_when_fixed_and_stay_noise_in_compat() -> None:
    alphas_cumprod = build_scheduler(DDPM).alphas_cumprod

    def spread(steps: int, switches: Behaviour) -> float:
        sampler = make_sampler(build_scheduler(DDPM), steps, (8, 8, 8), switches)
        assert isinstance(sampler, Ddpm)
        return sampled_spread(sampler, alphas_cumprod)

    assert 0.8 * SPREAD < spread(1000, FIXED) < SPREAD  # the small variance of MAISI's schedule stays below
    assert 0.5 * SPREAD < spread(50, FIXED) < SPREAD
    assert spread(50, COMPAT) > 3 * SPREAD


def test_fixed_ddpm_with_all_steps_is_the_reference() -> None:
    latents = []
    for switches in (COMPAT, FIXED):
        sampler = make_sampler(build_scheduler(DDPM), 1000, (8, 8, 8), switches)
        generator = torch.Generator().manual_seed(2)
        latent = torch.randn(1, 4, 4, 4, 4, generator=generator)
        for index in range(3):
            latent = sampler.step(index, latent * 0.5, latent, generator)
        latents.append(latent)

    assert torch.equal(*latents)


def test_respacing_keeps_the_noise_level_of_each_timestep() -> None:
    """One exact step from timestep 999 to 499 under a perfect prediction lands on the noise level of 499."""
    scheduler = build_scheduler(DDPM)
    sampler = make_sampler(build_scheduler(DDPM), 3, (8, 8, 8), FIXED)
    generator = torch.Generator().manual_seed(3)
    clean, noise = torch.zeros(1, 1, 50000), torch.randn(1, 1, 50000, generator=generator)
    first, second = (int(t) for t in sampler.timesteps[:2])
    latent = (1 - scheduler.alphas_cumprod[first]).sqrt() * noise + clean

    moved = sampler.step(0, noise, latent, generator)

    assert float(moved.std()) == pytest.approx(float((1 - scheduler.alphas_cumprod[second]).sqrt()), rel=0.01)


@pytest.mark.parametrize("steps", [0, -1, 1001, 2.5, True])
def test_impossible_step_counts_are_refused(steps: object) -> None:
    with pytest.raises(EngineError, match="sampling steps"):
        make_sampler(build_scheduler(RFLOW), steps, (8, 8, 8), FIXED)  # type: ignore[arg-type]


def test_numpy_integers_are_step_counts() -> None:
    assert len(make_sampler(build_scheduler(RFLOW), np.int64(3), (8, 8, 8), FIXED).timesteps) == 3  # type: ignore[arg-type]
