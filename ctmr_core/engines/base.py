"""The contract of an engine: label map in, images out."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np

from ctmr_core.anatomy.label_map import LabelMap
from ctmr_core.cases.case import Case


class Images(dict[str, np.ndarray]):
    """sequence -> int16 image [x, y, z] on the label map's grid (CT in HU, MR in arbitrary units >= 0).

    ``parameters``: sequence -> JSON-able record of what was drawn (TR, TE, kernel, dose, field strength ...).
    """

    def __init__(self, *args: Any, parameters: dict[str, dict[str, Any]] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.parameters: dict[str, dict[str, Any]] = parameters or {}


@runtime_checkable
class Engine(Protocol):
    """Renders the images of one case. Implementations are found through the entry-point group ``ctmr.engines``.

    name, version: enter the case key. weights_digest: SHA-256 of the weights, "" for an engine without any.
    sequences: what it can render. vocabularies: which label maps it reads.
    """

    name: str
    version: str
    weights_digest: str
    sequences: frozenset[str]
    vocabularies: frozenset[str]

    def validate(self, case: Case) -> None:
        """Refuse (``EngineError``) a case this engine can't render, before any work is done."""
        ...

    def render(self, case: Case, label_map: LabelMap, attempt: int) -> Images:
        """All sequences of the case, the same bytes for the same (case.key, attempt) on any machine layout."""
        ...

    def close(self) -> None:
        """Release models and device memory."""
        ...


@runtime_checkable
class LicensedEngine(Protocol):
    """An engine whose images are made by weights that stand under licences."""

    def licences_of(self, case: Case) -> tuple[str, ...]:
        """Names of the licences of the weights that make ``case``, each once."""
        ...


@runtime_checkable
class BodyEngine(Protocol):
    """An engine that also makes the label maps of cases whose body begins with ``generated:``.

    bodies: the bodies it makes, for example ``generated:mask``.
    """

    bodies: frozenset[str]

    def body(self, case: Case, attempt: int) -> tuple[LabelMap, list[dict[str, Any]]]:
        """The label map on the case's grid, its lesions placed, and JSON-able records.

        The first record is of the body and has the key ``body``; the others are of the lesions of the case, in their order.
        The same bytes for the same (case.body, case.body_seed, engine_parameters, size, spacing, attempt); lesions may depend
        on case.key.
        """
        ...


@runtime_checkable
class SourcedBodyEngine(BodyEngine, Protocol):
    """A ``BodyEngine`` whose bodies are made of files that are no part of ``weights_digest``: networks, a bank."""

    def body_digest(self, body: str) -> str:
        """SHA-256 hex of what the body is made of, "" while it is missing; kept as the case's ``template_digest``."""
        ...
