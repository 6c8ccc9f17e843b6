"""Before any work: read and check the manifest, take the dataset, and find out what is to do and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from ctmr_core.anatomy.templates.library import TemplateLibrary
from ctmr_core.cases.case import Case
from ctmr_core.cases.manifest import Manifest, read_manifest
from ctmr_core.engines import Engine, engine_identity, load_engine
from ctmr_core.errors import CtmrError, ManifestError
from ctmr_core.quality.judge import validate_checks
from ctmr_core.store import Dataset, sweep
from ctmr_core.store.catalog import compact, seal_missing
from ctmr_core.store.lock import RunLock
from ctmr_core.store.resume import Resume, resume, unsealed_commits
from pipelines.factory.ledger import CaseLedger
from pipelines.factory.work import OutcomeStatus
from pipelines.flows.options import GenerateOptions

#: Up to this many cases the volumes no commit names are looked for before each run; listing more takes minutes.
SWEPT_ROWS = 100_000
#: What decides whether an engine can render a row; rows that agree in all of it are checked once.
DECISIVE = ("engine", "engine_parameters", "sequences", "checks", "body", "size", "spacing")


@dataclass
class Backlog:
    """What one run has to do. Holds the dataset's lock while it is open: use as a context manager.

    planned: cases of the manifest. done: those committed before this run. reasons: why the others are to do.
    """

    manifest: Manifest
    dataset: Dataset
    lock: RunLock
    resume: Resume
    limit: int | None
    skipped_rows: list[str]
    library: str | None

    def __post_init__(self) -> None:
        self._ledger = CaseLedger(self.dataset.storage)
        self._todo = self.resume.todo[: self.limit]
        self.reasons = Counter(todo.why for todo in self._todo)

    def __enter__(self) -> Backlog:
        return self

    def __exit__(self, *error: object) -> None:
        self.lock.release()

    @property
    def planned(self) -> int:
        return self.manifest.rows

    @property
    def done(self) -> int:
        """Cases that need nothing: committed, or in quarantine until someone lets them out."""
        return self.resume.done + len(self.resume.quarantined)

    @property
    def to_do(self) -> int:
        return len(self._todo)

    def cases(self) -> Iterator[Case]:
        """The cases to make, in the order of the manifest, built as they are asked for."""
        for todo in self._todo:
            yield self.manifest.case(todo.position)

    def decided(self, case: Case) -> OutcomeStatus | None:
        return self._ledger.decided(case)

    def quarantine(self, case: Case, reason: str) -> None:
        self._ledger.record_failure(case, case.max_attempts, reason, "", status="quarantined")

    def seal(self) -> None:
        """Seal what a crash left unsealed and merge small catalog files."""
        self.dataset.refresh()
        seal_missing(self.dataset.storage, unsealed_commits(self.dataset))
        compact(self.dataset.storage)


def prepare(options: GenerateOptions) -> Backlog:
    """Everything that can be refused is refused here, before a cluster is started or a voxel made."""
    manifest = read_manifest(options.manifest, skip_invalid=options.skip_invalid)
    skipped = [str(error) for error in manifest.skipped]
    library_path = options.library or manifest.metadata.get("library")
    library = TemplateLibrary.open(library_path) if library_path and Path(library_path).is_dir() else None
    manifest, refused = _checked(manifest, library, options.skip_invalid)
    manifest = manifest.completed(engine_identity, (lambda name: library.row(name).digest) if library else None)
    dataset = Dataset.create(options.dataset)
    lock = RunLock(dataset.storage).acquire()
    try:
        plan = manifest.table.append_column("case_key", pa.array(manifest.case_keys(), pa.string()))
        dataset.adopt(plan)
        found = resume(dataset, plan)
        if manifest.rows <= SWEPT_ROWS:
            sweep(dataset)  # voxels that killed attempts left behind; nobody else writes while we hold the lock
    except BaseException:
        lock.release()
        raise
    return Backlog(manifest, dataset, lock, found, options.limit, skipped + refused, library_path if library else None)


def _checked(manifest: Manifest, library: TemplateLibrary | None, skip_invalid: bool) -> tuple[Manifest, list[str]]:
    """The manifest without the rows that can't be made, and their errors; the first error is raised unless skipping."""
    engines: dict[str, Engine] = {}
    verdicts: dict[tuple[str, ...], CtmrError | None] = {}
    columns = [manifest.table[name].to_pylist() for name in DECISIVE]
    bad: list[int] = []
    refused: list[str] = []
    for row, values in enumerate(zip(*columns, strict=True)):
        decisive = tuple(str(value) for value in values)
        if decisive not in verdicts:
            verdicts[decisive] = _refusal(manifest.case(row), engines, library)
        error = verdicts[decisive]
        if error is None:
            continue
        located = error.located(f"{manifest.source or 'manifest'} row {row + 1}, case {manifest.table['case_id'][row].as_py()}")
        if not skip_invalid:
            raise located
        bad.append(row)
        refused.append(str(located))
    for engine in engines.values():
        engine.close()
    if not bad:
        return manifest, refused
    keep = np.ones(manifest.rows, bool)
    keep[bad] = False
    return replace(manifest, table=manifest.table.filter(pa.array(keep))), refused


def _refusal(case: Case, engines: dict[str, Engine], library: TemplateLibrary | None) -> CtmrError | None:
    """Why this case can't be made, or None."""
    checks: list[Callable[[], object]] = [
        lambda: _engine(case.engine, engines).validate(case),
        lambda: validate_checks(case.checks),
        lambda: _check_template(case, library),
    ]
    for check in checks:
        try:
            check()
        except CtmrError as error:
            return error
    return None


def _engine(name: str, engines: dict[str, Engine]) -> Engine:
    if name not in engines:
        engines[name] = load_engine(name)
    return engines[name]


def _check_template(case: Case, library: TemplateLibrary | None) -> None:
    if case.template_id is None:
        return
    if library is None:
        raise ManifestError(
            "the case needs a template, and there is no template library",
            where="field body",
            found=case.body,
            fix="give the folder with --library or CTMR_TEMPLATES; fill it with `ctmr templates import`",
        )
    digest = library.row(case.template_id).digest
    if case.template_digest not in ("", digest):
        raise ManifestError(
            "the template has changed since the manifest was planned",
            where="field template_digest",
            found=case.template_digest[:12],
            allowed=digest[:12],
            fix="plan the recipe again (changed cases are made anew), or use the library it was planned with",
        )
