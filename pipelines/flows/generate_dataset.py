"""The flow ``generate_dataset``: manifest -> committed, sealed dataset.

One flow run per call, one task to find out what is to do, one per wave of work units and one to seal and compact the
catalog. The number of Prefect task runs grows with the waves, never with the volumes.
"""

from __future__ import annotations

import logging
import os
import time
from functools import partial
from itertools import islice
from pathlib import Path

from ctmr_core.errors import CtmrError, StoreError
from ctmr_core.store.drills import reach
from ctmr_core.store.runs import RunRecord, write_run
from pipelines.factory.cluster import ray_cluster
from pipelines.factory.driver import Crew, Driver, Ledger
from pipelines.factory.logs import LogFormat, configure_logging, log_format, log_level, without_secrets
from pipelines.factory.metrics import RunMeter
from pipelines.factory.tally import Observer, Progress, Tally
from pipelines.factory.work import ActorSettings
from pipelines.flows.environment import prefect_server, prepare_prefect
from pipelines.flows.events import announced, emit_end, emit_run_event
from pipelines.flows.feasible import refuse_impossible
from pipelines.flows.interrupts import stop_on_signals
from pipelines.flows.options import GenerateOptions, RunSummary
from pipelines.flows.preparation import Backlog, prepare
from pipelines.flows.records import run_record, summarize
from pipelines.flows.tracking import Tracking, unreachable
from pipelines.flows.waves import waves_of

prepare_prefect()

from prefect import flow  # noqa: E402 - the settings above must be made before Prefect is imported
from prefect.runtime import flow_run  # noqa: E402

from pipelines.flows.progress_artifact import ProgressArtifact  # noqa: E402

LOG = logging.getLogger(__name__)

_LOGGED = {"planned", "done_before", "accepted", "rejected", "failed", "quarantined", "attempts", "seconds", "efficiency", "halt"}

#: Who watches the run in this process; a flow's parameters must be plain data, so it can't be one.
_observers: list[Observer] = []
#: How far this process's run has come: begun, and with its summary when it is done. Prefect may fail before and after.
_begun: list[Tracking] = []
_ended: list[RunSummary] = []


def run_generate_dataset(options: GenerateOptions, observer: Observer | None = None) -> RunSummary:
    """Run the flow here and now, with ``observer`` told of the progress about four times a second."""
    if observer:
        _observers.append(observer)
    _begun.clear()
    _ended.clear()
    try:
        with prefect_server():
            summary: RunSummary = generate_dataset(options)
            return summary
    except Exception as error:
        if _ended:  # the work is done, Prefect could not be told
            _begun[0].give_up(error)
            return _ended[0].model_copy(update={"tracking_lost": _begun[0].lost})
        if _begun or isinstance(error, CtmrError):
            raise
        raise unreachable(error) from error
    finally:
        if observer:
            _observers.remove(observer)


@flow(name="generate-dataset", flow_run_name="{options.dataset}", validate_parameters=False, persist_result=False)
def generate_dataset(options: GenerateOptions) -> RunSummary:
    """Make every case of the manifest that the dataset does not have; resumable at any point."""
    if isinstance(options, dict):
        options = GenerateOptions.model_validate(options)
    begin = time.monotonic()
    tracking = Tracking()
    _begun.append(tracking)
    run_id = _start_log(options)
    with tracking.step("find-backlog", lambda: prepare(options)) as backlog:
        refuse_impossible(backlog.rows_to_do(), backlog.dataset.storage, options)
        tally = Tally(backlog.planned, backlog.done)
        crew = _crew(options, backlog, run_id)
        _announce(options, backlog)
        waves = _make(options, backlog, crew, tally, tracking) if backlog.to_do else 0
        _seal(backlog, tally, tracking)
        record = run_record(options, backlog, crew, tally, waves, time.monotonic() - begin)
        summary = summarize(options, record, _keep(backlog, record), backlog.skipped_rows, tally)
    summary = summary.model_copy(update={"tracking_lost": tracking.lost})
    _ended.append(summary)
    emit_end(summary)
    LOG.info("run ended: %s", summary.model_dump_json(include=_LOGGED))
    return summary


