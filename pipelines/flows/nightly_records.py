"""What became of each night: one small record and its manifest, kept with the dataset.

::

    nights/<schedule>/<date>.json       the record
    nights/<schedule>/<date>.parquet    the manifest of the night, written before the record and never changed
    nights/<schedule>/running.json      the process of the last run, to tell whether it still lives
"""

from __future__ import annotations

import datetime as dt
import os
import socket
import tempfile
from pathlib import Path
from typing import Literal

import psutil
from pydantic import BaseModel, ConfigDict

from ctmr_core.cases.manifest import Manifest
from ctmr_core.store.storage import Storage

NIGHTS = "nights"
NightState = Literal["begun", "finished", "left out", "given up"]


class NightRecord(BaseModel):
    """night: its date. number: nights planned before it. cases: rows of its manifest. attempts: times it was begun.

    counts: outcome of its cases. snapshot: the one made of it. problem: why it did not finish. flow_run: who had it last.
    """

    model_config = ConfigDict(frozen=True)

    night: dt.date
    state: NightState
    number: int = 0
    mode: str = ""
    recipe_digest: str = ""
    cases: int = 0
    attempts: int = 0
    counts: dict[str, int] = {}
    snapshot: str | None = None
    problem: str | None = None
    flow_run: str | None = None
    begun: dt.datetime | None = None
    ended: dt.datetime | None = None

    @property
    def over(self) -> bool:
        """Whether nothing more is to be done."""
        return self.state != "begun"


class RunningProcess(BaseModel):
    """The process of a flow run. process_started: seconds since the epoch, tells a reused pid apart."""

    model_config = ConfigDict(frozen=True)

    flow_run: str
    host: str
    pid: int
    process_started: float

    @classmethod
    def me(cls, flow_run: str) -> RunningProcess:
        return cls(flow_run=flow_run, host=socket.gethostname(), pid=os.getpid(), process_started=psutil.Process().create_time())

    @property
    def gone(self) -> bool:
        """Whether it was on this machine and lives no more."""
        if self.host != socket.gethostname():
            return False
        try:
            process = psutil.Process(self.pid)
            return process.status() == psutil.STATUS_ZOMBIE or abs(process.create_time() - self.process_started) >= 1.0
        except psutil.NoSuchProcess:
            return True
        except psutil.AccessDenied:
            return False


def claim(storage: Storage, folder: str, flow_run: str) -> None:
    """Say that this process is the one at work on what ``folder`` records."""
    storage.write(f"{folder}/running.json", RunningProcess.me(flow_run).model_dump_json().encode())


def running(storage: Storage, folder: str) -> RunningProcess | None:
    """Who said so last."""
    try:
        return RunningProcess.model_validate_json(storage.read(f"{folder}/running.json"))
    except FileNotFoundError:
        return None


class NightRecords:
    """The records of one schedule in the dataset at ``storage``."""

    def __init__(self, storage: Storage, schedule: str) -> None:
        self.storage, self._folder = storage, f"{NIGHTS}/{schedule}"

    def all(self) -> dict[dt.date, NightRecord]:
        """Every record by date."""
        names = [entry.name for entry in self.storage.list(self._folder)]
        found = [self._read(name) for name in sorted(names) if name.endswith(".json") and not name.endswith("/running.json")]
        return {record.night: record for record in found}

    def get(self, night: dt.date) -> NightRecord | None:
        try:
            return self._read(self._name(night, "json"))
        except FileNotFoundError:
            return None

    def write(self, record: NightRecord) -> NightRecord:
        self.storage.write(self._name(record.night, "json"), record.model_dump_json(indent=1).encode())
        return record

    def write_manifest(self, night: dt.date, manifest: Manifest) -> None:
        with tempfile.TemporaryDirectory(prefix="ctmr-night-") as folder:
            path = Path(folder) / "night.parquet"
            manifest.write(path)
            self.storage.write(self._name(night, "parquet"), path.read_bytes())

    def copy_manifest(self, night: dt.date, folder: Path) -> Path:
        """A copy of the manifest on this machine's disk."""
        path = folder / f"{night}.parquet"
        path.write_bytes(self.storage.read(self._name(night, "parquet")))
        return path

    def claim(self, flow_run: str) -> None:
        """Say that this process runs the schedule now."""
        claim(self.storage, self._folder, flow_run)

    def running(self) -> RunningProcess | None:
        """Who said so last."""
        return running(self.storage, self._folder)

    def _read(self, name: str) -> NightRecord:
        return NightRecord.model_validate_json(self.storage.read(name))

    def _name(self, night: dt.date, suffix: str) -> str:
        return f"{self._folder}/{night.isoformat()}.{suffix}"
