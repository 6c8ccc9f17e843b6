"""The end of a run in numbers: the summary for who called, and the record that stays with the dataset."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import PurePath

from ctmr_core.store.runs import RunRecord
from pipelines.factory.driver import Crew
from pipelines.factory.logs import without_secrets
from pipelines.factory.tally import Tally
from pipelines.flows.options import GenerateOptions, RunSummary
from pipelines.flows.preparation import Backlog

LISTED_PROBLEMS = 20


def run_record(options: GenerateOptions, backlog: Backlog, crew: Crew, tally: Tally, waves: int, seconds: float) -> RunRecord:
    """What the run did and took. ``seconds``: of the whole run."""
    counts, finished = tally.counts, datetime.now(UTC).timestamp()
    return RunRecord(
        started=datetime.fromtimestamp(finished - seconds, UTC).isoformat(timespec="seconds"),
        version=version("ctmr-factory"),
        manifest=PurePath(without_secrets(options.manifest)).name,
        planned=backlog.planned,
        done_before=backlog.done,
        reasons={str(why): count for why, count in backlog.reasons.items()},
        accepted=counts["accepted"],
        rejected=counts["rejected"],
        failed=counts["failed"],
        quarantined=counts["quarantined"],
        attempts=tally.attempts,
        bytes=tally.bytes,
        objects=tally.objects,
        seconds=round(seconds, 3),
        making_seconds=round(tally.making_seconds, 3),
        workers=tally.most_workers,
        worker_seconds=round(tally.worker_seconds, 3),
        nodes=len(tally.hosts),
        threads=crew.settings.threads,
        gpus_per_worker=crew.gpus_per_worker,
        waves=waves,
        stages=tally.stage_seconds(),
        efficiency=round(tally.efficiency, 4),
        costs=tally.costs(crew.settings.device),
        fleet=tally.fleet,
        interrupted=tally.interrupted,
        halt=tally.halt,
        deaths=tally.events["deaths"],
        replaced=tally.events["replaced"],
        second_copies=tally.events["second_copies"],
    )


def summarize(options: GenerateOptions, record: RunRecord, name: str, skipped_rows: list[str], tally: Tally) -> RunSummary:
    """``record``, kept under ``name`` ("" when it could not be), as what a run answers."""
    rate = 60.0 * record.made / record.making_seconds if record.making_seconds else 0.0
    return RunSummary(
        dataset=options.dataset,
        volumes_per_minute=round(rate, 2),
        skipped_rows=skipped_rows,
        problems=[
            {"case_id": problem.case_id, "status": problem.status, "reason": problem.reason}
            for problem in tally.problems[:LISTED_PROBLEMS]
        ],
        record=name,
        **record.model_dump(include=set(RunSummary.model_fields) & set(RunRecord.model_fields)),
    )
