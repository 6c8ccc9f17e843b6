"""The flow ``nightly``: every night that is due adds its cases to the dataset and leaves a snapshot.

One flow run makes all nights that are due, oldest first. A night is planned once and its manifest kept, so that making it twice
adds nothing; what a crash or a failure left is finished by the next run.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ctmr_core.anatomy.templates.library import TemplateLibrary
from ctmr_core.assessment.card import card
from ctmr_core.cases.manifest import Manifest, read_manifest
from ctmr_core.cases.nights import plan_night
from ctmr_core.cases.recipe import load_recipe
from ctmr_core.engines import engine_identity
from ctmr_core.errors import CtmrError
from ctmr_core.store import Dataset, resume, verify
from ctmr_core.store.snapshots import create_snapshot, delete_snapshot, list_snapshots
from ctmr_core.store.storage import Storage
from pipelines.flows.admission import Examiner
from pipelines.flows.environment import prepare_prefect
from pipelines.flows.generate_dataset import generate_dataset
from pipelines.flows.nightly_calendar import Calendar, Night
from pipelines.flows.nightly_due import due_nights
from pipelines.flows.nightly_news import News, announce
from pipelines.flows.nightly_options import NightlyOptions
from pipelines.flows.nightly_records import NightRecord, NightRecords
from pipelines.flows.options import GenerateOptions, RunSummary
from pipelines.flows.policies import with_policy
from pipelines.flows.training_records import TrainingRecords

prepare_prefect()

from prefect import flow, task  # noqa: E402 - the settings above must be made before Prefect is imported
from prefect.cache_policies import NO_CACHE  # noqa: E402
from prefect.runtime import flow_run  # noqa: E402

log = logging.getLogger(__name__)


class NightError(CtmrError):
    """A night that could not be finished."""


class NightInterruptedError(NightError):
    """A night that was asked to stop."""


@flow(name="nightly", flow_run_name="{options[schedule]}", validate_parameters=False, persist_result=False)
def nightly(options: dict[str, Any], night: str | None = None) -> list[dict[str, Any]]:
    """Make the nights that are due, or the one of the date ``night`` (ISO) whatever became of it before. Their records."""
    settings = NightlyOptions.model_validate(options)
    run_id = str(flow_run.get_id() or "")
    fired = flow_run.get_scheduled_start_time()
    now = max(fired, dt.datetime.now(dt.UTC))
    records = NightRecords(Dataset.create(settings.dataset).storage, settings.schedule)
    records.claim(run_id)
    if night is not None:
        return [_make(settings, records, _asked_for(settings, records, night, now), run_id, again=True).model_dump(mode="json")]
    due = due_nights(settings, records.all(), now, fired)
    for missed in due.leave_out:
        records.write(NightRecord(night=missed.date, state="left out"))
        announce(settings, News.MISSED, missed.date, f"it was missed, and catch-up is {settings.catch_up}")
    return [_make(settings, records, one, run_id).model_dump(mode="json") for one in due.make]


def _asked_for(settings: NightlyOptions, records: NightRecords, night: str, now: dt.datetime) -> Night:
    try:
        date = dt.date.fromisoformat(night)
    except ValueError:
        raise NightError("this is not a date", found=night, allowed="YYYY-MM-DD") from None
    nights = {found.date: found for found in Calendar.of(settings).nights(now)}
    if date in nights or records.get(date) is not None:
        return nights.get(date) or Night(date, dt.datetime.combine(date, dt.time.min))
    latest = max(nights, default=None)
    raise NightError(
        "the schedule has no such night", found=night, allowed=f"its nights up to {latest}" if latest else "none yet"
    )


def _make(settings: NightlyOptions, records: NightRecords, night: Night, run_id: str, *, again: bool = False) -> NightRecord:
    """Begin or go on with one night and see it through; raises when it did not finish, so that the flow run fails."""
    record = _begin(settings, records, night, run_id, again)
    if record.over:
        return record
    try:
        return _see_through(settings, records, record)
    except NightInterruptedError:
        latest = records.get(record.night) or record
        records.write(latest.model_copy(update={"attempts": record.attempts - 1, "ended": _now()}))  # it does not count
        raise
    except Exception as error:  # whatever it was, people must be told before it goes on its way
        problem = error.what if isinstance(error, CtmrError) else f"{type(error).__name__}: {error}"
        latest = records.get(record.night) or record  # it may have been planned in between
        failed = records.write(latest.model_copy(update={"problem": problem, "ended": _now()}))
        with contextlib.suppress(CtmrError, OSError):  # the dataset may be what failed
            failed = records.write(_with_counts(failed, records))
        announce(settings, News.FAILED, record.night, str(error), failed)
        raise


def _begin(settings: NightlyOptions, records: NightRecords, night: Night, run_id: str, again: bool) -> NightRecord:
    record = records.get(night.date) or NightRecord(night=night.date, state="begun", begun=_now())
    if record.attempts >= settings.attempts and not again:
        given_up = records.write(record.model_copy(update={"state": "given up", "ended": _now()}))
        announce(settings, News.GIVEN_UP, night.date, f"{record.attempts} attempts, the last: {record.problem}", given_up)
        return given_up
    attempts = 1 if again and record.over else record.attempts + 1
    return records.write(
        record.model_copy(update={"state": "begun", "attempts": attempts, "flow_run": run_id, "problem": None, "ended": None})
    )


def _see_through(settings: NightlyOptions, records: NightRecords, record: NightRecord) -> NightRecord:
    if not record.cases:
        record = _planned(settings, records, record)
    if not record.cases:
        record = records.write(record.model_copy(update={"state": "finished", "problem": "the plan is used up", "ended": _now()}))
        announce(settings, News.USED_UP, record.night, "the plan is used up", record)
        return record
    with tempfile.TemporaryDirectory(prefix="ctmr-night-") as folder:
        manifest = records.copy_manifest(record.night, Path(folder))
        summary: RunSummary = generate_dataset(_generate_options(settings, manifest))
    if not summary.complete:
        kind = NightInterruptedError if summary.interrupted and summary.halt is None else NightError
        raise kind(summary.halt or "the run was asked to stop", fix="nothing is lost: the next run finishes the night")
    record = _checked(settings, record)
    snapshot = _snapshot(settings, record)
    record = records.write(record.model_copy(update={"state": "finished", "snapshot": snapshot, "ended": _now()}))
    _retain(settings, records)
    announce(settings, News.FINISHED, record.night, "", record)
    return record


def _planned(settings: NightlyOptions, records: NightRecords, record: NightRecord) -> NightRecord:
    """Plan the night and keep the plan. Its number counts the nights planned before."""
    earlier = [other for date, other in records.all().items() if date != record.night and other.cases]
    recipe = with_policy(load_recipe(settings.recipe))
    digest = recipe.source.digest if recipe.source else ""
    if settings.mode == "slice" and any(other.recipe_digest != digest for other in earlier):
        raise NightError(
            "the recipe has changed, and the schedule makes its one plan part by part",
            where=settings.recipe,
            found=digest[:12],
            allowed=earlier[0].recipe_digest[:12],
            fix="restore the recipe, or make another schedule for the new one",
        )
    library = TemplateLibrary.open(settings.library) if settings.library else None
    validators = (Examiner(None, needs_library=False).examine,)
    make_plan = task(name="plan-night", cache_policy=NO_CACHE, persist_result=False)(plan_night)
    manifest: Manifest = make_plan(
        recipe, record.night, len(earlier), settings.mode, settings.per_night, library, engine_identity, validators
    )
    if manifest.rows:
        records.write_manifest(record.night, manifest)
    planned = {"number": len(earlier), "mode": settings.mode, "recipe_digest": digest, "cases": manifest.rows}
    return records.write(record.model_copy(update=planned))


def _generate_options(settings: NightlyOptions, manifest: Path) -> GenerateOptions:
    return GenerateOptions(
        manifest=str(manifest),
        dataset=settings.dataset,
        library=settings.library,
        address=settings.address,
        workers=settings.workers,
        threads=settings.threads,
        gpus_per_worker=settings.gpus_per_worker,
        case_timeout=settings.case_timeout,
    )


def _checked(settings: NightlyOptions, record: NightRecord) -> NightRecord:
    """The record with the outcome of its cases; ``NightError`` when files are missing or too many cases failed."""
    dataset = Dataset.open(settings.dataset)
    records = NightRecords(dataset.storage, settings.schedule)
    record = _with_counts(record, records)
    check = task(name="verify-night", cache_policy=NO_CACHE, persist_result=False)(verify)
    report = check(dataset, deep=False, case_ids=_case_ids(records, record))
    if report.problems:
        first = report.problems[0]
        raise NightError("volumes of the night are damaged", where=f"case {first.case_id}", found=first.what, fix="ctmr verify")
    bad = record.counts["failed"] + record.counts["quarantined"]
    if bad > settings.tolerance * record.cases:
        raise NightError(
            f"{bad} of {record.cases} cases failed", allowed=f"{settings.tolerance:.0%}", fix="`ctmr status` and `ctmr replay`"
        )
    return record


def _with_counts(record: NightRecord, records: NightRecords) -> NightRecord:
    """What became of the night's cases, from the dataset alone."""
    dataset = Dataset(records.storage)
    plan = dataset.manifest
    if not record.cases or plan is None:
        return record
    ids = pa.array(_case_ids(records, record), plan["case_id"].type)
    found = resume(dataset, plan.filter(pc.is_in(plan["case_id"], value_set=ids)))
    waiting: Counter[str] = Counter(todo.why for todo in found.todo)
    counts = {
        "accepted": found.accepted,
        "rejected": found.rejected,
        "failed": waiting["failed"],
        "quarantined": len(found.quarantined),
        "pending": len(found.todo) - waiting["failed"],
    }
    return record.model_copy(update={"counts": counts})


