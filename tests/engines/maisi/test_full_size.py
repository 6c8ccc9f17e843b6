"""The reference networks at full size: saved in the released formats, loaded and sampled on a CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.engines.maisi.checkpoints import AUTOENCODER, DIFFUSION_UNET, Golden, for_cpu, write_checkpoints

SAMPLING = """
import json, resource, sys, time
import numpy as np
from ctmr_core.engines.maisi import MaisiModels, sample_image

started = time.monotonic()
models = MaisiModels.load("rflow-ct", root=sys.argv[1])
parameters = sum(p.numel() for p in models.diffusion_unet.parameters()), sum(p.numel() for p in models.autoencoder.parameters())
loaded = time.monotonic()
image = sample_image(models, size=(128, 128, 128), spacing=(1.5, 1.5, 2.0), steps=2, seed=1)
np.save(sys.argv[2], image)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
times = {"loading_s": loaded - started, "sampling_s": time.monotonic() - loaded}
print(json.dumps({"peak_bytes": peak, "parameters": parameters, **times}))
"""


@pytest.mark.slow
def test_full_size_networks_load_and_sample_128_cubed(
    golden: Golden, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    config = for_cpu(golden.network("rflow"))
    write_checkpoints(tmp_path, "rflow-ct", config, netseed=1, networks=[AUTOENCODER, DIFFUSION_UNET])

    run = subprocess.run(
        [sys.executable, "-c", SAMPLING, str(tmp_path), str(tmp_path / "image.npy")], capture_output=True, text=True, check=False
    )

    assert run.returncode == 0, run.stderr
    figures = json.loads(run.stdout.splitlines()[-1])
    for name, value in figures.items():
        record_property(name, value)
    assert figures["parameters"] == [180_500_868, 20_944_897]
    assert figures["peak_bytes"] < 12e9
    image = np.load(tmp_path / "image.npy")
    assert image.shape == (128, 128, 128)
    assert image.dtype == np.int16
    assert image.std() > 1
