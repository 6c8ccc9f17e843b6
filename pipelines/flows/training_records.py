"""What became of the training on each night's snapshot: one small record, kept with the dataset.

::

    trainings/<schedule>/<snapshot>.json    the record
    trainings/<schedule>/running.json       the process of the last run, to tell whether it still lives
"""

from __future__ import annotations

import datetime as dt
from typing import Literal

from pydantic import BaseModel, ConfigDict

from ctmr_core.store.storage import Storage
from pipelines.flows.nightly_records import RunningProcess, claim, running

TRAININGS = "trainings"
TrainingState = Literal["begun", "finished", "given up"]


class TrainingRecord(BaseModel):
    """snapshot: what it trains on. folder: the run folder. attempts: times it was begun after a failure or anew.

    step: the last one. score: mean Dice over classes and volumes at the end, None without a validation.
    weights: file it started from, None for weights drawn anew or the configuration's. trained: file with those it ended with.
    problem: why it did not finish. flow_run: who had it last.
    """

    model_config = ConfigDict(frozen=True)

    snapshot: str
    state: TrainingState
    folder: str = ""
    attempts: int = 0
    step: int = 0
    score: float | None = None
    weights: str | None = None
    trained: str | None = None
    problem: str | None = None
    flow_run: str | None = None
    begun: dt.datetime | None = None
    ended: dt.datetime | None = None

    @property
    def over(self) -> bool:
        """Whether nothing more is to be done."""
        return self.state != "begun"


class TrainingRecords:
    """The trainings of one schedule, in the dataset at ``storage``."""

    def __init__(self, storage: Storage, schedule: str) -> None:
        self.storage, self._folder = storage, f"{TRAININGS}/{schedule}"

    def all(self) -> dict[str, TrainingRecord]:
        """Every record by snapshot."""
        names = [entry.name for entry in self.storage.list(self._folder)]
        found = [self._read(name) for name in sorted(names) if name.endswith(".json") and not name.endswith("/running.json")]
        return {record.snapshot: record for record in found}

    def get(self, snapshot: str) -> TrainingRecord | None:
        try:
            return self._read(f"{self._folder}/{snapshot}.json")
        except FileNotFoundError:
            return None

    def last_weights(self, besides: str) -> str | None:
        """File with the weights of the training that finished last, but for that on snapshot ``besides``; None if none has."""
        ended = {
            record.ended: record.trained
            for record in self.all().values()
            if record.state == "finished" and record.snapshot != besides and record.ended and record.trained
        }
        return ended[max(ended)] if ended else None

    def write(self, record: TrainingRecord) -> TrainingRecord:
        self.storage.write(f"{self._folder}/{record.snapshot}.json", record.model_dump_json(indent=1).encode())
        return record

    def claim(self, flow_run: str) -> None:
        """Say that this process trains now."""
        claim(self.storage, self._folder, flow_run)

    def running(self) -> RunningProcess | None:
        """Who said so last."""
        return running(self.storage, self._folder)

    def _read(self, name: str) -> TrainingRecord:
        return TrainingRecord.model_validate_json(self.storage.read(name))
