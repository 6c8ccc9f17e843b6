"""Seeded noise. No global random state is read or changed."""

from __future__ import annotations

import numpy as np
import torch

from ctmr_core.engines.maisi.behaviour import Behaviour
from ctmr_core.errors import EngineError

Seed = int | torch.Generator | np.random.Generator
LARGEST_REFERENCE_SEED = 2**32
"""MONAI's ``set_determinism`` takes seeds modulo this."""


class Noise:
    """The noise of one case.

    seed: an integer >= 0 of any size, or a generator to draw from. A generator seeded with an integer below 2**32 gives the
    same stream as PyTorch's global one does after ``monai.utils.set_determinism(seed)``.
    """

    def __init__(self, seed: Seed, device: torch.device, switches: Behaviour) -> None:
        number = _number(seed, switches)
        self.host = seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(number)
        on_device = switches.device_noise and device.type != "cpu"
        self.of_steps = torch.Generator(device).manual_seed(number) if on_device else self.host

    def initial(self, shape: tuple[int, ...], *, on_device: bool) -> torch.Tensor:
        """Standard normal noise, float32, from the host's or the steps' generator (and on its device)."""
        generator = self.of_steps if on_device else self.host
        return torch.randn(shape, generator=generator, device=generator.device)


def _number(seed: Seed, switches: Behaviour) -> int:
    if isinstance(seed, torch.Generator):
        return int(seed.initial_seed() % LARGEST_REFERENCE_SEED)
    if isinstance(seed, np.random.Generator):
        return int(seed.integers(2**63))
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise EngineError("impossible seed", found=seed, allowed="an integer >= 0, or a generator")
    if switches.device_noise:
        return int(seed) % LARGEST_REFERENCE_SEED
    return int(np.random.SeedSequence(int(seed)).generate_state(1, np.uint64)[0] >> np.uint64(1))
