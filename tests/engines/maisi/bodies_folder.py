"""A models folder with all a CT variant can use: shrunken networks, known sizes and a small bank."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np

from tests.engines.maisi.bank_maker import TOP, entry, write_bank
from tests.engines.maisi.checkpoints import Golden, shrink, write_checkpoints
from tests.engines.maisi.mask_networks import blobs, torso

LABELS = (1, 3, 5, 28, 200)


def write_models(golden: Golden, root: Path) -> Path:
    """Networks of rflow-ct that draw label maps of 32 x 32 x 32 voxels, and a bank of six healthy bodies and an ill one."""
    config = shrink(golden.network("rflow"))
    config["mask_generation_latent_shape"] = [4, 8, 8, 8]
    write_checkpoints(root, "rflow-ct", config, netseed=300, scale_factor=1.0)
    (root / "network_rflow-ct.json").write_text(json.dumps(config))
    grid = (2.0, 2.0, 2.0)
    masks = [(entry(f"set/healthy_{n}.nii.gz", blobs(LABELS, n), grid), blobs(LABELS, n)) for n in range(6)]
    ill = np.array(torso())
    masks.append((entry("set/tumours.nii.gz", ill, (1.5, 1.5, 1.5)), ill))
    index, archive = write_bank(root / "datasets", masks, zipped=True)
    shutil.rmtree(root / "datasets" / TOP)
    index.rename(root / "datasets" / "candidate_masks_flexible_size_and_spacing_4000.json")
    archive.rename(root / "datasets" / "all_masks_flexible_size_and_spacing_4000.zip")
    return root
