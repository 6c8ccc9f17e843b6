"""Which cases of a manifest can be made at all: asked of every kind of row before any work is done."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ctmr_core.anatomy.templates.library import TemplateLibrary
from ctmr_core.cases.bodies import PARAMETRIC_VOCABULARY
from ctmr_core.cases.case import Case
from ctmr_core.cases.feasibility import refuse_case
from ctmr_core.cases.manifest import Manifest
from ctmr_core.engines import Engine, load_engine
from ctmr_core.engines.bodies import refuse_body
from ctmr_core.errors import CtmrError, ManifestError
from ctmr_core.quality.agreement import read_segmenters
from ctmr_core.quality.judge import agreement_for, validate_checks


class Examiner:
    """Asks template library, anatomy, engine and checks about cases.

    library: where templates are. needs_library: whether a case with a template is refused when there is no library;
    otherwise what only the template could tell is left open. segmenters: those that are at hand, as
    ``quality.agreement.written_segmenters`` gives them; None leaves open whether those are there that a case asks for.
    """

    def __init__(self, library: TemplateLibrary | None, *, needs_library: bool = True, segmenters: str | None = None) -> None:
        self._library, self._needs_library = library, needs_library
        self._needs_segmenters = segmenters is not None
        self._agreement = read_segmenters(segmenters) if segmenters else None
        self._engines: dict[str, Engine] = {}

    def examine(self, case: Case) -> None:
        """Raise the ``CtmrError`` that says why this case can't be made."""
        vocabulary = self._vocabulary(case)
        if vocabulary:
            refuse_case(case, vocabulary)
        if case.engine not in self._engines:
            self._engines[case.engine] = load_engine(case.engine)
        refuse_body(case, self._engines[case.engine])
        self._engines[case.engine].validate(case)
        validate_checks(case.checks)
        if self._needs_segmenters:
            agreement_for(case, self._agreement)

    def _vocabulary(self, case: Case) -> str:
        """The vocabulary of the case's body; "" where only a library could tell."""
        if case.template_id is None:
            return PARAMETRIC_VOCABULARY.get(case.body.removeprefix("parametric:"), "")
        if self._library is None:
            if not self._needs_library:
                return ""
            raise ManifestError(
                "the case needs a template, and there is no template library",
                where="field body",
                found=case.body,
                fix="give the folder with --library or CTMR_TEMPLATES; fill it with `ctmr templates import`",
            )
        row = self._library.row(case.template_id)
        if case.template_digest not in ("", row.digest):
            raise ManifestError(
                "the template has changed since the manifest was planned",
                where="field template_digest",
                found=case.template_digest[:12],
                allowed=row.digest[:12],
                fix="plan the recipe again (changed cases are made anew), or use the library it was planned with",
            )
        return row.vocabulary


def admit(manifest: Manifest, examiner: Examiner, *, skip_invalid: bool) -> tuple[Manifest, list[CtmrError]]:
    """The manifest without the rows that can't be made, and why not; without ``skip_invalid`` the first refusal is raised.

    One row of each combination is asked about; only when one is refused and skipped is every row asked about.
    """
    refused = False
    for case in manifest.distinct_cases():
        try:
            examiner.examine(case)
        except CtmrError as error:
            if not skip_invalid:
                raise _located(error, manifest, case) from error
            refused = True
            break
    if not refused:
        return manifest, []
    keep = np.ones(manifest.rows, bool)
    errors: list[CtmrError] = []
    for row, case in enumerate(manifest.iter_cases()):
        try:
            examiner.examine(case)
        except CtmrError as error:
            keep[row] = False
            errors.append(_located(error, manifest, case))
    return replace(manifest, table=manifest.table.filter(pa.array(keep))), errors


def _located(error: CtmrError, manifest: Manifest, case: Case) -> CtmrError:
    row = pc.index(manifest.table["case_id"], case.case_id).as_py() + 1
    place = f"{manifest.source or 'manifest'} row {row}"
    named = (error.where or "").startswith(f"case {case.case_id}")
    return error.located(place if named else f"{place}, case {case.case_id}")
