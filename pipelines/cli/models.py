"""``ctmr models``: weights of the MAISI engines, and single volumes of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table
from rich.text import Text

from pipelines.cli.console import EXIT_FAILED, console, error_console, print_json, report_errors
from pipelines.cli.options import JsonOption

if TYPE_CHECKING:
    from ctmr_core.engines.maisi.hub import FileState
    from ctmr_core.engines.maisi.paired import Accept
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
MasksOption = Annotated[bool, typer.Option("--masks", help="Also the networks that draw label maps (CT variants).")]
BankOption = Annotated[bool, typer.Option("--bank", help="Also NVIDIA's bank of label maps (11.6 GB, CT variants).")]
_STYLES = {"verified": "green", "recorded": "green", "trained": "green", "missing": "dim", "changed": "red", "different": "red"}
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
        console.print(Text.assemble((name, "bold"), f"  {_licences(files)}"), soft_wrap=True)
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
    start: Annotated[Path | None, typer.Option("--from", help="NIfTI image to start from, in place of noise alone.")] = None,
    strength: Annotated[float, typer.Option(min=0, max=1, help="With --from: 0 gives the image back, 1 is noise alone.")] = 0.5,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same image.")] = 0,
    steps: Annotated[int | None, typer.Option(min=1, max=1000, help="Sampling steps; default 30, or 1000 of ddpm-ct.")] = None,
    guidance: Annotated[float | None, typer.Option(min=0, help="Classifier-free guidance; default as released.")] = None,
    window: Annotated[
        tuple[int, int, int] | None, typer.Option(metavar="X Y Z", help="Decoding window, latent voxels; default by memory.")
    ] = None,
    overlap: Annotated[float, typer.Option(min=0, max=0.99, help="Share by which decoding windows overlap.")] = 0.4,
    compat: Annotated[bool, typer.Option("--compat", help="Number for number as NVIDIA's scripts, defects included.")] = False,
    limits: Annotated[bool, typer.Option("--limits/--no-limits", help="Refuse sizes and spacings the weights never saw.")] = True,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:<n>.")] = "cpu",
    root: RootOption = None,
    network_config: Annotated[Path | None, typer.Option(help="JSON of networks of another size.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Sample one volume: NIfTI image, a JSON record beside it and, with --mask, the label map on the image's grid.

    A mask on a grid that the weights don't know is moved to the nearest one, unless --size and --spacing are given. An image
    to start from is resampled to that grid, too (linearly, about its middle).

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
        start=start,
        strength=strength,
        seed=seed,
        device=device,
        models=root,
        network_config=network_config,
        settings={
            "mode": "compat" if compat else "fixed",
            "limits": limits,
            **({"steps": steps} if steps is not None else {}),
            **({"guidance": guidance} if guidance is not None else {}),
            **({"decode": {"window": window, "overlap": overlap}} if window is not None else {}),
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


@models_app.command()
@report_errors
def pair(
    variant: VariantArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="CT to write: .nii or .nii.gz.")],
    size: Annotated[tuple[int, int, int], typer.Option(metavar="X Y Z", help="Voxels.")] = (256, 256, 256),
    spacing: Annotated[tuple[float, float, float], typer.Option(metavar="X Y Z", help="mm per voxel.")] = (1.5, 1.5, 1.5),
    organ: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=SIZE", help="Size 0..1 (-1: absent) of an organ or tumour; draws a label map. Repeatable."),
    ] = None,
    bank: Annotated[Path | None, typer.Option(help="Folder of the bank; default, datasets in the models folder.")] = None,
    uses: Annotated[
        Path | None, typer.Option(help="JSON file that counts how often each label map of the bank was taken.")
    ] = None,
    label: Annotated[list[str] | None, typer.Option(help="Structure that must be there, by name or id. Repeatable.")] = None,
    region: Annotated[list[str] | None, typer.Option(help="Region that must be in view (bank only). Repeatable.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same pair.")] = 0,
    attempts: Annotated[int, typer.Option(min=1, max=100, help="Pairs drawn at most until the HU of organs are right.")] = 3,
    check: Annotated[bool, typer.Option("--check/--no-check", help="Compare the HU of organs with real CT.")] = True,
    steps: Annotated[int | None, typer.Option(min=1, max=1000, help="Sampling steps of the image.")] = None,
    guidance: Annotated[float, typer.Option(min=0, help="Classifier-free guidance towards tumours, 0 is off.")] = 0.0,
    compat: Annotated[bool, typer.Option("--compat", help="Number for number as NVIDIA's scripts, defects included.")] = False,
    limits: Annotated[bool, typer.Option("--limits/--no-limits", help="Refuse sizes and spacings the weights never saw.")] = True,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:<n>.")] = "cpu",
    root: RootOption = None,
    network_config: Annotated[Path | None, typer.Option(help="JSON of networks of another size.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Draw a label map and its CT: of given organ sizes (--organ), or one of NVIDIA's bank, varied.

    Exit code 1 when no attempt passed the check; the last pair is written all the same, marked in the JSON record.

    Example: `ctmr models pair rflow-ct --organ liver=0.7 --organ "hepatic tumor=0.3" --out ct.nii.gz --device cuda`
    """
    from ctmr_core.engines.maisi.pair_files import PairRequest, pair_to_files

    request = PairRequest(
        variant=variant,
        size=size,
        spacing=spacing,
        sizes=_organ_sizes(organ or []),
        anatomy=tuple(label or ()),
        regions=tuple(region or ()),
        bank=bank,
        uses=uses,
        seed=seed,
        attempts=attempts,
        steps=steps,
        guidance=guidance,
        compat=compat,
        limits=limits,
        device=device,
        models=root,
        network_config=network_config,
    )
    accept = _hu_reasons(spacing) if check else None
    written, record = pair_to_files(request, out, accept)
    if as_json:
        print_json({"files": [str(path) for path in written], **record})
    else:
        for path in written:
            console.print(Text(str(path)), soft_wrap=True)
        for reason in record["reasons"]:
            error_console.print(Text(f"not accepted: {reason}", "yellow"), soft_wrap=True)
    if not record["accepted"]:
        raise typer.Exit(EXIT_FAILED)


