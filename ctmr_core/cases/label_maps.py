"""The label map of a case: its body on its grid, with its lesions. Where recipe words become anatomy."""

from __future__ import annotations

import dataclasses
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ctmr_core.anatomy.deformation import DisplacementField, random_displacement
from ctmr_core.anatomy.field_of_view import Triple, center_of
from ctmr_core.anatomy.grid import Grid
from ctmr_core.anatomy.label_map import LabelMap
from ctmr_core.anatomy.lesions import insert_lesion
from ctmr_core.anatomy.parametric.base import ParametricBody
from ctmr_core.anatomy.pose import Pose, PoseField, lost_structures
from ctmr_core.anatomy.regions import center_labels
from ctmr_core.anatomy.resample import resample
from ctmr_core.anatomy.tissue_map import with_tissues
from ctmr_core.anatomy.vocabulary import load_vocabulary
from ctmr_core.cases.case import UNLABELLED_REGIONS, Case
from ctmr_core.cases.seeds import body_rng, case_rng
from ctmr_core.errors import AnatomyError, ManifestError

if TYPE_CHECKING:
    from ctmr_core.anatomy.templates.library import TemplateLibrary

_KEPT = 2  # bodies and templates kept between cases: neighbours often share one; a template can take 130 MB
_COMPARED = 64  # voxels per axis of the map in which a turned body is compared with the body as it lies


def build_label_map(case: Case, library: TemplateLibrary | None, attempt: int) -> tuple[LabelMap, list[dict[str, Any]]]:
    """The label map of ``case`` (labels and tissues, ``case.size`` voxels of ``case.spacing``) and a record per lesion.

    library: where templates come from; may be None for parametric bodies. attempt: counts from 0.

    The body, its warp and its tissues depend on ``body`` and ``body_seed`` only (and ``deformation`` and ``pose``), so the same
    body is the same person in every case and attempt; place and shape of lesions depend on case and attempt.
    Raises ``ManifestError`` for generated bodies (``engines.bodies.label_map_of`` asks the engine), and when the template is not
    there or not the one that was planned; ``AnatomyError`` when the anatomy cannot be made (a centre that is not in view, a
    lesion that does not fit, a pose that turns structures out of the field of view).
    """
    if case.unlabelled_region is not None:
        return _unlabelled(case, case.unlabelled_region), []
    if case.is_generated:
        raise ManifestError(
            "the engine makes this body",
            where=f"case {case.case_id}, field body",
            found=case.body,
            allowed="parametric:<kind>, template:<template id>, unlabelled:<region>",
        )
    label_map = _parametric(case) if case.template_id is None else _from_template(case, library)
    return with_lesions(case, label_map, attempt)


def with_lesions(case: Case, label_map: LabelMap, attempt: int) -> tuple[LabelMap, list[dict[str, Any]]]:
    """The label map with the lesions of ``case``, and a record per lesion; place and shape depend on case and attempt."""
    records: list[dict[str, Any]] = []
    for index, lesion in enumerate(case.lesions):
        rng = case_rng(case.key, attempt, f"lesion/{index}")
        label_map, record = insert_lesion(label_map, lesion.label, lesion.diameter, rng)
        records.append(dataclasses.asdict(record))
    return label_map, records


def _unlabelled(case: Case, region: str) -> LabelMap:
    """All background: the engine draws an anatomy that nobody has labelled."""
    vocabulary = load_vocabulary(UNLABELLED_REGIONS[region])
    return LabelMap(np.zeros(case.size, vocabulary.dtype), Grid.centred(case.size, case.spacing).affine, vocabulary)


def _parametric(case: Case) -> LabelMap:
    body = parametric_body(case.body, case.body_seed)
    center = body.center_mm(case.center)
    if not case.pose:
        return body.label_map(Grid.centred(case.size, case.spacing, center))
    pose, pivot = Pose(*case.pose), body.center_mm("")
    wanted = Grid.centred(case.size, case.spacing, pose.placed(center, pivot))
    lying = _grid_of_turned(wanted, pose, pivot)
    start = np.asarray(lying.origin)
    index = _triple((np.asarray(pose.placed(center, pivot)) - start) / lying.spacing)
    posed = resample(body.label_map(lying), case.size, case.spacing, index, PoseField(pose, _triple(pivot - start)))
    size, spacing = _coarse(case)
    return _nothing_lost(case, body.label_map(Grid.centred(size, spacing, center)), posed)


