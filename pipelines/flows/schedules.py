"""Nightly schedules as Prefect deployments: made, listed, paused, run and deleted through a Prefect server.

Every schedule is a deployment of the flow ``nightly`` on one work pool of the type ``process``. A pool, and not a process that
serves its own schedules: the schedule stays on the server while workers come and go, a worker can be on any machine that sees
the dataset, and every night runs in a process of its own.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
from pydantic import SecretStr

from ctmr_core.errors import CtmrError
from ctmr_core.store import Dataset
from pipelines.flows.environment import prepare_prefect
from pipelines.flows.nightly_options import NightlyOptions, Pause
from pipelines.flows.nightly_records import NightRecord, NightRecords
from pipelines.flows.training_records import TrainingRecord, TrainingRecords

prepare_prefect()

from prefect.blocks.system import Secret  # noqa: E402 - the settings above must be made before Prefect is imported
from prefect.client.orchestration import SyncPrefectClient, get_client  # noqa: E402
from prefect.client.schemas.actions import DeploymentScheduleCreate, DeploymentUpdate, WorkPoolCreate  # noqa: E402
from prefect.client.schemas.filters import (  # noqa: E402
    DeploymentFilter,
    DeploymentFilterId,
    DeploymentFilterTags,
    FlowRunFilter,
    FlowRunFilterDeploymentId,
)
from prefect.client.schemas.objects import ConcurrencyLimitStrategy, ConcurrencyOptions, FlowRun, StateType  # noqa: E402
from prefect.client.schemas.responses import DeploymentResponse  # noqa: E402
from prefect.client.schemas.schedules import CronSchedule  # noqa: E402
from prefect.client.schemas.sorting import DeploymentSort, FlowRunSort  # noqa: E402
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound  # noqa: E402
from prefect.settings import PREFECT_API_URL, temporary_settings  # noqa: E402

DEFAULT_SERVER = "http://127.0.0.1:4200/api"
POOL = "ctmr-nights"
TAG = "ctmr-nightly"
TRAINING_TAG = "ctmr-nightly-training"
FLOW = "nightly"
ENTRYPOINT = "pipelines.flows.nightly.nightly"
TRAINING_FLOW = "nightly-training"
TRAINING_ENTRYPOINT = "pipelines.flows.nightly_training.nightly_training"
HEARTBEAT_SECONDS = 30  # Prefect's least
WORKING = (StateType.PENDING, StateType.RUNNING, StateType.CANCELLING)


class ScheduleError(CtmrError):
    """A schedule that can't be made, found or changed."""


@dataclass(frozen=True)
class Schedule:
    """A schedule as the server knows it. next_run: the first firing to come, None while it is paused."""

    id: Any
    options: NightlyOptions
    paused: bool
    next_run: dt.datetime | None = None

    @property
    def name(self) -> str:
        return self.options.schedule

    def records(self) -> dict[dt.date, NightRecord]:
        """What became of its nights; none while there is no dataset."""
        with contextlib.suppress(CtmrError):
            return NightRecords(Dataset.open(self.options.dataset).storage, self.name).all()
        return {}

    def trainings(self) -> dict[str, TrainingRecord]:
        """What became of its trainings, by snapshot; none while there is no dataset."""
        with contextlib.suppress(CtmrError):
            return TrainingRecords(Dataset.open(self.options.dataset).storage, self.name).all()
        return {}


