"""One run per dataset.

The lock is the highest ``lock/<generation>.json``; taking over from a dead holder means creating the next generation,
which only one process can do. Its time of last change is the heartbeat, compared with the clock of the storage that dates it,
not with this machine's. In an object store the heartbeat writes the object again, and may by that bring a generation back that
another run has just removed: a holder therefore looks for a higher generation after every beat, and gives way to it.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType

import psutil

from ctmr_core.errors import DatasetHeldError, StoreError
from ctmr_core.store import layout
from ctmr_core.store.drills import reach
from ctmr_core.store.storage import Storage, json_bytes, read_json

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 10.0
STALE_SECONDS = 120.0  # 12 missed heartbeats: longer than a paused machine or a slow disk, short for a person who waits


@dataclass(frozen=True)
class Holder:
    """Who holds a dataset. started: ISO 8601, UTC. process_started: seconds since the epoch, tells a reused pid apart."""

    host: str
    pid: int
    process_started: float
    started: str
    token: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} since {self.started}"


class RunLock:
    """Holds a dataset for one run, as a context manager: ``with RunLock(storage) as lock: ... lock.check()``.

    Raises ``StoreError`` naming the holder when another run has it. A holder whose process is gone (same host) or whose
    heartbeat is older than ``stale_seconds`` is taken over, with a warning in the log.
    """

    def __init__(
        self, storage: Storage, *, stale_seconds: float = STALE_SECONDS, heartbeat_seconds: float = HEARTBEAT_SECONDS
    ) -> None:
        self._storage = storage
        self._stale_seconds = stale_seconds
        self._heartbeat_seconds = heartbeat_seconds
        self._name: str | None = None
        self._stop = threading.Event()
        self._lost = threading.Event()
        self._beat: threading.Thread | None = None
        me = psutil.Process()
        self.holder = Holder(
            host=socket.gethostname(),
            pid=os.getpid(),
            process_started=me.create_time(),
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            token=uuid.uuid4().hex,
        )

    def acquire(self) -> RunLock:
        """Take the lock or raise ``StoreError``."""
        present = self._generations()
        for name in present:
            self._refuse_if_alive(name)
        generation = max((int(name.rpartition("/")[2].removesuffix(".json")) for name in present), default=0) + 1
        mine = f"{layout.LOCKS}/{generation:06d}.json"
        reach("lock.begin", mine)
        if not self._storage.create(mine, json_bytes(vars(self.holder))):
            self._refuse_if_alive(mine)
            raise self._refusal(mine, None)
        reach("lock.made", mine)
        try:
            for name in set(self._generations()) - {mine, *present}:
                self._refuse_if_alive(name)
        except StoreError:
            self._storage.delete(mine)
            raise
        for name in present:
            self._storage.delete(name)
        self._name = mine
        self._beat = threading.Thread(target=self._keep_alive, name="dataset lock heartbeat", daemon=True)
        self._beat.start()
        return self

    def release(self) -> None:
        """Give the lock back."""
        self._stop.set()
        if self._beat is not None:
            self._beat.join()
        if self._name is not None and not self._lost.is_set() and self._read(self._name) == self.holder:
            self._storage.delete(self._name)
        self._name = None

    @property
    def lost(self) -> bool:
        """Whether another run has taken the dataset over; noticed with the next heartbeat."""
        return self._lost.is_set()

    def check(self) -> None:
        """Raise ``StoreError`` when another run has taken the dataset over in the meantime."""
        if self._name is not None and not self._lost.is_set() and self._read(self._name) != self.holder:
            self._lost.set()
        if self._lost.is_set():
            raise StoreError(
                "the dataset was taken over by another run",
                where=self._storage.uri,
                fix="let the other run finish; what this one committed stays",
            )

    def __enter__(self) -> RunLock:
        return self.acquire()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.release()

    def _generations(self) -> list[str]:
        return [entry.name for entry in self._storage.list(layout.LOCKS)]

    def _read(self, name: str) -> Holder | None:
        try:
            return Holder(**read_json(self._storage, name))
        except FileNotFoundError:
            return None

    def _refuse_if_alive(self, name: str) -> None:
        holder, entry = self._read(name), self._storage.stat(name)
        if holder is None or entry is None:
            return
        silence = (self._storage.clock() - entry.modified).total_seconds()
        if holder.host == self.holder.host and not _runs(holder):
            log.warning("taking over the dataset from %s: that process is gone", holder)
        elif silence > self._stale_seconds:
            log.warning("taking over the dataset from %s: no sign of life for %.0f s", holder, silence)
        else:
            raise self._refusal(name, holder)

    def _refusal(self, name: str, holder: Holder | None) -> DatasetHeldError:
        return DatasetHeldError(
            f"another run holds this dataset: {holder or 'it has just begun'}",
            where=f"{self._storage.uri}/{name}",
            fix="wait for it to finish or stop it; when its machine is lost, the lock frees itself "
            f"{self._stale_seconds:.0f} s after its last sign of life",
        )

    def _keep_alive(self) -> None:
        assert self._name is not None  # noqa: S101
        while not self._stop.wait(self._heartbeat_seconds):
            try:
                if self._read(self._name) != self.holder:
                    self._lost.set()
                    return
                self._storage.touch(self._name)
                if max(self._generations(), default=self._name) > self._name:
                    self._lost.set()
                    self._storage.delete(self._name)
                    return
            except (FileNotFoundError, StoreError, OSError) as error:
                log.warning("the heartbeat of the dataset lock failed: %s", error)


def _runs(holder: Holder) -> bool:
    try:
        return abs(psutil.Process(holder.pid).create_time() - holder.process_started) < 1.0
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True