def _start_log(options: GenerateOptions) -> str:
    """Set up the log of this process; the run's id, Prefect's id of the flow run."""
    run_id, style = str(flow_run.get_id() or ""), log_format(options.log_format)
    context = {"run_id": run_id, "dataset": without_secrets(options.dataset)}
    # Text is for people, who have the live picture: they are told what went wrong, machines are told everything.
    configure_logging(style, context, level=log_level("INFO" if style is LogFormat.JSON else "WARNING"))
    return run_id


def _seal(backlog: Backlog, tally: Tally, tracking: Tracking) -> None:
    try:
        tracking.step("seal-catalog", backlog.seal)
    except StoreError as error:
        if not tally.halt:
            raise
        LOG.warning("the catalog is sealed by the next run: %s", error)  # the storage that halted the run is still in trouble


def _announce(options: GenerateOptions, backlog: Backlog) -> None:
    reasons = {str(why): count for why, count in backlog.reasons.items()}
    emit_run_event("ctmr.run.started", options.dataset, {"planned": backlog.planned, "to_do": backlog.to_do, "reasons": reasons})
    LOG.info("run started: %d of %d cases to do", backlog.to_do, backlog.planned)


def _keep(backlog: Backlog, record: RunRecord) -> str:
    """Keep the record with the dataset; its name, "" when the storage has given up."""
    try:
        return write_run(backlog.dataset.storage, record)
    except (StoreError, OSError) as error:
        LOG.warning("the record of this run is not kept: %s", error)
        return ""


def _from_anywhere(place: str) -> str:
    """The path or URI as a process with another current folder can use it."""
    return place if "://" in place else str(Path(place).expanduser().absolute())


def _crew(options: GenerateOptions, backlog: Backlog, run_id: str) -> Crew:
    settings = ActorSettings(
        dataset=_from_anywhere(options.dataset),
        library=_from_anywhere(backlog.library) if backlog.library else None,
        device="cuda" if options.gpus_per_worker > 0 else "cpu",
        threads=options.threads,
        run_id=run_id,
        log_format=log_format(options.log_format),
        lock_token=backlog.lock.holder.token,
        engines=backlog.engines,
        segmenters=backlog.segmenters,
    )
    on_this_machine = max(1, (os.cpu_count() or 1) // options.threads)
    workers = options.workers or (None if options.address else on_this_machine)
    return Crew(
        workers=None if workers is None else max(1, min(workers, backlog.to_do)),
        settings=settings,
        gpus_per_worker=options.gpus_per_worker,
        memory_per_worker=int((options.memory_per_worker or 0) * 1e9),
        case_timeout=options.case_timeout,
        unit_size=options.unit_size,
    )


def _make(options: GenerateOptions, backlog: Backlog, crew: Crew, tally: Tally, tracking: Tracking) -> int:
    """Make what is to do; in how many waves."""
    artifact = ProgressArtifact(tracking, "cases with an outcome")
    watching: list[Observer] = [*_observers, RunMeter(without_secrets(options.dataset))]

    def observe(progress: Progress) -> None:
        artifact.show(progress.done, progress.planned)
        for observer in watching:
            observer(progress)

    ledger = Ledger(backlog.decided, announced(options.dataset, backlog.quarantine), backlog.has_failed)
    cases, number = backlog.cases(), 0
    cpus, gpus = (amount * (crew.workers or 1) for amount in (crew.need.cpus, crew.need.gpus))
    # Ray puts its own SIGTERM handler in place when it starts, so ours come after it.
    with ray_cluster(options.address, cpus, gpus), stop_on_signals() as stopping:
        tally.start_clock()
        driver = Driver(crew, ledger, tally, observe, lambda: stopping() or backlog.lock.lost)
        try:
            for number, (wave, after) in enumerate(waves_of(backlog.to_do, options.waves)):
                backlog.lock.check()
                reach("wave.begin", f"wave-{number}")
                tracking.step("make-wave", partial(driver.run, islice(cases, wave), wave, after), f"wave-{number}")
                backlog.lock.check()
                if tally.interrupted or tally.halt:
                    break
        finally:
            driver.close()
            tally.stop_clock()
    return number + 1
