"""The label map of a case, whoever makes it: template library, parametric body, or the case's engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ctmr_core.anatomy.label_map import LabelMap
from ctmr_core.cases.case import Case
from ctmr_core.cases.label_maps import build_label_map
from ctmr_core.engines.base import BodyEngine, Engine
from ctmr_core.errors import EngineError

if TYPE_CHECKING:
    from ctmr_core.anatomy.templates.library import TemplateLibrary


def label_map_of(case: Case, library: TemplateLibrary | None, engine: Engine, attempt: int) -> tuple[LabelMap, dict[str, Any]]:
    """The label map of ``case`` with its lesions, and how it came about.

    The record is JSON-able: ``lesions``, one record each, and of a generated body ``body``, how the engine made it.
    Raises ``EngineError`` where the engine does not make the body, and what ``build_label_map`` and the engine raise.
    """
    if not case.is_generated:
        label_map, lesions = build_label_map(case, library, attempt)
        return label_map, {"lesions": lesions}
    label_map, (body, *lesions) = body_engine(case, engine).body(case, attempt)
    return label_map, {"body": body, "lesions": lesions}


def refuse_body(case: Case, engine: Engine) -> None:
    """``EngineError`` for a generated body that the engine does not make."""
    if case.is_generated:
        body_engine(case, engine)


def body_engine(case: Case, engine: Engine) -> BodyEngine:
    """``engine``, as the maker of the generated body of ``case``; ``EngineError`` where it makes no such body."""
    made = engine.bodies if isinstance(engine, BodyEngine) else frozenset()
    if isinstance(engine, BodyEngine) and case.body in made:
        return engine
    raise EngineError(
        f"{engine.name} does not make this body",
        where="field body",
        found=case.body,
        allowed=sorted(made) or "parametric:<kind>, template:<template id>; it makes no bodies of its own",
        fix=None if made else "use an engine that makes label maps, for example rflow-ct",
    )