def _grid_of_turned(wanted: Grid, pose: Pose, pivot: tuple[float, float, float]) -> Grid:
    """The smallest grid of cubic voxels in the body's own space that holds what ``wanted`` shows of the turned body.

    As many voxels per volume as ``wanted`` has.
    """
    side = float(np.cbrt(np.prod(wanted.spacing)))
    low = np.asarray(wanted.origin) - np.asarray(wanted.spacing) / 2
    ends = np.stack([low, low + np.asarray(wanted.extent_mm)])
    corners = [pose.origin_of((x, y, z), pivot) for x in ends[:, 0] for y in ends[:, 1] for z in ends[:, 2]]
    start, stop = np.min(corners, axis=0) - 2 * side, np.max(corners, axis=0) + 2 * side
    nx, ny, nz = (int(np.ceil(length / side)) for length in stop - start)
    return Grid((nx, ny, nz), (side, side, side), (float(start[0]), float(start[1]), float(start[2])))


def _coarse(case: Case) -> tuple[tuple[int, int, int], tuple[float, float, float]]:
    """A grid over the field of view of ``case`` with at most ``_COMPARED`` voxels per axis: size and spacing."""
    x, y, z = (-(-n // -(-n // _COMPARED)) for n in case.size)
    a, b, c = (n * mm / few for n, mm, few in zip(case.size, case.spacing, (x, y, z), strict=True))
    return (x, y, z), (a, b, c)


def _nothing_lost(case: Case, lying: LabelMap, posed: LabelMap) -> LabelMap:
    """``posed``; ``AnatomyError`` when it has lost structures that are whole in view of the body as it lies."""
    if lost := lost_structures(lying, posed):
        raise AnatomyError(
            "the pose turns structures out of the field of view",
            where=f"case {case.case_id}, field pose",
            found=lost[:6],
            fix="a larger field of view, or smaller angles",
        )
    return posed


@lru_cache(maxsize=_KEPT)
def parametric_body(body: str, body_seed: int) -> ParametricBody:
    """The person that ``parametric:torso`` or ``parametric:head`` with this seed is in every case."""

    def streams(name: str) -> np.random.Generator:
        return body_rng(body, body_seed, name)

    if body == "parametric:head":
        from ctmr_core.anatomy.parametric.head import parametric_head

        return parametric_head(streams)
    from ctmr_core.anatomy.parametric.torso import parametric_torso

    return parametric_torso(streams)


def _from_template(case: Case, library: TemplateLibrary | None) -> LabelMap:
    template_id = case.template_id or ""
    if library is None:
        raise ManifestError(
            "the case needs a template, and no template library was given",
            where=f"case {case.case_id}",
            found=case.body,
            fix="give the library the manifest was planned with",
        )
    digest = library.row(template_id).digest
    if case.template_digest and case.template_digest != digest:
        raise ManifestError(
            "the template is not the one the manifest was planned with",
            where=f"case {case.case_id}, template {template_id}",
            found=digest[:12],
            allowed=case.template_digest[:12],
            fix="plan the recipe again, or use the library it was planned with",
        )
    template = _template(library, template_id, digest)
    displacement = None
    if case.deformation > 0:
        extent = tuple(n * mm for n, mm in zip(template.size, template.spacing, strict=True))
        rng = body_rng(case.body, case.body_seed, "deformation")
        displacement = random_displacement((extent[0], extent[1], extent[2]), case.deformation, rng)
    center = _center_index(library, template_id, digest, case.center)
    if not case.pose:
        label_map = resample(template, case.size, case.spacing, center, displacement)
    else:
        pivot_index = _center_index(library, template_id, digest, "")
        label_map = _posed_template(case, template, center, pivot_index, displacement)
    return with_tissues(label_map, body_rng(case.body, case.body_seed, "tissues"))


def _posed_template(
    case: Case, template: LabelMap, center: Triple, pivot_index: Triple, warp: DisplacementField | None
) -> LabelMap:
    """The template turned about the middle of what it holds; the field of view follows its centre."""
    pose, mm = Pose(*case.pose), np.asarray(template.spacing)
    pivot, middle = (_triple(np.asarray(index) * mm) for index in (pivot_index, center))
    placed = _triple(np.asarray(pose.placed(middle, pivot)) / mm)
    posed = resample(template, case.size, case.spacing, placed, PoseField(pose, pivot, warp))
    size, spacing = _coarse(case)
    return _nothing_lost(case, resample(template, size, spacing, center, warp), posed)


def _triple(values: np.ndarray) -> Triple:
    x, y, z = (float(value) for value in values)
    return x, y, z


@lru_cache(maxsize=_KEPT)
def _template(library: TemplateLibrary, template_id: str, digest: str) -> LabelMap:  # noqa: ARG001 - a changed one is another
    return library.get(template_id)


@lru_cache(maxsize=1024)
def _center_index(library: TemplateLibrary, template_id: str, digest: str, center: str) -> tuple[float, float, float]:
    template = _template(library, template_id, digest)
    labels: tuple[int, ...] = ()
    if center:
        labels = center_labels(template.vocabulary, center, library.row(template_id).labels)
    return center_of(template, labels)
