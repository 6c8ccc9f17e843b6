"""A label map drawn by the mask networks, to a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ctmr_core.anatomy.grid import Grid
from ctmr_core.engines.maisi.anatomy_sizes import condition_vector, read_known_sizes
from ctmr_core.engines.maisi.decoder import REFERENCE_WINDOW, Decoder
from ctmr_core.engines.maisi.drawn_bodies import KNOWN_SIZES
from ctmr_core.engines.maisi.hub import file_states, licences_in, missing_weights, models_root
from ctmr_core.engines.maisi.identity import own_network_config
from ctmr_core.engines.maisi.mask_sampling import MASK_SPACING, MASK_STEPS, sample_mask
from ctmr_core.engines.maisi.memory import default_precision
from ctmr_core.engines.maisi.models import MaisiModels
from ctmr_core.engines.maisi.single import stem_of, write_volume
from ctmr_core.engines.maisi.volume import device_named, one_thread


def mask_to_files(
    variant: str,
    sizes: Mapping[str, float],
    out: Path,
    *,
    seed: int = 0,
    steps: int = MASK_STEPS,
    attempts: int = 3,
    compat: bool = False,
    device: str = "cpu",
    models: Path | None = None,
    network_config: Path | None = None,
) -> tuple[list[Path], dict[str, Any]]:
    """Write a label map ``out`` (uint8, ids of the maisi vocabulary, voxels of 1.5 mm) and ``<out>.json``.

    sizes: structure -> 0-1 or -1 (absent); those left out are completed from the released list of sizes. attempts: label maps
    drawn at most until one shows the tumour asked for. Raises ``EngineError`` for what can't be drawn.
    """
    stem_of(out)
    root = models_root(models)
    states = file_states(variant, root, ("masks",))
    missing = missing_weights(variant, root, [state for state in states if state.file.path.endswith(".pt")])
    if missing is not None:
        raise missing
    known = root / "datasets" / KNOWN_SIZES
    table = read_known_sizes(known) if known.is_file() else np.empty((0, 10))
    vector = condition_vector(sizes, table, np.random.default_rng(seed), compat=compat)
    place = device_named(device)
    config = network_config or own_network_config(variant, root)
    networks = MaisiModels.load(variant, root=root, network_config=config, device=place, dtype=default_precision(place))
    latent = networks.config["mask_generation_latent_shape"][1:]
    decoder = Decoder(networks, [4 * int(n) for n in latent], REFERENCE_WINDOW if compat else None, masks=True)
    try:
        with one_thread(place):
            voxels = sample_mask(networks, vector, seed=seed, steps=steps, attempts=attempts, compat=compat, decoder=decoder)
    finally:
        networks.close()
    grid = Grid.centred((voxels.shape[0], voxels.shape[1], voxels.shape[2]), MASK_SPACING)
    record = {
        "variant": variant,
        "mode": "compat" if compat else "fixed",
        "seed": seed,
        "steps": steps,
        "sizes_asked_for": dict(sizes),
        "size_vector": vector.tolist(),
        **decoder.record(),
        "labels": np.flatnonzero(np.bincount(voxels.ravel(), minlength=256)).tolist(),
        "licences": list(licences_in(variant, root, ("masks",))),
    }
    return write_volume(out, voxels, grid.affine, record), record
