"""Before any work: read and check the manifest, take the dataset, and find out what is to do and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import InitVar, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ctmr_core.anatomy.templates.library import TemplateLibrary
from ctmr_core.assessment.layout import keep_segmenters
from ctmr_core.assessment.targets import keep_targets
from ctmr_core.cases.case import Case
from ctmr_core.cases.manifest import Manifest, read_manifest
from ctmr_core.engines import body_digest, engine_identity
from ctmr_core.store import Dataset, sweep
from ctmr_core.store.catalog import seal_missing
from ctmr_core.store.lock import RunLock
from ctmr_core.store.resume import Resume, resume
from pipelines.factory.ledger import CaseLedger
from pipelines.factory.work import OutcomeStatus
from pipelines.flows.admission import Examiner, admit
from pipelines.flows.options import GenerateOptions
from pipelines.flows.policies import SEGMENTERS
from pipelines.flows.sealing import CatalogKeeper, recover

#: Up to this many cases the volumes no commit names are looked for before each run; listing more takes minutes.
SWEPT_ROWS = 100_000


@dataclass
class Backlog:
    """What one run has to do. Holds the dataset's lock while it is open: use as a context manager.

    planned: cases of the manifest. done: those committed before this run. reasons: why the others are to do.
    """

    manifest: Manifest
    dataset: Dataset
    lock: RunLock
    resume: InitVar[Resume]
    limit: int | None
    skipped_rows: list[str]
    library: str | None
    plan: InitVar[pa.Table]

    def __post_init__(self, resume: Resume, plan: pa.Table) -> None:
        self._catalog = CatalogKeeper(self.dataset, self.lock, plan.select(["case_id", "case_key"]))
        self._handed_out = 0
        self._ledger = CaseLedger(self.dataset.storage)
        todo = resume.todo[: self.limit]
        self._positions = todo.positions
        self.reasons = Counter(todo.reasons)
        #: Cases that need nothing: committed, or in quarantine until someone lets them out.
        self.done = resume.done + len(resume.quarantined)

    def __enter__(self) -> Backlog:
        return self

    def __exit__(self, *error: object) -> None:
        self._catalog.close()
        self.lock.release()

    @property
    def planned(self) -> int:
        return self.manifest.rows

    @property
    def to_do(self) -> int:
        return len(self._positions)

    @property
    def segmenters(self) -> str:
        """What the manifest brings along to judge its cases by, see ``ActorSettings``."""
        return self.manifest.metadata.get(SEGMENTERS, "")

    @property
    def engines(self) -> tuple[str, ...]:
        """The engines the manifest names."""
        return tuple(sorted(pc.unique(self.manifest.table["engine"]).to_pylist()))

    def cases(self) -> Iterator[Case]:
        """The cases to make, in the order of the manifest, built as they are asked for."""
        positions = self._positions
        if len(positions):
            self._catalog.begin()
        for run in np.split(positions, np.flatnonzero(np.diff(positions) != 1) + 1) if len(positions) else ():
            for case in self.manifest.iter_cases(int(run[0]), int(run[-1]) + 1):
                self._handed_out += 1
                yield case

    def rows_to_do(self) -> pa.Table:
        """Their rows of the manifest."""
        return self.manifest.table.take(pa.array(self._positions))

    def decided(self, case: Case) -> OutcomeStatus | None:
        return self._ledger.decided(case)

    def has_failed(self, case: Case) -> bool:
        return self._ledger.has_failed(case)

    def quarantine(self, case: Case, reason: str) -> None:
        self._ledger.record_failure(case, case.max_attempts, reason, "", status="quarantined")

    def seal(self) -> None:
        """Seal what this run's cases left unsealed and merge small catalog files."""
        self._catalog.finish(self._positions[: self._handed_out])


def prepare(options: GenerateOptions) -> Backlog:
    """Everything that can be refused is refused here, before a cluster is started or a voxel made."""
    manifest = read_manifest(options.manifest, skip_invalid=options.skip_invalid)
    skipped = [str(error) for error in manifest.skipped]
    library_path = options.library or manifest.metadata.get("library")
    library = TemplateLibrary.open(library_path) if library_path and Path(library_path).is_dir() else None
    segmenters = manifest.metadata.get(SEGMENTERS, "")
    manifest, refused = admit(manifest, Examiner(library, segmenters=segmenters), skip_invalid=options.skip_invalid)
    skipped += [str(error) for error in refused]
    digest_of = (lambda name: library.row(name).digest) if library else None
    manifest = manifest.completed(engine_identity, digest_of, body_digest)
    dataset = Dataset.create(options.dataset)
    lock = RunLock(dataset.storage).acquire()
    with ExitStack() as on_error:
        on_error.callback(lock.release)
        plan = manifest.table.append_column("case_key", pa.array(manifest.case_keys(), pa.string()))
        dataset.adopt(plan)
        if segmenters:
            keep_segmenters(dataset.storage, segmenters)
        if targets := manifest.metadata.get("targets"):
            keep_targets(dataset.storage, targets)
        recover(dataset)
        found = resume(dataset, plan, crashed=False)
        seal_missing(dataset.storage, found.unsealed)
        if manifest.rows <= SWEPT_ROWS:
            sweep(dataset)  # voxels that killed attempts left behind; nobody else writes while we hold the lock
        on_error.pop_all()
    return Backlog(manifest, dataset, lock, found, options.limit, skipped, library_path if library else None, plan)
