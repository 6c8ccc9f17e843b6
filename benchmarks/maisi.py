"""Processor seconds and peak memory of MAISI volumes, phase by phase: several in one process, and each in its own.

    python benchmarks/maisi.py --volumes 3                                # shrunken networks, nothing to download
    python benchmarks/maisi.py --root ~/.cache/ctmr/models --size 256 256 128 --spacing 1.5 1.5 2 --device cuda

Phases: condition (spacing, modality, embedding of the label map), denoise (all steps), decode (latent to image), post
(intensities, background). The first volume of a process also loads the networks, which is shown as load. NVIDIA's scripts start a
process per volume: that is the second row. Peak memory is what CUDA had allocated, or on a CPU the resident set, reset before
each phase. The images of shrunken networks are noise; their time says nothing about the time of the released ones, but the
share that loading, conditioning and post-processing take can be compared between versions of this code. Seconds are the
processor's (on CUDA those of the clock), so that other work on the machine counts little.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
SHRUNKEN_STEPS = 10
PHASES = ("load", "condition", "denoise", "decode", "post")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variant", default="rflow-ct")
    parser.add_argument("--root", help="models folder with the released weights; default: shrunken networks")
    parser.add_argument("--size", type=int, nargs=3, default=(64, 64, 64), help="voxels")
    parser.add_argument("--spacing", type=float, nargs=3, default=(6.0, 6.0, 6.0), help="mm")
    parser.add_argument("--steps", type=int, help="default: 10 of shrunken networks, else as the variant")
    parser.add_argument("--volumes", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--no-mask", action="store_true", help="without a label map")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(measure(options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        if options.root is None:
            options.root = str(shrunken(Path(folder), options.variant))
            options.steps = options.steps or SHRUNKEN_STEPS
        together = run(options, options.volumes)
        alone = [run(options, 1) for _ in range(options.volumes)]
    rows = {
        "one process": {"seconds": together["seconds"], "volumes": together["volumes"]},
        "a process per volume": {
            "seconds": sum(result["seconds"] for result in alone),
            "volumes": [volume for result in alone for volume in result["volumes"]],
        },
    }
    print(json.dumps(rows, indent=2) if options.json else table(rows))


def shrunken(folder: Path, variant: str) -> Path:
    """A models folder with networks of a few channels."""
    sys.path.insert(0, str(REPOSITORY))
    from ctmr_core.engines.maisi.network_config import reference_config
    from ctmr_core.engines.maisi.variants import VARIANTS
    from tests.engines.maisi.checkpoints import shrink, write_checkpoints

    config = shrink(reference_config(VARIANTS[variant].config))
    networks = [name for name in VARIANTS[variant].files if not name.startswith("mask_")]
    write_checkpoints(folder, variant, config, netseed=200, networks=networks)
    (folder / f"network_{variant}.json").write_text(json.dumps(config))
    return folder


def run(options: argparse.Namespace, volumes: int) -> dict[str, Any]:
    """Measure in a new process; ``seconds`` (of its processor) include starting it and importing everything."""
    command = [sys.executable, __file__, "--worker", "--variant", options.variant, "--root", options.root]
    command += ["--size", *map(str, options.size), "--spacing", *map(str, options.spacing), "--volumes", str(volumes)]
    command += ["--device", options.device]
    command += ["--steps", str(options.steps)] if options.steps else []
    command += ["--no-mask"] if options.no_mask else []
    start = _processor_seconds()
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)
    return {"seconds": _processor_seconds() - start, "volumes": json.loads(result.stdout.splitlines()[-1])}


def _processor_seconds() -> float:
    """Of all processes that were started and have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    import numpy as np
    import torch

    from ctmr_core.engines.maisi import decoder, sampling, volume
    from ctmr_core.engines.maisi.identity import own_network_config
    from ctmr_core.engines.maisi.memory import default_precision
    from ctmr_core.engines.maisi.models import MaisiModels
    from ctmr_core.engines.maisi.parameters import MaisiParameters

    device = torch.device(options.device)
    root = Path(options.root)
    clock = Clock(device)
    models = MaisiModels.load(
        options.variant,
        root=root,
        network_config=own_network_config(options.variant, root),
        device=device,
        dtype=default_precision(device),
    )
    sampling.image_conditioning = clock.timed("condition", sampling.image_conditioning)
    sampling.embed_mask = clock.timed("condition", sampling.embed_mask)
    sampling.denoise = clock.timed("denoise", sampling.denoise)
    sampling.paired_values = clock.timed("post", sampling.paired_values)
    sampling.image_only_values = clock.timed("post", sampling.image_only_values)
    decoder.decode = clock.timed("decode", decoder.decode)
    labels = None if options.no_mask else np.full(options.size, 200, np.uint8)
    if labels is not None:
        labels[: options.size[0] // 2] = 1
    sequence = "ct" if models.variant.is_ct else "mri_t1"
    request = volume.VolumeRequest(tuple(options.size), tuple(options.spacing), sequence, labels)
    parameters = MaisiParameters(limits=False, steps=options.steps)
    rows = []
    for seed in range(options.volumes):
        clock.start()
        start = clock.now()
        clock.timed("load", load)(models, labels is not None)
        with volume.one_thread(device):
            _, record = volume.sample_volume(models, request, parameters, seed)
        rows.append({"total": clock.now() - start, "decode_with": record["decode"], **clock.report()})
    return rows


def load(models: Any, labelled: bool) -> None:
    """Touch every network, which reads its weights the first time."""
    _ = models.autoencoder, models.diffusion_unet
    if labelled:
        _ = models.controlnet


class Clock:
    """Seconds and peak memory by phase."""

    def __init__(self, device: Any) -> None:
        self.device = device
        self.start()

    def start(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.peak: dict[str, int] = defaultdict(int)

    def now(self) -> float:
        """Seconds of the clock on CUDA, of this process's processor elsewhere."""
        return time.perf_counter() if self.device.type == "cuda" else time.process_time()

    def timed(self, phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            self._reset()
            start = self.now()
            try:
                return function(*arguments, **options)
            finally:
                peak = self._peak()  # waits for the device
                self.seconds[phase] += self.now() - start
                self.peak[phase] = max(self.peak[phase], peak)

        return wrapped

    def report(self) -> dict[str, Any]:
        return {"seconds": dict(self.seconds), "peak_mb": {phase: peak / 1e6 for phase, peak in self.peak.items()}}

    def _reset(self) -> None:
        import torch

        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            Path("/proc/self/clear_refs").write_text("5")  # sets the high-water mark of the resident set back

    def _peak(self) -> int:
        import torch

        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            return int(torch.cuda.max_memory_allocated(self.device))
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def table(rows: dict[str, Any]) -> str:
    lines = [f"{'':22}{'volume':>7}{'total s':>9}" + "".join(f"{phase:>20}" for phase in PHASES)]
    for name, row in rows.items():
        for index, entry in enumerate(row["volumes"]):
            cells = [f"{entry['seconds'].get(phase, 0):10.2f} s{entry['peak_mb'].get(phase, 0):5.0f} MB" for phase in PHASES]
            lines.append(
                f"{name if index == 0 else '':22}{index + 1:>7}{entry['total']:>9.2f}" + "".join(f"{c:>20}" for c in cells)
            )
        count = len(row["volumes"])
        lines.append(f"{'':22}{row['seconds']:.1f} s with starting up, {row['seconds'] / count:.1f} s a volume")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
