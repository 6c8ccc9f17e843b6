"""``ctmr models``: weights of the MAISI engines, and single volumes of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table
from rich.text import Text

from pipelines.cli.console import EXIT_FAILED, console, error_console, print_json, report_errors

if TYPE_CHECKING:
    from ctmr_core.engines.maisi.hub import FileState
    from ctmr_core.engines.maisi.released import Part

models_app = typer.Typer(
    help="Fetch and verify the weights of the MAISI engines, and sample single volumes.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

VariantArgument = Annotated[str, typer.Argument(metavar="VARIANT", help="rflow-ct, ddpm-ct, rflow-mr or rflow-mr-brain.")]
RootOption = Annotated[
    Path | None, typer.Option("--root", envvar="CTMR_MODELS", help="Models folder; default ~/.cache/ctmr/models.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
MasksOption = Annotated[bool, typer.Option("--masks", help="Also the networks that draw label maps (CT variants).")]
BankOption = Annotated[bool, typer.Option("--bank", help="Also NVIDIA's bank of label maps (11.6 GB, CT variants).")]
_STYLES = {"verified": "green", "recorded": "green", "missing": "dim", "changed": "red", "different": "red"}
Region = Literal["head", "chest", "abdomen", "pelvis"]


@models_app.command()
@report_errors
def pull(
    variant: VariantArgument,
    root: RootOption = None,
    masks: MasksOption = False,
    bank: BankOption = False,
    mirror: Annotated[Path | None, typer.Option("--from", help="Folder that has the files; nothing is downloaded then.")] = None,
    accept_license: Annotated[
        bool, typer.Option("--accept-license", help="Accept a non-commercial licence (shown when it is needed).")
    ] = False,
    endpoint: Annotated[str | None, typer.Option(envvar="HF_ENDPOINT", help="Another address of the Hugging Face hub.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Fetch the weights of a variant at a pinned commit and verify them; what is there already is not fetched again.

    Files whose digest NVIDIA publishes are compared with it. For the others the first pull decides: their digest is recorded and
    every later pull must give the same file.

    Example: `ctmr models pull rflow-ct --masks`
    """
    from ctmr_core.engines.maisi.hub import models_root
    from ctmr_core.engines.maisi.hub import pull as pull_files
    from ctmr_core.engines.maisi.released import licences_of

    folder = models_root(root)
    for licence in licences_of(variant) if not as_json else ():
        console.print(Text(f"{licence.name}: {licence.summary} {licence.url}", "dim"), soft_wrap=True)
    states = pull_files(
        variant,
        folder,
        _parts(masks, bank),
        mirror=mirror,
        accept_licence=accept_license,
        endpoint=endpoint,
        done=None if as_json else _print_state,
    )
    if as_json:
        print_json({"variant": variant, "root": str(folder), "files": [_described(state) for state in states]})
    else:
        console.print(Text(f"{variant} is ready in {folder}", "bold"), soft_wrap=True)


@models_app.command("list")
@report_errors
def list_(root: RootOption = None, as_json: JsonOption = False) -> None:
    """List variants and files: what is there, whether it was verified, licence, size, and the digest that enters the case key.

    Example: `ctmr models list`
    """
    from ctmr_core.engines.maisi.hub import file_states, models_root
    from ctmr_core.engines.maisi.identity import own_network_config, weights_digest
    from ctmr_core.engines.maisi.released import PARTS
    from ctmr_core.engines.maisi.variants import VARIANTS

    folder = models_root(root)
    states = {name: file_states(name, folder, PARTS) for name in VARIANTS}
    digests = {name: weights_digest(name, folder, own_network_config(name, folder)) for name in VARIANTS}
    if as_json:
        variants = {
            name: {"weights_digest": digests[name], "files": [_described(state) for state in states[name]]} for name in VARIANTS
        }
        print_json({"root": str(folder), "variants": variants})
        return
    for name, files in states.items():
        licences = ", ".join(dict.fromkeys(state.file.licence.name for state in files))
        console.print(Text.assemble((name, "bold"), f"  {licences}"), soft_wrap=True)
        table = Table(show_header=False, box=None, padding=(0, 2, 0, 2))
        for state in files:
            size = f"{state.size / 1e6:,.1f} MB" if state.size else ""
            table.add_row(Text(state.status, _STYLES.get(state.status, "yellow")), state.file.part, state.file.path, size)
        console.print(table)
        if digests[name]:
            console.print(Text(f"  weights {digests[name]}", "dim"), soft_wrap=True)
    console.print(Text(f"models folder: {folder}", "dim"), soft_wrap=True)


