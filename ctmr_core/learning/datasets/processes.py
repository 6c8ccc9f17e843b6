"""Training data in several processes: what survives being sent to a worker, and what does not."""

from __future__ import annotations

import os

from ctmr_core.errors import LearningError


class Process:
    """The process an object belongs to: where it was made, or where it was sent to by pickling (spawn, forkserver).

    A forked process gets neither: its copy still belongs to the parent, whose reading threads it does not have.
    """

    def __init__(self) -> None:
        self._id = os.getpid()

    def __getstate__(self) -> dict[str, int]:
        return {}

    def __setstate__(self, state: dict[str, int]) -> None:
        self._id = os.getpid()

    def refuse_fork(self) -> None:
        """``LearningError`` in a process that was forked from the one the object belongs to."""
        if os.getpid() != self._id:
            raise LearningError(
                "training data is being read in a forked process, which lacks the threads that read",
                found="multiprocessing start method fork",
                allowed="spawn, forkserver",
                fix='use ctmr_core.learning.datasets.loader(...), or DataLoader(..., multiprocessing_context="spawn")',
            )
