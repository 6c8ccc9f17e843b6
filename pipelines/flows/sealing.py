"""The catalog of a run's dataset: whole when the run begins, small while it goes on, whole when it ends."""

from __future__ import annotations

import logging
import threading

import numpy as np
import pyarrow as pa

from ctmr_core.errors import CtmrError
from ctmr_core.store import Dataset
from ctmr_core.store.catalog import seal_missing
from ctmr_core.store.compaction import compact, compact_if_due
from ctmr_core.store.lock import RunLock
from ctmr_core.store.resume import close_runs, open_run, runs_left_open, unsealed_among, unsealed_commits

LOG = logging.getLogger(__name__)

LOOK_SECONDS = 20.0


def recover(dataset: Dataset) -> int:
    """Seal what runs that were killed had committed; how many cases. All commit names are listed if there was such a run only."""
    marks = runs_left_open(dataset.storage)
    if not marks:
        return 0
    refs = unsealed_commits(dataset)
    seal_missing(dataset.storage, refs)
    close_runs(dataset.storage, marks)
    dataset.refresh()
    return len(refs)


class CatalogKeeper:
    """Merges the small catalog files of a run while it goes on, beside it, and seals at its end what no unit could seal.

    plan: columns case_id and case_key of the run's manifest.
    """

    def __init__(self, dataset: Dataset, lock: RunLock, plan: pa.Table, look_seconds: float = LOOK_SECONDS) -> None:
        self._dataset, self._lock, self._plan, self._look_seconds = dataset, lock, plan, look_seconds
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """From now on cases are committed."""
        open_run(self._dataset.storage, self._lock.holder.token)
        self._thread = threading.Thread(target=self._merge, name="catalog keeper", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """No more merging beside the run."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def finish(self, positions: np.ndarray) -> None:
        """Seal what the cases at these rows of the plan left unsealed, and merge. Looks at no other case."""
        self.close()
        self._dataset.refresh()
        if len(positions):
            seal_missing(self._dataset.storage, unsealed_among(self._dataset, self._plan, positions))
        compact(self._dataset.storage)
        close_runs(self._dataset.storage, runs_left_open(self._dataset.storage))
        self._dataset.refresh()

    def _merge(self) -> None:
        while not self._stop.wait(self._look_seconds) and not self._lock.lost:
            try:
                compact_if_due(self._dataset.storage)
            except (CtmrError, OSError) as error:  # the run goes on; the next look or the end of the run tries again
                LOG.warning("the catalog could not be compacted: %s", error)
