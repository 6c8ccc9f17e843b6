"""``ctmr templates``: real label maps to start bodies from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from pipelines.cli.console import EXIT_FAILED, console, error_console, print_json, report_errors
from pipelines.cli.options import JsonOption

if TYPE_CHECKING:
    from ctmr_core.anatomy.templates.library import TemplateRow
    from ctmr_core.errors import CtmrError

templates_app = typer.Typer(
    help="Import real label maps and look through the library of templates.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

LibraryOption = Annotated[
    Path, typer.Option("--library", envvar="CTMR_TEMPLATES", help="Folder of the library.", show_default=True)
]
DEFAULT_LIBRARY = Path("templates")


@templates_app.command("import")
@report_errors
def import_(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH...", help="Label maps (NIfTI, MGZ, NRRD, MetaImage), folders of them, or a folder of masks."
        ),
    ],
    library: LibraryOption = DEFAULT_LIBRARY,
    mapping: Annotated[
        str,
        typer.Option(
            "--mapping",
            "-m",
            help="What the ids mean: totalsegmentator_v2, totalsegmentator_mr, freesurfer, spl_abdominal_atlas, maisi, brain, "
            "or a YAML or CSV file.",
        ),
    ] = "maisi",
    template_id: Annotated[str | None, typer.Option("--id", help="Id of the template; default, the file name.")] = None,
    image: Annotated[
        Path | None, typer.Option(help="The image the labels were drawn on: gives the skin line and every label's intensity.")
    ] = None,
    sequence: Annotated[str, typer.Option(help="Sequence of --image, for example ct, mri_t1.")] = "ct",
    envelope: Annotated[str, typer.Option(help="Where the body outline comes from: auto, image, labels, none.")] = "auto",
    spacing_scale: Annotated[
        tuple[float, float, float], typer.Option(metavar="X Y Z", help="Factors for spacing in a header that is wrong.")
    ] = (1.0, 1.0, 1.0),
    split_sides: Annotated[
        bool, typer.Option("--split-sides", help="Divide labels that do not tell left from right at the body's midline.")
    ] = False,
    drop_unknown: Annotated[bool, typer.Option("--drop-unknown", help="Drop ids that the mapping does not know.")] = False,
    allow_mirrored: Annotated[
        bool, typer.Option("--allow-mirrored", help="Accept a map whose left and right labels are exchanged.")
    ] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Replace a template of the same id.")] = False,
    source: Annotated[str, typer.Option(help="Where the label map comes from, kept with the template.")] = "",
    licence: Annotated[str, typer.Option(help="Its licence, kept with the template.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Import label maps; a file that cannot be used is reported and does not stop the others.

    Example: `ctmr templates import scans/labels.nii.gz -m totalsegmentator_v2 --image scans/ct.nii.gz --id patient_1`
    """
    from ctmr_core.anatomy.mapping import load_mapping
    from ctmr_core.anatomy.templates.importing import check_options, import_templates
    from ctmr_core.anatomy.templates.library import TemplateLibrary
    from ctmr_core.anatomy.templates.mask_folder import holds_masks

    table = load_mapping(mapping)
    several = len(paths) > 1 or (paths[0].is_dir() and not holds_masks(paths[0], table))
    if several and (template_id is not None or image is not None):
        raise typer.BadParameter("--id and --image go with one label map, not with several", param_hint="PATH...")
    check_options(spacing_scale, sequence, envelope, image)

    report = import_templates(
        paths,
        TemplateLibrary.open(library, create=True),
        done=None if as_json else _print_outcome,
        template_id=template_id,
        mapping=table,
        image=image,
        image_sequence=sequence,
        envelope=envelope,
        spacing_scale=spacing_scale,
        split_sides=split_sides,
        drop_unknown=drop_unknown,
        allow_mirrored=allow_mirrored,
        replace=replace,
        source=source,
        licence=licence,
    )
    if as_json:
        errors = {str(path): error.as_dict() for path, error in report.errors.items()}
        print_json({"imported": [_summary(row) for row in report.rows], "errors": errors})
    elif several:
        console.print(Text(f"{len(report.rows)} imported, {len(report.errors)} refused", "bold"))
    if report.errors:
        raise typer.Exit(EXIT_FAILED)


