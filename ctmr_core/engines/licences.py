"""Under which licences a case stands: those of the weights and of the template it is made from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ctmr_core.cases.case import Case
from ctmr_core.engines.base import Engine, LicensedEngine

if TYPE_CHECKING:
    from ctmr_core.anatomy.templates.library import TemplateLibrary


def licences_of(case: Case, engine: Engine, library: TemplateLibrary | None) -> tuple[str, ...]:
    """Names of the licences, each once: of the engine's weights, then of the template, as its import was told."""
    names = list(engine.licences_of(case)) if isinstance(engine, LicensedEngine) else []
    if library is not None and case.template_id is not None:
        names.append(library.row(case.template_id).licence)
    return tuple(dict.fromkeys(name for name in names if name))