def _case_ids(records: NightRecords, record: NightRecord) -> list[str]:
    with tempfile.TemporaryDirectory(prefix="ctmr-night-") as folder:
        ids: list[str] = read_manifest(records.copy_manifest(record.night, Path(folder))).table["case_id"].to_pylist()
        return ids


def _snapshot(settings: NightlyOptions, record: NightRecord) -> str:
    """Everything accepted so far, under the name of the night. A night made again keeps the snapshot it has."""
    dataset = Dataset.open(settings.dataset)
    note = f"schedule {settings.schedule}, night {record.night}"
    name = f"night-{record.night}"
    standing = {snapshot.name: snapshot for snapshot in list_snapshots(dataset.storage)}
    if name in standing and standing[name].note != note:
        name = f"{name}-{settings.schedule}"
    if name in standing:
        return name
    recipe = {"path": settings.recipe, "digest": record.recipe_digest, "mode": record.mode, "number": record.number}
    return create_snapshot(dataset, name, recipe=recipe, card=card(dataset), note=note).name


def _retain(settings: NightlyOptions, records: NightRecords) -> None:
    """Delete all but the newest ``keep`` snapshots of this schedule; no volume is touched. One that is trained on stays."""
    if settings.keep is None:
        return
    storage: Storage = records.storage
    in_use = {name for name, training in TrainingRecords(storage, settings.schedule).all().items() if not training.over}
    standing = {snapshot.name for snapshot in list_snapshots(storage)}
    mine = [record for _, record in sorted(records.all().items()) if record.snapshot in standing]
    for record in mine[: -settings.keep]:
        if record.snapshot in in_use:
            continue
        delete_snapshot(storage, str(record.snapshot))
        log.info("snapshot %s deleted: %d newer ones are kept", record.snapshot, settings.keep)


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
