"""Import: somebody's label map becomes a template of the library."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from ctmr_core.anatomy.label_census import LabelCensus, take_census
from ctmr_core.anatomy.label_map import LabelIntensity, LabelMap
from ctmr_core.anatomy.mapping import LabelMapping, apply_mapping, load_mapping
from ctmr_core.anatomy.sequences import MODALITY_CODES, is_ct
from ctmr_core.anatomy.templates.envelope import AIR_HU, envelope_from_ct, envelope_from_labels, envelope_from_mr
from ctmr_core.anatomy.templates.intensities import measure_intensities
from ctmr_core.anatomy.templates.library import TEMPLATE_ID_PATTERN, TemplateLibrary, TemplateRow, check_template_id
from ctmr_core.anatomy.templates.mask_folder import holds_masks, read_mask_folder
from ctmr_core.anatomy.templates.orientation import (
    VERTEBRA_PITCH_MM,
    midline_index,
    mirrored_labels,
    number_vertebrae,
    vertebra_spacing,
)
from ctmr_core.anatomy.templates.reading import Scan, is_readable_name, read_label_scan, read_scan, scan_stem
from ctmr_core.errors import AnatomyError, CtmrError

BODY = 200
LUNGS = frozenset({28, 29, 30, 31, 32})
SAME_GRID = 1e-3
DARKEST_FAT_HU = -50.0
OUTERMOST_FRACTION = 0.75

Envelope = Literal["auto", "image", "labels", "none"]


@dataclass(frozen=True)
class ImportReport:
    """What became of a batch: rows imported, and the error of every file that was not."""

    rows: list[TemplateRow] = field(default_factory=list)
    errors: dict[Path, CtmrError] = field(default_factory=dict)


def import_template(
    label_path: str | Path,
    library: TemplateLibrary,
    *,
    template_id: str | None = None,
    mapping: str | Path | LabelMapping = "maisi",
    image: str | Path | None = None,
    image_sequence: str = "ct",
    spacing_scale: tuple[float, float, float] = (1.0, 1.0, 1.0),
    split_sides: bool = False,
    drop_unknown: bool = False,
    allow_mirrored: bool = False,
    replace: bool = False,
    source: str = "",
    licence: str = "",
    envelope: Envelope = "auto",
) -> TemplateRow:
    """Read, map, complete and store one label map; returns its row.

    label_path: a label map, or a folder with one mask per structure.
    template_id: default, the file name without its suffix. mapping: a name, a file or a ``LabelMapping``.
    image: the image the labels were drawn on (same grid, nothing is resampled); every label's median and spread in it
        is kept under ``image_sequence``, and a CT or MR shows where the skin is.
    spacing_scale: factors for the header's spacing along x, y and z (RAS order), for headers that are wrong.
    split_sides: divide labels without a side at the midline of the body.
    drop_unknown: ids without a mapping become background. allow_mirrored: accept maps with left and right exchanged.
    envelope: where label 200 "body" comes from: ``image``, ``labels``, ``none``, or ``auto`` (nothing to do for brains
        and for maps that have a body; else the image, else the labels).

    Raises ``AnatomyError`` for anything that cannot be used; the library is then unchanged.
    """
    label_path = Path(label_path)
    table = mapping if isinstance(mapping, LabelMapping) else load_mapping(mapping)
    check_options(spacing_scale, image_sequence, envelope, image)
    identifier = check_template_id(template_id) if template_id else _id_from_name(label_path)
    if identifier in library and not replace:
        raise AnatomyError(
            "the library has a template of this id",
            where=str(library.path),
            found=identifier,
            fix="choose another --id, or --replace it",
        )
    masks = label_path.is_dir()
    scan = read_mask_folder(label_path, table, drop_unknown) if masks else read_label_scan(label_path)
    picture = read_matching_image(image, scan, image_sequence) if image is not None else None
    notes: list[str] = []
    if not scan.orientation_known:
        notes.append("the header does not say which way the axes run: taken as left, anterior, superior")
    try:
        voxels = map_scan(scan, table, split_sides, drop_unknown, notes)
        affine = scan.affine.copy()
        affine[:3, :3] *= np.asarray(spacing_scale, np.float64)
        label_map = LabelMap(voxels, affine, table.vocabulary)
        census = take_census(label_map)
        if not census.entries:
            raise AnatomyError("nothing is left of the label map: every label was dropped", fix="choose another mapping")
        _check_sides(label_map, census, allow_mirrored, notes)
        _check_scale(label_map, census, notes)
        label_map, census = with_envelope(label_map, census, picture, image_sequence, envelope, notes)
    except CtmrError as error:
        raise error.located(str(label_path)) from error
    intensities: dict[str, dict[int, LabelIntensity]] = {}
    if picture is not None:
        # "body" is skin, fat and muscle in one label: a single median would mean nothing.
        intensities[image_sequence] = measure_intensities(label_map.voxels, picture.voxels, census, skip=_mixed(label_map))
    label_map = LabelMap(label_map.voxels, label_map.affine, label_map.vocabulary, intensities=intensities)
    return library.add(
        identifier,
        label_map,
        source=source,
        licence=licence,
        imported_with=table.name,
        notes=notes,
        replace=replace,
        census=census,
    )


def import_templates(
    label_paths: Sequence[str | Path],
    library: TemplateLibrary,
    *,
    done: Callable[[Path, TemplateRow | CtmrError], None] | None = None,
    **options: Any,
) -> ImportReport:
    """Import several label maps with the same options; the error of one file does not stop the others.

    label_paths: files and folders: a folder with one mask per structure is one label map, any other stands for every
        readable file directly in it, by name. ``done`` is called after each.
    """
    report = ImportReport()
    mapping = options.get("mapping", "maisi")
    options["mapping"] = table = mapping if isinstance(mapping, LabelMapping) else load_mapping(mapping)
    for path in _files(label_paths, table):
        outcome: TemplateRow | CtmrError
        try:
            outcome = import_template(path, library, **options)
        except CtmrError as error:
            outcome = report.errors[path] = error
        else:
            report.rows.append(outcome)
        if done is not None:
            done(path, outcome)
    if not report.rows and not report.errors:
        raise AnatomyError(
            "found no label maps to import",
            found=[str(path) for path in label_paths],
            allowed="files or folders of NIfTI, MGZ, NRRD, MetaImage",
        )
    return report


def check_options(spacing_scale: Sequence[float], image_sequence: str, envelope: str, image: str | Path | None) -> None:
    """Refuse options that no file could be imported with."""
    if len(spacing_scale) != 3 or not all(np.isfinite(factor) and factor > 0 for factor in spacing_scale):
        raise AnatomyError("the spacing scale is three positive factors, x y z", found=tuple(spacing_scale))
    if image_sequence not in MODALITY_CODES:
        raise AnatomyError("unknown sequence", found=image_sequence, allowed=MODALITY_CODES)
    if envelope not in get_args(Envelope):
        raise AnatomyError("unknown envelope", found=envelope, allowed=get_args(Envelope))
    if envelope == "image" and image is None:
        raise AnatomyError("an envelope from the image needs an image", fix="give --image, or --envelope labels")


def _files(paths: Sequence[str | Path], mapping: LabelMapping) -> Iterator[Path]:
    for path in map(Path, paths):
        if path.is_dir() and not holds_masks(path, mapping):
            yield from sorted(file for file in path.iterdir() if file.is_file() and is_readable_name(file))
        else:
            yield path


def _id_from_name(path: Path) -> str:
    identifier = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in scan_stem(path)).lstrip("-_")[:80]
    if not identifier:
        raise AnatomyError(
            "the file name makes no template id", where=str(path), allowed=TEMPLATE_ID_PATTERN, fix="give one with --id"
        )
    return identifier


def read_matching_image(path: str | Path, labels: Scan, sequence: str) -> Scan:
    """The image the labels were drawn on; ``AnatomyError`` when it lies on another grid or is no image of that kind."""
    image = read_scan(path)
    fix = "give the image the labels were drawn on, or resample one to the grid of the other first"
    if image.voxels.shape != labels.voxels.shape:
        raise AnatomyError(
            "the image is not on the grid of the label map",
            where=str(path),
            found=image.voxels.shape,
            allowed=f"{labels.voxels.shape} voxels",
            fix=fix,
        )
    if not np.allclose(image.affine, labels.affine, rtol=0, atol=SAME_GRID):
        difference = float(np.abs(image.affine - labels.affine).max())
        raise AnatomyError(
            "the image lies elsewhere than the label map",
            where=str(path),
            found=f"affines differ by up to {difference:.4g} mm",
            allowed=f"{SAME_GRID} mm",
            fix=fix,
        )
    if np.issubdtype(image.voxels.dtype, np.floating) and not np.isfinite(image.voxels).all():
        raise AnatomyError("the image holds NaN or infinite values", where=str(path), fix="replace them with the value of air")
    if is_ct(sequence) and float(image.voxels.min()) > DARKEST_FAT_HU:
        raise AnatomyError(
            "not a CT in Hounsfield units: nothing in it is as dark as fat or air",
            where=str(path),
            found=f"smallest value {float(image.voxels.min()):g}",
            fix="for magnetic resonance name the sequence (--sequence mri_t1); for CT apply the rescale intercept first",
        )
    return image


def map_scan(scan: Scan, mapping: LabelMapping, split_sides: bool, drop_unknown: bool, notes: list[str]) -> np.ndarray:
    """The voxels in the mapping's vocabulary; sides and vertebra numbers settled."""
    midline = _midline(scan, mapping) if split_sides and mapping.sides else None
    voxels = apply_mapping(scan.voxels, mapping, drop_unknown, midline)
    if midline is not None:
        notes.append(f"labels without a side were divided at the midline, x index {midline:.1f}")
    present = [source for source in sorted(mapping.unnumbered) if (scan.voxels == source).any()]
    if present:
        discs = [source for source, name in mapping.names.items() if "disc" in name.lower()]
        notes.append(number_vertebrae(voxels, mapping.table[present[0]], np.isin(scan.voxels, discs), scan.spacing))
    return voxels