@templates_app.command("list")
@report_errors
def list_(library: LibraryOption = DEFAULT_LIBRARY, as_json: JsonOption = False) -> None:
    """List the templates of a library.

    Example: `ctmr templates list --json`
    """
    from ctmr_core.anatomy.templates.library import TemplateLibrary

    _print_rows(TemplateLibrary.open(library).rows(), as_json)


@templates_app.command()
@report_errors
def show(
    template_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the template.")],
    library: LibraryOption = DEFAULT_LIBRARY,
    as_json: JsonOption = False,
) -> None:
    """Show one template: grid, labels with volumes and intensities, origin, what the import remarked. Its file is verified.

    Example: `ctmr templates show patient_1`
    """
    from ctmr_core.anatomy.templates.library import TemplateLibrary
    from ctmr_core.anatomy.vocabulary import load_vocabulary

    opened = TemplateLibrary.open(library)
    row = opened.row(template_id)
    opened.get(template_id)
    if as_json:
        print_json(row.model_dump(mode="json"))
        return
    facts = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, value in _facts(row).items():
        facts.add_row(Text(name, "dim"), Text(value))
    console.print(facts)
    vocabulary = load_vocabulary(row.vocabulary)
    labels = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("id", "label", "mL", *row.intensities):
        labels.add_column(column, justify="left" if column == "label" else "right")
    for label in row.labels:
        values = [row.intensities[sequence].get(label) for sequence in row.intensities]
        measured = [f"{value.median:g} ± {value.spread:g}" if value else "" for value in values]
        labels.add_row(str(label), vocabulary.label(label).name, f"{row.volumes_ml[label]:.1f}", *measured)
    console.print(labels)


