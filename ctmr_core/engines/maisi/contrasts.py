"""Several contrasts of one noise: sets of MR sequences that start alike."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from ctmr_core.engines.maisi.models import MaisiModels
from ctmr_core.engines.maisi.sampling import sample_image
from ctmr_core.errors import EngineError


def sample_contrasts(
    models: MaisiModels, modalities: Iterable[int], *, seed: int | torch.Generator = 0, **settings: Any
) -> dict[int, np.ndarray]:
    """Modality code -> int16 image [x, y, z], all of the same noise; settings (size, spacing ...) are those of ``sample_image``.

    The images are alike but **not registered**: the networks were not trained to keep the anatomy. To stay nearer to one
    image, give it as ``start`` (``Start(image, strength)``). A generator is read once, as for one image.
    """
    codes = list(modalities)
    if not codes or len(set(codes)) != len(codes):
        raise EngineError("modalities are needed, each once", found=codes)
    images = {}
    state = seed.get_state() if isinstance(seed, torch.Generator) else None
    for code in codes:
        if isinstance(seed, torch.Generator) and state is not None:
            seed.set_state(state)
        images[code] = sample_image(models, modality=code, seed=seed, **settings)
    return images