def _midline(scan: Scan, mapping: LabelMapping) -> float:
    sided = LabelMapping(mapping.name, mapping.vocabulary, mapping.table, mapping.names)
    known = apply_mapping(scan.voxels, sided, drop_unknown=True)
    label_map = LabelMap(known, scan.affine, mapping.vocabulary)
    return midline_index(take_census(label_map), mapping.vocabulary, known.shape[0])


def _check_sides(label_map: LabelMap, census: LabelCensus, allow_mirrored: bool, notes: list[str]) -> None:
    wrong = mirrored_labels(census, label_map.vocabulary)
    if not wrong:
        return
    if not allow_mirrored:
        raise AnatomyError(
            "left and right are exchanged in this map",
            found=", ".join(wrong[:6]),
            allowed="labels named right at the patient's right",
            fix="say what the ids mean (--mapping), repair the orientation in the file's header, "
            "or accept the map as it is (--allow-mirrored)",
        )
    notes.append("left and right are exchanged in this map: " + ", ".join(wrong[:6]))


def _check_scale(label_map: LabelMap, census: LabelCensus, notes: list[str]) -> None:
    pitch = vertebra_spacing(census, label_map.spacing, label_map.size[2]) if label_map.vocabulary.name == "maisi" else None
    lumbar = [label for label in range(33, 38) if label in census.entries]
    lowest = 25.0 if len(lumbar) >= 3 else VERTEBRA_PITCH_MM[0]
    if pitch is not None and not lowest <= pitch <= VERTEBRA_PITCH_MM[1]:
        notes.append(f"the vertebrae lie {pitch:.1f} mm apart: the spacing in the header may be wrong (--spacing-scale)")


