"""The dipole field against the closed form of a sphere, and what it does to a gradient echo."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ctmr_core.anatomy.tissues import tissue_id, tissues
from ctmr_core.engines.tissue.mr_signals import PROTON_MHZ_PER_TESLA
from ctmr_core.engines.tissue.mr_susceptibility import gradient_echo_field

SIZE, RADIUS = 72, 10.0


@pytest.fixture(scope="module")
def sphere():
    grid = np.stack(np.meshgrid(*(np.arange(SIZE) - SIZE / 2,) * 3, indexing="ij"))
    tissue_map = np.full((SIZE,) * 3, tissue_id("muscle"), np.uint8)
    tissue_map[(grid**2).sum(0) < RADIUS**2] = tissue_id("cerebral_vein")
    chi = np.zeros(len(tissues()))  # air like water: the sphere is the only source
    chi[tissue_id("cerebral_vein")] = 0.4
    field = gradient_echo_field(torch.from_numpy(tissue_map), chi, (1.0, 1.0, 1.0), 3.0, 20.0, 1)
    return grid, field, 0.4 * PROTON_MHZ_PER_TESLA * 3.0 * 20e-3


def test_the_field_of_a_sphere(sphere):
    grid, field, cycles = sphere
    shift = field.shift.numpy()
    centre = SIZE // 2
    assert shift[centre, centre, centre] == pytest.approx(0.0, abs=0.02 * cycles)
    volume = np.count_nonzero((grid**2).sum(0) < RADIUS**2)
    radius_cubed = volume * 3 / (4 * np.pi)
    for distance in (14, 18, 22):
        along, across = shift[centre, centre, centre + distance], shift[centre + distance, centre, centre]
        expected = cycles / 3 * radius_cubed / distance**3
        assert along == pytest.approx(2 * expected, rel=0.1, abs=0.01 * cycles)
        assert across == pytest.approx(-expected, rel=0.15, abs=0.01 * cycles)


def test_the_local_field_has_no_slow_part(sphere):
    _, field, _ = sphere
    centre = SIZE // 2
    far = (centre, centre, centre + 25)
    assert abs(field.local.numpy()[far]) < 0.1 * abs(field.shift.numpy()[far])


def test_signal_is_lost_where_the_field_changes_and_kept_where_it_does_not(sphere):
    _, field, _ = sphere
    image = torch.ones((SIZE,) * 3)
    for start in range(0, SIZE, 7):
        field.apply(image[start : start + 7], start, min(start + 7, SIZE))
    values = image.numpy()
    centre = SIZE // 2
    assert values.min() >= 0
    assert values.max() <= 1
    assert values[centre, centre, centre + 11] < 0.5
    assert values[2, 2, 2] > 0.95


def test_slabs_give_the_same_weights_as_the_whole(sphere):
    _, field, _ = sphere
    whole, slabs = torch.ones((SIZE,) * 3), torch.ones((SIZE,) * 3)
    field.apply(whole, 0, SIZE)
    for start in range(0, SIZE, 5):
        field.apply(slabs[start : start + 5], start, min(start + 5, SIZE))
    # The border planes are one-sided differences; inside, a slab sees its neighbours.
    assert torch.equal(whole, slabs)
