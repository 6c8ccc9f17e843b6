"""``ctmr segment``: label maps of scans by a trained network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from ctmr_core.errors import LearningError
from pipelines.cli.console import console, print_json, report_errors
from pipelines.cli.options import JsonOption

_VOLUME_SUFFIXES = (".nii.gz", ".nii", ".mgz", ".nrrd", ".nhdr", ".mha", ".mhd")


@report_errors
def segment(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            help="A checkpoint, the run folder: its best one; or a bundle of `ctmr train export`.", show_default=False
        ),
    ],
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE...", help="Scans: NIfTI, MGZ, NRRD, MetaImage.", show_default=False)
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for the label maps, or a .nii.gz for one.", show_default=False)
    ],
    device: Annotated[str, typer.Option(help="`auto`, `cpu` or `cuda`.")] = "auto",
    as_json: JsonOption = False,
) -> None:
    """Segment scans with a network of `ctmr train segmentation`.

    The label maps hold the training's ids (1, 2, ... in the order of its classes), on the grid of each scan. A network with
    several channels takes its images as one scan, in the order of its sequences.

    Example: `ctmr segment runs/torso scan.nii.gz --out labels.nii.gz`
    """
    from ctmr_core.learning.segmentation.predict import load_segmenter, segment_file

    segmenter = load_segmenter(checkpoint_of(checkpoint), device)
    channels = len(segmenter.config.sequences)
    scans = [images] if channels > 1 else [[image] for image in images]
    targets = _targets(out, [scan[0] for scan in scans])
    written = []
    for scan, target in zip(scans, targets, strict=True):
        written.append(str(segment_file(segmenter, scan, target)))
        if not as_json:
            console.print(Text(written[-1]), soft_wrap=True)
    classes = dict(enumerate(segmenter.classes))
    if as_json:
        print_json({"files": written, "classes": classes})
    else:
        console.print(Text(", ".join(f"{number} {name}" for number, name in classes.items() if number), "dim"), soft_wrap=True)


def checkpoint_of(place: Path, name: str = "best") -> Path:
    """The checkpoint itself, or the one of that name in a run folder; the last one where no score has chosen a best. Also an
    exported bundle."""
    from ctmr_core.learning.segmentation.predict import is_bundle
    from ctmr_core.learning.training.loop import BEST, LAST

    if not place.is_dir() or is_bundle(place):
        return place
    wanted = place / (BEST if name == "best" else LAST)
    return wanted if wanted.is_file() else place / LAST


def _targets(out: Path, images: list[Path]) -> list[Path]:
    """Where the label map of each image goes."""
    if out.name.endswith((".nii.gz", ".nii")):
        if len(images) > 1:
            raise LearningError("several scans need a folder", where="--out", found=str(out), allowed="a folder")
        return [out]
    names = [f"{_stem(image)}.nii.gz" for image in images]
    if len(set(names)) < len(names):  # scans of different people often have the same file name
        names = [f"{image.absolute().parent.name}-{name}" for image, name in zip(images, names, strict=True)]
    if len(set(names)) < len(names):
        raise LearningError("two scans would be written to one file", found=sorted(names), fix="segment them into two folders")
    return [out / name for name in names]


def _stem(image: Path) -> str:
    suffix = next((suffix for suffix in _VOLUME_SUFFIXES if image.name.endswith(suffix)), image.suffix)
    return image.name.removesuffix(suffix)
