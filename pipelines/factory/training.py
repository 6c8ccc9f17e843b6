"""Training on several workers: Ray Train starts the ranks, ties them into one process group, and starts them anew after a loss.

The ranks read the dataset and write the run folder themselves; small reports are all that passes through the driver. After
the loss of a worker all ranks begin again, and the job resumes from its last checkpoint. An error that was raised on purpose
(``CtmrError``) would be raised again, so it ends the run at once.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
import torch
from ray.train import FailureConfig, LoggingConfig, RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchConfig, TorchTrainer

from ctmr_core.errors import CtmrError
from pipelines.factory.cluster import ray_cluster
from pipelines.factory.desk import Desk
from pipelines.factory.driver import FactoryError
from pipelines.factory.logs import LogFormat, configure_logging, log_level
from pipelines.factory.nodes import Nodes
from pipelines.factory.slots import Need

LOG = logging.getLogger(__name__)
TICK_SECONDS = 0.25  # between looks of the driver
STOP_POLL_SECONDS = 0.5  # between a rank's questions whether to stop

Report = Any  # small and picklable
Tell = Callable[[Report], None]
Stopping = Callable[[], bool]
#: What every rank runs, in an initialised process group: told how to report (only rank 0's reports are passed on) and how to
#: learn that it should stop. It returns something small, and resumes by itself when it is called again.
Job = Callable[[Tell, Stopping], Any]


@dataclass(frozen=True)
class Team:
    """workers: ranks. threads: CPU threads of each; None: an even share of this machine's cores, on a cluster 1.

    device: ``cpu``, ``cuda`` (a GPU for each), or ``auto``: GPUs if the cluster has enough of them.
    address: of a running Ray cluster, None starts a local one.
    max_failures: losses of workers after which the run fails. room_timeout: seconds to wait for a cluster with room for all.
    """

    workers: int
    threads: int | None = None
    device: str = "auto"
    address: str | None = None
    max_failures: int = 3
    room_timeout: float = 600.0
    log_format: LogFormat = LogFormat.TEXT

    @property
    def need(self) -> Need:
        """What Ray reserves for one rank."""
        return Need(self.threads_each, 1.0 if self.gpu else 0.0)

    @property
    def gpu(self) -> bool:
        """Whether every rank gets a GPU, with NCCL between them; else gloo."""
        return self.device.startswith("cuda")

    @property
    def threads_each(self) -> int:
        """CPU threads of a rank."""
        if self.threads is not None:
            return self.threads
        return 1 if self.address else max(1, (os.cpu_count() or 1) // self.workers)


@contextlib.contextmanager
def cluster_for(team: Team) -> Iterator[Team]:
    """The cluster that is there, or a local one with room for the team, for as long as it lasts; the team, its device chosen."""
    here = min(team.workers, torch.cuda.device_count()) if team.device == "auto" else team.workers * team.gpu
    with ray_cluster(team.address, team.threads_each * team.workers, here):
        if team.device == "auto":
            gpus = ray.cluster_resources().get("GPU", 0.0)
            team = replace(team, device="cuda" if gpus >= team.workers else "cpu")
        yield team


def run_ranks(job: Job, folder: Path, team: Team, observe: Tell, stopping: Stopping = lambda: False) -> Any:
    """What rank 0's ``job`` returns, in the cluster of ``cluster_for``. ``observe`` is called with every report, in order.

    folder: the run folder, made if it isn't there, which every node must see. stopping: asked about four times a second; once
    it says yes, the ranks are told and finish as their job sees fit.
    Raises the job's own ``CtmrError``, or ``FactoryError`` when workers were lost more than ``max_failures`` times.
    """
    with _seen_by_all(folder) as token:
        desk: Any = ray.remote(num_cpus=0, max_restarts=0)(Desk).remote()
        with tempfile.TemporaryDirectory(prefix="ctmr-train-") as scratch:
            settings = {"job": job, "desk": desk, "team": team, "token": str(token)}
            fitting = _Fit(_trainer(settings, team, scratch))
            try:
                _watch(fitting, desk, team, observe, stopping)
            finally:
                refusal, result = ray.get(desk.outcome.remote()) if ray.is_initialized() else (None, None)
        if refusal is not None:
            raise refusal
        fitting.check(team)
        return result


class _Fit:
    """Ray Train's blocking call in a thread: the main thread keeps its signals, which Ray Train would take over."""

    def __init__(self, trainer: TorchTrainer) -> None:
        self._trainer = trainer
        self._error: Exception | SystemExit | None = None
        self._thread = threading.Thread(target=self._run, name="ray-train", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._trainer.fit()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - what Ray raises, also when it is shut down, is told by ``check``
            self._error = error

    def over(self, within: float) -> bool:
        self._thread.join(within)
        return not self._thread.is_alive()

    def check(self, team: Team) -> None:
        """``FactoryError`` if the run failed."""
        if self._error is None:
            return
        raise FactoryError(
            f"the training failed, also after {team.max_failures} new starts" if team.max_failures else "the training failed",
            found=_cause(self._error),
            fix="look at the worker logs of Ray (session_latest/logs); the same command resumes from the last checkpoint",
        ) from self._error


def _trainer(settings: dict[str, Any], team: Team, scratch: str) -> TorchTrainer:
    os.environ.setdefault("RAY_TRAIN_METRICS_ENABLED", "0")
    resources = {"CPU": float(team.threads_each), **({"GPU": 1.0} if team.gpu else {})}
    return TorchTrainer(
        _rank,
        train_loop_config=settings,
        torch_config=TorchConfig(backend="nccl" if team.gpu else "gloo"),
        scaling_config=ScalingConfig(num_workers=team.workers, use_gpu=team.gpu, resources_per_worker=resources),
        run_config=RunConfig(  # type: ignore[call-arg]  # the checker sees that of Ray Train's first version
            name=f"ctmr-train-{uuid.uuid4().hex[:8]}",
            storage_path=scratch,  # it keeps nothing there: checkpoints are the job's
            failure_config=FailureConfig(max_failures=team.max_failures),
            logging_config=LoggingConfig(log_level="ERROR"),
        ),
    )


def _rank(settings: dict[str, Any]) -> None:
    """What Ray Train calls in every worker."""
    team, desk, token = settings["team"], settings["desk"], Path(settings["token"])
    rank = torch.distributed.get_rank()
    configure_logging(team.log_format, {"rank": rank}, level=log_level("INFO"))
    torch.set_num_threads(team.threads_each)
    if ray.get(desk.outcome.remote())[0] is not None:
        return  # another start would be refused again

    def tell(report: Report) -> None:
        if rank == 0:
            desk.tell.remote(report)

    try:
        _check_seen(token)
        with _stop_flag(desk) as stopping:
            result = settings["job"](tell, stopping)
    except CtmrError as error:
        ray.get(desk.refuse.remote(error))
        raise
    if rank == 0:
        ray.get(desk.finish.remote(result))


@contextlib.contextmanager
def _stop_flag(desk: Any) -> Iterator[Stopping]:
    """A question that costs nothing: a thread asks the desk from time to time."""
    asked, over = threading.Event(), threading.Event()

    def ask() -> None:
        while not over.wait(STOP_POLL_SECONDS):
            with contextlib.suppress(ray.exceptions.RayError):
                if ray.get(desk.stopping.remote()):
                    asked.set()
                    return

    threading.Thread(target=ask, name="stop-flag", daemon=True).start()
    try:
        yield asked.is_set
    finally:
        over.set()


@contextlib.contextmanager
def _seen_by_all(folder: Path) -> Iterator[Path]:
    """A file in the run folder by which every rank knows that it sees the same folder."""
    folder.mkdir(parents=True, exist_ok=True)
    token = folder / f".seen-{uuid.uuid4().hex[:12]}"
    token.touch()
    try:
        yield token
    finally:
        token.unlink(missing_ok=True)


def _check_seen(token: Path) -> None:
    if not token.exists():
        raise FactoryError(
            "the run folder is not the same on every node",
            where=socket.gethostname(),
            found=str(token.parent),
            fix="let --out be in a folder that all nodes of the cluster share",
        )


def _watch(fitting: _Fit, desk: Any, team: Team, observe: Tell, stopping: Stopping) -> None:
    """Pass reports on and the wish to stop, until the run is over."""
    nodes, begun, told_to_stop, heard = Nodes(team.need), time.monotonic(), False, False
    while True:
        over = fitting.over(TICK_SECONDS)
        reports = ray.get(desk.take.remote())
        heard = heard or bool(reports)
        for report in reports:
            observe(report)
        if over:
            return
        if not told_to_stop and stopping():
            told_to_stop = True
            desk.stop.remote()
        if not heard and nodes.room() < team.workers and time.monotonic() - begun > team.room_timeout:
            raise FactoryError(
                f"the cluster has no room for {team.workers} workers, and none came for {team.room_timeout:.0f} s",
                found=nodes.describe(),
                allowed=f"{team.workers} times {team.need}",
                fix="ask for fewer --workers or --threads, or add nodes",
            )


def _cause(error: BaseException) -> str:
    """The last line of what a worker raised, or of the error itself."""
    failures = getattr(error, "worker_failures", None) if isinstance(error, TrainingFailedError) else None
    shown = failures[min(failures)] if failures else error
    return str(shown).strip().splitlines()[-1] if str(shown).strip() else type(shown).__name__