class Schedules:
    """The schedules of one Prefect server."""

    def __init__(self, client: SyncPrefectClient) -> None:
        self.client = client

    def create(self, options: NightlyOptions, webhook: str | None = None, *, replace: bool = False) -> Schedule:
        """Make the schedule, or change the one of that name, which then keeps its start and its pauses.

        webhook: a URL that the server keeps as an encrypted secret.
        """
        standing = self.find(options.schedule)
        if standing is not None and not replace:
            raise ScheduleError(
                "there is a schedule of this name", found=options.schedule, fix="choose another --name, or --replace it"
            )
        if standing is not None:
            options = options.model_copy(
                update={"start": standing.options.start, "pauses": standing.options.pauses, "webhook": standing.options.webhook}
            )
        if webhook is not None:
            options = options.model_copy(update={"webhook": secret_name(options.schedule)})
            Secret(value=SecretStr(webhook)).save(secret_name(options.schedule), overwrite=True)
        self.ensure_pool()
        rule = CronSchedule(cron=options.cron, timezone=options.timezone)
        self._deploy(
            options,
            FLOW,
            ENTRYPOINT,
            TAG,
            f"Every night cases of {options.recipe} for {options.dataset}",
            schedules=[DeploymentScheduleCreate(schedule=rule, active=True)],
        )
        if options.then_train is not None:
            told = f"After every night a training of {options.then_train.config} on its snapshot of {options.dataset}"
            self._deploy(options, TRAINING_FLOW, TRAINING_ENTRYPOINT, TRAINING_TAG, told)
        return self.get(options.schedule)

    def _deploy(self, options: NightlyOptions, flow: str, entrypoint: str, tag: str, description: str, **more: Any) -> None:
        """A deployment of which one run at a time is at work; another one is cancelled."""
        self.client.create_deployment(
            flow_id=self.client.create_flow_from_name(flow),
            name=options.schedule,
            entrypoint=entrypoint,
            work_pool_name=POOL,
            concurrency_limit=1,
            concurrency_options=ConcurrencyOptions(collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW),
            parameters=_parameters(options),
            enforce_parameter_schema=False,
            job_variables={"env": {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS)}},
            tags=[tag],
            description=description,
            **more,
        )

    def ensure_pool(self) -> None:
        """The work pool, made if it isn't there."""
        from prefect.workers.process import ProcessWorker

        with contextlib.suppress(ObjectAlreadyExists):
            template = ProcessWorker.get_default_base_job_template()
            self.client.create_work_pool(WorkPoolCreate(name=POOL, type="process", base_job_template=template))

    def all(self) -> list[Schedule]:
        """Every schedule, by name."""
        wanted = DeploymentFilter(tags=DeploymentFilterTags(all_=[TAG]))
        found = self.client.read_deployments(deployment_filter=wanted, limit=200, sort=DeploymentSort.NAME_ASC)
        return sorted((self._schedule(deployment) for deployment in found), key=lambda schedule: schedule.name)

    def find(self, name: str) -> Schedule | None:
        try:
            return self._schedule(self.client.read_deployment_by_name(f"{FLOW}/{name}"))
        except ObjectNotFound:
            return None

    def get(self, name: str) -> Schedule:
        found = self.find(name)
        if found is None:
            names = [schedule.name for schedule in self.all()]
            raise ScheduleError("there is no such schedule", found=name, allowed=names or "none was made yet")
        return found

    def pause(self, name: str) -> Schedule:
        """No night is due until it is resumed; a run under way goes on."""
        schedule = self.get(name)
        if not schedule.paused:
            pauses = (*schedule.options.pauses, Pause(since=_now()))
            self.client.pause_deployment(schedule.id)
            self._store(schedule, schedule.options.model_copy(update={"pauses": pauses}))
        return self.get(name)

    def resume(self, name: str, *, make_up: bool = False) -> Schedule:
        """Nights are due again; with ``make_up`` those of the pause, too."""
        schedule = self.get(name)
        pauses = schedule.options.pauses
        if pauses and pauses[-1].until is None:
            ended = () if make_up else (pauses[-1].model_copy(update={"until": _now()}),)
            self._store(schedule, schedule.options.model_copy(update={"pauses": (*pauses[:-1], *ended)}))
        if schedule.paused:
            self.client.resume_deployment(schedule.id)
        return self.get(name)

    def run_now(self, name: str, night: dt.date | None = None, key: str | None = None) -> FlowRun:
        """A run of what is due, or of one night. key: asking twice with the same key makes one run."""
        parameters = {"night": night.isoformat()} if night else {}
        return self.client.create_flow_run_from_deployment(self.get(name).id, parameters=parameters, idempotency_key=key)

    def train_now(self, name: str, snapshot: str, key: str | None = None, *, again: bool = False) -> FlowRun:
        """A run of the schedule's training on a snapshot. again: whatever became of it before. key: as for ``run_now``."""
        schedule = self.get(name)
        if schedule.options.then_train is None:
            raise ScheduleError("the schedule has no training", found=name, fix="create it with --then-train CONFIG --replace")
        deployment = self.client.read_deployment_by_name(f"{TRAINING_FLOW}/{name}")
        # The nights' deployment is where the options are kept; this one's may be older.
        parameters = {**_parameters(schedule.options), "snapshot": snapshot, "again": again}
        return self.client.create_flow_run_from_deployment(deployment.id, parameters=parameters, idempotency_key=key)

    def training_runs(self, schedule: Schedule, limit: int = 50) -> list[FlowRun]:
        """The flow runs of its trainings, as :meth:`runs`."""
        try:
            deployment = self.client.read_deployment_by_name(f"{TRAINING_FLOW}/{schedule.name}")
        except ObjectNotFound:
            return []
        return self._runs(deployment.id, limit)

    def delete(self, name: str) -> Schedule:
        """Forget the schedule and its secret; the dataset keeps what its nights made."""
        schedule = self.get(name)
        self.client.delete_deployment(schedule.id)
        with contextlib.suppress(ObjectNotFound):
            self.client.delete_deployment(self.client.read_deployment_by_name(f"{TRAINING_FLOW}/{name}").id)
        if schedule.options.webhook:
            with contextlib.suppress(ObjectNotFound, ValueError):
                block = self.client.read_block_document_by_name(schedule.options.webhook, "secret", include_secrets=False)
                if block.id is not None:
                    self.client.delete_block_document(block.id)
        return schedule

    def runs(self, schedule: Schedule, limit: int = 50) -> list[FlowRun]:
        """Its flow runs that have begun, were cancelled or are due, newest first."""
        return self._runs(schedule.id, limit)

    def _runs(self, deployment: Any, limit: int) -> list[FlowRun]:
        return self.client.read_flow_runs(
            deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment])),
            flow_run_filter=_until(_now() + dt.timedelta(seconds=1)),
            sort=FlowRunSort.EXPECTED_START_TIME_DESC,
            limit=limit,
        )

    def _store(self, schedule: Schedule, options: NightlyOptions) -> None:
        self.client.update_deployment(schedule.id, DeploymentUpdate(parameters=_parameters(options)))

    def _schedule(self, deployment: DeploymentResponse) -> Schedule:
        options = NightlyOptions.model_validate(deployment.parameters["options"])
        coming = None
        if not deployment.paused:
            wanted = FlowRunFilter(deployment_id=FlowRunFilterDeploymentId(any_=[deployment.id]), state=_in_state("SCHEDULED"))
            runs = self.client.read_flow_runs(flow_run_filter=wanted, sort=FlowRunSort.NEXT_SCHEDULED_START_TIME_ASC, limit=1)
            coming = runs[0].next_scheduled_start_time if runs else None
        return Schedule(deployment.id, options, bool(deployment.paused), coming)


