"""What a variant can't make is refused before any work, with advice on what it can."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ctmr_core.anatomy.sequences import MODALITY_CODES
from ctmr_core.cases.case import Case
from ctmr_core.engines.maisi.digests import hash_once
from ctmr_core.engines.maisi.models import MaisiModels
from ctmr_core.engines.maisi.parameters import MaisiParameters
from ctmr_core.engines.maisi.variants import CONTROLNET, FieldOfView, check_limits, variant
from ctmr_core.errors import EngineError

_NAMED_FIELDS_OF_VIEW = 4


def refuse_request(case: Case, name: str, sequences: Iterable[str], models: MaisiModels, parameters: MaisiParameters) -> None:
    """``EngineError`` for a body, sequence, size or spacing that the variant's networks can't make.

    ``limits: off`` leaves only what is impossible: bodies without a ControlNet, sizes that can't be halved.
    """
    _refuse_body(case, name, parameters)
    if parameters.limits:
        _refuse_sequences(case, name, sequences)
    multiple = models.size_multiple
    if any(n % multiple for n in case.size):
        raise EngineError(
            f"{name} makes volumes of multiples of {multiple} voxels", where="field size", found=case.size, fix=advice(name)
        )
    if not parameters.limits:
        return
    for sequence in case.sequences:
        try:
            check_limits(name, case.size, case.spacing, MODALITY_CODES[sequence], compat=parameters.compat)
        except EngineError as error:
            fix = "; ".join(text for text in (error.fix, advice(name)) if text)
            found = f"{'x'.join(map(str, case.size))} voxels at {'x'.join(f'{mm:g}' for mm in case.spacing)} mm, {sequence}"
            raise EngineError(error.what, where="fields size, spacing", found=found, allowed=error.allowed, fix=fix) from error


def advice(name: str) -> str:
    """The fields of view that a variant's weights saw most, most first."""
    seen = sorted(variant(name).fields_of_view, key=lambda view: -view.weight)[:_NAMED_FIELDS_OF_VIEW]
    return f"{name} was trained mostly on {', '.join(_described(view) for view in seen)}"


def _described(view: FieldOfView) -> str:
    if view.size is None or view.spacing is None:
        return f"{view.name} of {'x'.join(f'{mm:g}' for mm in view.extent_mm)} mm"
    size, spacing = ("x".join(f"{value:g}" for value in values) for values in (view.size, view.spacing))
    return f"{view.name} of {size} voxels at {spacing} mm"


def _refuse_body(case: Case, name: str, parameters: MaisiParameters) -> None:
    region = case.unlabelled_region
    useless = parameters.useless_settings(case.body)
    if useless:
        raise EngineError(
            "this setting is for other bodies",
            where=f"engine_parameters.{useless[0]}",
            found=case.body,
            allowed="generated:mask (anatomy, anatomy_sizes, mask_steps), generated:bank (anatomy, in_view, bank, bank_splits)",
        )
    chosen = variant(name)
    if region is None and CONTROLNET not in chosen.files:
        raise EngineError(
            f"{name} has no ControlNet and can't follow a label map",
            where="field body",
            found=case.body,
            allowed="unlabelled:<region>",
            fix="ask for bodies {unlabelled: head} (or another region), or render label maps with tissue, rflow-ct, ddpm-ct",
        )
    if case.body == "parametric:head":
        raise EngineError(
            f"{name} reads label maps of bodies (maisi vocabulary); parametric heads have the brain vocabulary",
            where="field body",
            found=case.body,
            allowed="parametric:torso, templates of the maisi vocabulary, unlabelled:<region>",
        )
    if name == "rflow-mr-brain" and region != "head" and parameters.limits:
        raise EngineError(f"{name} makes heads", where="field body", found=case.body, allowed="unlabelled:head")


def _refuse_sequences(case: Case, name: str, sequences: Iterable[str]) -> None:
    allowed = sorted(sequences, key=lambda sequence: MODALITY_CODES[sequence])
    for sequence in case.sequences:
        if sequence not in allowed:
            raise EngineError(f"{name} can't make this sequence", where="field sequences", found=sequence, allowed=allowed)


def refuse_other_file(path: Path, sha256: str) -> None:
    """``EngineError`` when the image to start from is not there, or not the file whose digest begins with ``sha256``."""
    if not path.is_file():
        raise EngineError("the image to start from is not there", where="engine_parameters.start.image", found=str(path))
    digest = hash_once(path)
    if not digest.startswith(sha256):
        raise EngineError(
            "the image to start from is not the file that is meant",
            where="engine_parameters.start.sha256",
            found=sha256,
            allowed=f"{digest[:16]} for {path}",
        )