@models_app.command()
@report_errors
def verify(
    variant: VariantArgument,
    root: RootOption = None,
    masks: MasksOption = False,
    bank: BankOption = False,
    as_json: JsonOption = False,
) -> None:
    """Hash the files of a variant anew; fails when one is missing, changed, or not the published file.

    Example: `ctmr models verify rflow-ct --json`
    """
    from ctmr_core.engines.maisi.hub import models_root
    from ctmr_core.engines.maisi.hub import verify as verify_files

    states = verify_files(variant, models_root(root), _parts(masks, bank), None if as_json else _print_state)
    bad = [state for state in states if state.status in ("missing", "changed", "different")]
    if as_json:
        print_json({"variant": variant, "verified": not bad, "files": [_described(state) for state in states]})
    if bad:
        error_console.print(Text(f"{len(bad)} of {len(states)} files are not what was published or pulled", "bold red"))
        raise typer.Exit(EXIT_FAILED)


@models_app.command()
@report_errors
def sample(
    variant: VariantArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="Image to write: .nii or .nii.gz.")],
    size: Annotated[tuple[int, int, int] | None, typer.Option(metavar="X Y Z", help="Voxels.")] = None,
    spacing: Annotated[tuple[float, float, float] | None, typer.Option(metavar="X Y Z", help="mm per voxel.")] = None,
    sequence: Annotated[
        str | None, typer.Option("--sequence", "--modality", help="For example ct, mri_t1; default ct, or mri_t1 of MR variants.")
    ] = None,
    mask: Annotated[Path | None, typer.Option(help="Label map (maisi ids) to render; without it, an anatomy is drawn.")] = None,
    region: Annotated[Region | None, typer.Option(help="Without --mask: the region ddpm-ct should show.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same image.")] = 0,
    steps: Annotated[int | None, typer.Option(min=1, max=1000, help="Sampling steps; default 30, or 1000 of ddpm-ct.")] = None,
    guidance: Annotated[float | None, typer.Option(min=0, help="Classifier-free guidance; default as released.")] = None,
    compat: Annotated[bool, typer.Option("--compat", help="Number for number as NVIDIA's scripts, defects included.")] = False,
    limits: Annotated[bool, typer.Option("--limits/--no-limits", help="Refuse sizes and spacings the weights never saw.")] = True,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:<n>.")] = "cpu",
    root: RootOption = None,
    network_config: Annotated[Path | None, typer.Option(help="JSON of networks of another size.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Sample one volume: NIfTI image, a JSON record beside it and, with --mask, the label map on the image's grid.

    A mask on a grid that the weights don't know is moved to the nearest one, unless --size and --spacing are given.

    Example: `ctmr models sample rflow-ct --mask labels.nii.gz --out ct.nii.gz --seed 7 --device cuda`
    """
    from ctmr_core.engines.maisi.single import SingleRequest, sample_to_files

    request = SingleRequest(
        variant=variant,
        size=size,
        spacing=spacing,
        sequence=sequence,
        mask=mask,
        region=region,
        seed=seed,
        device=device,
        models=root,
        network_config=network_config,
        settings={
            "mode": "compat" if compat else "fixed",
            "limits": limits,
            **({"steps": steps} if steps is not None else {}),
            **({"guidance": guidance} if guidance is not None else {}),
        },
    )
    written, record = sample_to_files(request, out)
    for remark in record["remarks"]:
        error_console.print(Text(f"note: {remark}", "yellow"), soft_wrap=True)
    if as_json:
        print_json({"files": [str(path) for path in written], **record})
        return
    for path in written:
        console.print(Text(str(path)), soft_wrap=True)


def _parts(masks: bool, bank: bool) -> tuple[Part, ...]:
    parts: list[Part] = ["image"]
    if masks:
        parts.append("masks")
    if bank:
        parts.append("bank")
    return tuple(parts)


def _described(state: FileState) -> dict[str, Any]:
    return {
        "path": state.file.path,
        "part": state.file.part,
        "status": state.status,
        "size": state.size,
        "sha256": state.sha256,
        "licence": state.file.licence.name,
        "repository": state.file.repository,
    }


def _print_state(state: FileState) -> None:
    style = _STYLES.get(state.status, "yellow")
    line = Text.assemble(f"{state.file.path}  ", (state.status, style), f"  {state.size / 1e6:,.1f} MB  {state.sha256}")
    console.print(line, soft_wrap=True)
