"""``ctmr train latents | autoencoder | diffusion | controlnet``: the networks of the MAISI engines."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from pipelines.cli.console import EXIT_FAILED, console, error_console, print_json, report_errors
from pipelines.cli.options import JsonOption

if TYPE_CHECKING:
    from ctmr_core.learning.maisi.run import Trained, TrainingConfig

ConfigArgument = Annotated[
    Path, typer.Argument(metavar="CONFIG", help="YAML; examples in manifests/training.", exists=True, dir_okay=False)
]
OutOption = Annotated[
    Path, typer.Option("--out", "-o", help="Folder of the training, then a models folder; run again to resume.", file_okay=False)
]
StepsOption = Annotated[int | None, typer.Option(min=1, help="Instead of `training.steps`.")]
DeviceOption = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:<n>; instead of the configuration's.")]
ResumeOption = Annotated[bool, typer.Option("--resume/--fresh", help="Go on with the training in the folder, or refuse it.")]


@report_errors
def latents(
    config: ConfigArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the latents; run again to go on.", file_okay=False)],
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Encode images, to train on: of a dataset, or of a JSON list in NVIDIA's format.

    Exit code 1 when images could not be used; they are named, with the reasons, and the others are there.

    Example: `ctmr train latents manifests/training/latents.yaml --out runs/latents`
    """
    from ctmr_core.learning.maisi.latents import make_latents
    from ctmr_core.learning.maisi.settings import LatentsConfig
    from ctmr_core.learning.training import load_config

    settings = load_config(config, LatentsConfig)
    if device is not None:
        settings = settings.model_copy(update={"device": device})

    def tell(name: str, what: str) -> None:
        console.print(Text(f"{name}: {what}", "dim" if what == "kept" else ""), soft_wrap=True, highlight=False)

    done = make_latents(settings, out, None if as_json else tell)
    if as_json:
        print_json({"folder": str(out), "made": done.made, "kept": done.kept, "refused": done.refused})
    else:
        console.print(Text(f"{len(done.made)} made, {len(done.kept)} kept, {len(done.refused)} refused in {out}", "bold"))
    if done.refused:
        error_console.print(Text(f"{len(done.refused)} images could not be used; latents.json names them", "bold red"))
        raise typer.Exit(EXIT_FAILED)


@report_errors
def autoencoder(
    config: ConfigArgument,
    out: OutOption,
    steps: StepsOption = None,
    device: DeviceOption = None,
    resume: ResumeOption = True,
    as_json: JsonOption = False,
) -> None:
    """Train the image autoencoder on patches, against a discriminator.

    Latents of another autoencoder are other latents: make them again and train the diffusion U-Net on them.

    Example: `ctmr train autoencoder manifests/training/autoencoder.yaml --out runs/autoencoder`
    """
    from ctmr_core.learning.maisi.settings import AutoencoderConfig
    from ctmr_core.learning.training import load_config

    _train(load_config(config, AutoencoderConfig), out, steps, device, resume=resume, as_json=as_json)


@report_errors
def diffusion(
    config: ConfigArgument,
    out: OutOption,
    steps: StepsOption = None,
    device: DeviceOption = None,
    resume: ResumeOption = True,
    as_json: JsonOption = False,
) -> None:
    """Train the diffusion U-Net on latents. NVIDIA's weights are continued unless the configuration says `start: scratch`.

    Example: `ctmr train diffusion manifests/training/diffusion.yaml --out runs/tuned`
    """
    from ctmr_core.learning.maisi.settings import DiffusionConfig
    from ctmr_core.learning.training import load_config

    _train(load_config(config, DiffusionConfig), out, steps, device, resume=resume, as_json=as_json)


@report_errors
def controlnet(
    config: ConfigArgument,
    out: OutOption,
    steps: StepsOption = None,
    device: DeviceOption = None,
    resume: ResumeOption = True,
    as_json: JsonOption = False,
) -> None:
    """Train the ControlNet on latents with label maps; the diffusion U-Net is frozen.

    Example: `ctmr train controlnet manifests/training/controlnet.yaml --out runs/tuned-controlnet`
    """
    from ctmr_core.learning.maisi.settings import ControlNetConfig
    from ctmr_core.learning.training import load_config

    _train(load_config(config, ControlNetConfig), out, steps, device, resume=resume, as_json=as_json)


def _train(config: TrainingConfig, out: Path, steps: int | None, device: str | None, *, resume: bool, as_json: bool) -> None:
    from ctmr_core.learning.maisi.run import train
    from ctmr_core.learning.training.ranks import rank
    from pipelines.cli.train_live import LiveTraining
    from pipelines.flows.interrupts import stop_on_signals

    changes = {name: value for name, value in (("steps", steps), ("device", device)) if value is not None}
    config = config.model_copy(update={"training": config.training.model_copy(update=changes)})
    with _process_group(), stop_on_signals() as stopping:
        if as_json or rank() != 0:
            done = train(config, out, resume=resume, should_stop=stopping)
        else:
            with LiveTraining(console) as live:
                done = train(config, out, resume=resume, should_stop=stopping, on_report=live)
        if rank() == 0:
            _tell(done, as_json=as_json)
    if not done.finished:
        raise typer.Exit(EXIT_FAILED)


def _tell(done: Trained, *, as_json: bool) -> None:
    if as_json:
        print_json(done.as_dict())
        return
    scores = ", ".join(f"{name} {value:.4g}" for name, value in done.scores.items())
    console.print(Text(f"{done.reason} after {done.step} steps; {scores or 'no validation'}", "bold"), soft_wrap=True)
    console.print(Text(f"{done.file} (step {done.used_step})"), soft_wrap=True, highlight=False)
    if not done.finished:
        console.print(Text("Run the same command again to go on.", "bold yellow"))


@contextlib.contextmanager
def _process_group() -> Iterator[None]:
    """Several ranks where ``torchrun`` has started them."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield
        return
    import torch
    import torch.distributed as dist

    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()