def secret_name(schedule: str) -> str:
    """The Prefect secret with the webhook of a schedule."""
    return f"ctmr-webhook-{schedule.lower().replace('_', '-')}"


@contextlib.contextmanager
def schedules_of(server: str) -> Iterator[Schedules]:
    """The schedules of the Prefect server at ``server`` (its API's URL); ``ScheduleError`` when it does not answer."""
    with temporary_settings({PREFECT_API_URL: server}), get_client(sync_client=True) as client:
        if (problem := client.api_healthcheck()) is not None:
            raise ScheduleError(
                f"no Prefect server answers: {type(problem).__name__}",
                where=server,
                fix="start one with `ctmr schedule server`, or name yours with --server or PREFECT_API_URL",
            )
        try:
            yield Schedules(client)
        except httpx.HTTPError as error:
            raise ScheduleError(f"the Prefect server failed: {str(error).splitlines()[0]}", where=server) from error


def _parameters(options: NightlyOptions) -> dict[str, Any]:
    return {"options": options.model_dump(mode="json")}


def _in_state(state: str) -> Any:
    from prefect.client.schemas.filters import FlowRunFilterState, FlowRunFilterStateType

    return FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType(state)]))


def _until(instant: dt.datetime) -> FlowRunFilter:
    from prefect.client.schemas.filters import FlowRunFilterExpectedStartTime

    return FlowRunFilter(expected_start_time=FlowRunFilterExpectedStartTime(before_=instant))  # type: ignore[arg-type]


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