def _mixed(label_map: LabelMap) -> tuple[int, ...]:
    return (BODY,) if label_map.vocabulary.name == "maisi" else ()


def _is_outermost(voxels: np.ndarray, label: int) -> bool:
    """Whether ``label`` is most of what borders on background along x and y: a drawn body, not some muscles called body."""
    borders = on_label = 0
    for axis in (0, 1):
        near, far = (np.take(voxels, range(start, voxels.shape[axis] - 1 + start), axis=axis) for start in (0, 1))
        edge = (near == 0) != (far == 0)
        borders += int(np.count_nonzero(edge))
        on_label += int(np.count_nonzero(np.maximum(near, far)[edge] == label))
    return on_label >= OUTERMOST_FRACTION * borders


def with_envelope(
    label_map: LabelMap, census: LabelCensus, image: Scan | None, sequence: str, envelope: Envelope, notes: list[str]
) -> tuple[LabelMap, LabelCensus]:
    """The label map with label 200 around its labels (its voxels are changed), and its census; both as they are where
    nothing is to be done.

    image: on the same grid; what it does not show is drawn from the labels. envelope: see :func:`import_template`. What was
    guessed is added to ``notes``.
    """
    if label_map.vocabulary.name != "maisi" or envelope == "none":
        return label_map, census
    if envelope == "auto" and BODY in census.entries and _is_outermost(label_map.voxels, BODY):
        return label_map, census
    voxels, spacing = label_map.voxels, label_map.spacing
    if image is None or envelope == "labels":
        inside = envelope_from_labels(voxels, spacing)
        notes.append("the body around the labels was drawn from the labels alone: the skin line is a guess")
    elif is_ct(sequence):
        has_lungs = not LUNGS.isdisjoint(census.entries)
        inside = envelope_from_ct(voxels, image.voxels, spacing, has_lungs)
    else:
        inside = envelope_from_mr(voxels, image.voxels, spacing)
    unnamed = inside & (voxels == 0)
    voxels[unnamed] = BODY
    if image is not None and is_ct(sequence):
        gas_ml = np.count_nonzero(unnamed & (image.voxels < AIR_HU)) * float(np.prod(spacing)) / 1000.0
        if gas_ml >= 100.0:
            notes.append(f"{gas_ml:.0f} mL of gas inside the body has no label and became body")
    return label_map, take_census(label_map)