@templates_app.command()
@report_errors
def find(
    library: LibraryOption = DEFAULT_LIBRARY,
    region: Annotated[list[str] | None, typer.Option(help="Region in view: head, chest, abdomen, pelvis. Repeatable.")] = None,
    label: Annotated[list[str] | None, typer.Option(help="Label in view, by name or id. Repeatable.")] = None,
    vocabulary: Annotated[str | None, typer.Option(help="Only templates of this vocabulary: maisi, brain.")] = None,
    tumor_free: Annotated[bool, typer.Option("--tumor-free", help="No tumour but those asked for with --label.")] = False,
    size: Annotated[tuple[int, int, int] | None, typer.Option(metavar="X Y Z", help="Voxels; nearest first.")] = None,
    spacing: Annotated[tuple[float, float, float] | None, typer.Option(metavar="X Y Z", help="mm; nearest first.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """Find templates that show given regions and labels, the nearest to a wanted grid first.

    Example: `ctmr templates find --region abdomen --label spleen --tumor-free --size 256 256 128 --spacing 1.5 1.5 2`
    """
    from ctmr_core.anatomy.regions import REGIONS
    from ctmr_core.anatomy.templates.library import TemplateLibrary
    from ctmr_core.errors import AnatomyError

    for name in region or ():
        if name not in REGIONS:
            raise AnatomyError("unknown region", found=name, allowed=REGIONS)
    labels, vocabulary = _label_ids(label or [], vocabulary)
    rows = TemplateLibrary.open(library).find(region or (), labels, tumor_free, size, spacing, limit, vocabulary)
    _print_rows(rows, as_json)


@templates_app.command()
@report_errors
def remove(
    template_ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Ids of the templates.")],
    library: LibraryOption = DEFAULT_LIBRARY,
) -> None:
    """Remove templates from a library, with their files.

    Example: `ctmr templates remove patient_1 patient_2`
    """
    from ctmr_core.anatomy.templates.library import TemplateLibrary

    opened = TemplateLibrary.open(library)
    for template_id in template_ids:
        opened.row(template_id)
    for template_id in template_ids:
        opened.remove(template_id)
        console.print(f"removed {template_id}", highlight=False)


@templates_app.command()
@report_errors
def labels(vocabulary: Annotated[str, typer.Argument(help="maisi or brain.")] = "maisi", as_json: JsonOption = False) -> None:
    """List the labels of a vocabulary: ids, names, sides. These are the names a mapping file maps to.

    Example: `ctmr templates labels brain`
    """
    from ctmr_core.anatomy.vocabulary import load_vocabulary

    loaded = load_vocabulary(vocabulary)
    if as_json:
        print_json([{"id": label.id, "name": label.name, "group": label.group, "side": label.side} for label in loaded])
        return
    table = Table("id", "name", "group", box=None, padding=(0, 2, 0, 0))
    for label in loaded:
        table.add_row(str(label.id), label.name, label.group)
    console.print(table)


def _label_ids(names: Sequence[str], vocabulary: str | None) -> tuple[list[int], str | None]:
    """Ids of the labels, and the vocabulary they are of: the one asked for, else the first that knows every name."""
    from ctmr_core.anatomy.vocabulary import DTYPES, load_vocabulary

    if not names:
        if vocabulary is not None:
            load_vocabulary(vocabulary)
        return [], vocabulary
    keys = [int(name) if name.isdecimal() else name for name in names]
    candidates = [load_vocabulary(name) for name in ([vocabulary] if vocabulary else DTYPES)]
    for candidate in candidates:
        if all(key in candidate for key in keys):
            return [candidate.label(key).id for key in keys], candidate.name
    return [candidates[0].label(key).id for key in keys], candidates[0].name


def _summary(row: TemplateRow) -> dict[str, Any]:
    wanted = {
        "id",
        "digest",
        "vocabulary",
        "size",
        "spacing",
        "labels",
        "regions",
        "lesions",
        "has_tumor",
        "source",
        "licence",
        "notes",
    }
    return row.model_dump(mode="json", include=wanted)


def _facts(row: TemplateRow) -> dict[str, str]:
    return {
        "id": row.id,
        "vocabulary": row.vocabulary,
        "size": " x ".join(map(str, row.size)),
        "spacing": " x ".join(f"{mm:g}" for mm in row.spacing) + " mm",
        "regions": ", ".join(row.regions) or "none",
        "lesions": ", ".join(map(str, row.lesions)) or "none",
        "mapping": row.imported_with,
        "source": row.source,
        "licence": row.licence,
        "digest": row.digest,
        **{f"note {n}": note for n, note in enumerate(row.notes, start=1)},
    }


def _print_outcome(_: Path, outcome: TemplateRow | CtmrError) -> None:
    if isinstance(outcome, Exception):
        error_console.print(Text.assemble(("refused: ", "bold red"), str(outcome)), soft_wrap=True)
        return
    regions = ", ".join(outcome.regions) or "no region"
    size = " x ".join(map(str, outcome.size))
    console.print(Text(f"{outcome.id}: {len(outcome.labels)} labels, {regions}, {size}"), soft_wrap=True)
    for note in outcome.notes:
        console.print(Text(f"  note: {note}", "yellow"), soft_wrap=True)


def _print_rows(rows: Sequence[TemplateRow], as_json: bool) -> None:
    if as_json:
        print_json([_summary(row) for row in rows])
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("id", "vocabulary", "size", "spacing (mm)", "regions", "labels", "tumor"):
        table.add_column(column, overflow="fold", no_wrap=column == "id")
    for row in rows:
        table.add_row(
            row.id,
            row.vocabulary,
            "x".join(map(str, row.size)),
            "x".join(f"{mm:.3g}" for mm in row.spacing),
            " ".join(row.regions),
            str(len(row.labels)),
            "yes" if row.has_tumor else "no",
        )
    console.print(table if rows else Text("no templates"))