@models_app.command()
@report_errors
def mask(
    variant: VariantArgument,
    organ: Annotated[
        list[str], typer.Option(metavar="NAME=SIZE", help="Size 0..1 (-1: absent) of an organ or tumour. Repeatable.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Label map to write: .nii or .nii.gz.")],
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same label map.")] = 0,
    steps: Annotated[int, typer.Option(min=1, max=1000, help="Sampling steps.")] = 1000,
    attempts: Annotated[int, typer.Option(min=1, max=100, help="Drawn at most until the tumour asked for is there.")] = 3,
    compat: Annotated[bool, typer.Option("--compat", help="Number for number as NVIDIA's scripts, defects included.")] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:<n>.")] = "cpu",
    root: RootOption = None,
    network_config: Annotated[Path | None, typer.Option(help="JSON of networks of another size.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Draw a label map of given organ sizes (256 voxels of 1.5 mm along each axis, maisi ids); see it as a template or render it.

    Example: `ctmr models mask rflow-ct --organ liver=0.6 --organ "lung tumor=0.5" --out labels.nii.gz --device cuda`
    """
    from ctmr_core.engines.maisi.mask_output import mask_to_files

    written, record = mask_to_files(
        variant,
        _organ_sizes(organ),
        out,
        seed=seed,
        steps=steps,
        attempts=attempts,
        compat=compat,
        device=device,
        models=root,
        network_config=network_config,
    )
    if as_json:
        print_json({"files": [str(path) for path in written], **record})
        return
    for path in written:
        console.print(Text(str(path)), soft_wrap=True)


def _organ_sizes(organs: list[str]) -> dict[str, float]:
    sizes = {}
    for text in organs:
        name, _, value = text.partition("=")
        try:
            sizes[name.strip()] = float(value)
        except ValueError as error:
            raise typer.BadParameter(f"{text!r} is not NAME=SIZE", param_hint="--organ") from error
    return sizes


def _hu_reasons(spacing: tuple[float, float, float]) -> Accept:
    """The factory's check of organ HU, as a judge of pairs."""
    import numpy as np

    from ctmr_core.anatomy.grid import Grid
    from ctmr_core.anatomy.label_map import LabelMap
    from ctmr_core.anatomy.vocabulary import load_vocabulary
    from ctmr_core.cases.case import Case
    from ctmr_core.quality.base import Candidate
    from ctmr_core.quality.hu_median import HuMedianCheck

    def reasons(image: np.ndarray, mask: np.ndarray) -> list[str]:
        size = (mask.shape[0], mask.shape[1], mask.shape[2])
        label_map = LabelMap(mask, Grid.centred(size, spacing).affine, load_vocabulary("maisi"))
        case = Case.model_construct(case_id="pair", body="template:pair", sequences=("ct",), size=size, spacing=spacing)
        return list(HuMedianCheck().run(Candidate(case, label_map, {"ct": image})).reasons)

    return reasons


def _parts(masks: bool, bank: bool) -> tuple[Part, ...]:
    parts: list[Part] = ["image"]
    if masks:
        parts.append("masks")
    if bank:
        parts.append("bank")
    return tuple(parts)


def _licences(files: list[FileState]) -> str:
    """The licences of the files that are there (or of all, where none is), and which of them stand under none."""
    there = [state for state in files if state.status != "missing"] or files
    names = ", ".join(dict.fromkeys(name for state in there for name in state.licences))
    own = ", ".join(state.path.name for state in there if not state.licences)
    return "; ".join(part for part in (names, own and f"of your own: {own}") if part)


def _described(state: FileState) -> dict[str, Any]:
    return {
        "path": state.file.path,
        "part": state.file.part,
        "status": state.status,
        "size": state.size,
        "sha256": state.sha256,
        "licence": ", ".join(state.licences),
        "repository": state.file.repository,
    }


def _print_state(state: FileState) -> None:
    style = _STYLES.get(state.status, "yellow")
    line = Text.assemble(f"{state.file.path}  ", (state.status, style), f"  {state.size / 1e6:,.1f} MB  {state.sha256}")
    console.print(line, soft_wrap=True)
