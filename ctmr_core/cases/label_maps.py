"""The label map of a case: its body on its grid, with its lesions. Where recipe words become anatomy."""

from __future__ import annotations

import dataclasses
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ctmr_core.anatomy.deformation import random_displacement
from ctmr_core.anatomy.field_of_view import center_of
from ctmr_core.anatomy.grid import Grid
from ctmr_core.anatomy.label_map import LabelMap
from ctmr_core.anatomy.lesions import insert_lesion
from ctmr_core.anatomy.parametric.base import ParametricBody
from ctmr_core.anatomy.regions import center_labels
from ctmr_core.anatomy.resample import resample
from ctmr_core.anatomy.tissue_map import with_tissues
from ctmr_core.anatomy.vocabulary import load_vocabulary
from ctmr_core.cases.case import UNLABELLED_REGIONS, Case
from ctmr_core.cases.seeds import body_rng, case_rng
from ctmr_core.errors import ManifestError

if TYPE_CHECKING:
    from ctmr_core.anatomy.templates.library import TemplateLibrary

_KEPT = 2  # bodies and templates kept between cases: neighbours in a manifest often share one; a template can take 130 MB


def build_label_map(case: Case, library: TemplateLibrary | None, attempt: int) -> tuple[LabelMap, list[dict[str, Any]]]:
    """The label map of ``case`` (labels and tissues, ``case.size`` voxels of ``case.spacing``) and a record per lesion.

    library: where templates come from; may be None for parametric bodies. attempt: counts from 0.

    The body, its warp and its tissues depend on ``body`` and ``body_seed`` only, so the same body is the same person in every
    case and attempt; place and shape of lesions depend on case and attempt.
    Raises ``ManifestError`` for generated bodies (``engines.bodies.label_map_of`` asks the engine), and when the template is not
    there or not the one that was planned; ``AnatomyError`` when the anatomy cannot be made (a centre that is not in view, a
    lesion that does not fit).
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
    return body.label_map(Grid.centred(case.size, case.spacing, body.center_mm(case.center)))


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
    label_map = resample(template, case.size, case.spacing, center, displacement)
    return with_tissues(label_map, body_rng(case.body, case.body_seed, "tissues"))


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
