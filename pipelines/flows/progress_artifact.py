"""The progress artifact of a flow run."""

from __future__ import annotations

import time

from prefect.artifacts import create_progress_artifact, update_progress_artifact

from pipelines.flows.tracking import Tracking

ARTIFACT_SECONDS = 10.0  # between two updates


class ProgressArtifact:
    """Keeps one Prefect progress artifact of the flow run up to date, seldom enough to cost nothing."""

    def __init__(self, tracking: Tracking, description: str) -> None:
        self._tracking, self._description = tracking, description
        self._id: object = None
        self._last = time.monotonic()
        tracking.tell(self._create)

    def _create(self) -> None:
        self._id = create_progress_artifact(progress=0.0, description=self._description)

    def show(self, done: int, planned: int) -> None:
        """``done`` of ``planned``; the last of them is always told."""
        if done < planned and time.monotonic() - self._last < ARTIFACT_SECONDS:
            return
        self._last = time.monotonic()
        percent = 100.0 * done / max(planned, 1)
        self._tracking.tell(lambda: update_progress_artifact(self._id, progress=percent))  # type: ignore[arg-type]
