"""What Prometheus is told: every metric of the factory, counted through Ray's metrics endpoint.

Ray puts ``ray_`` in front and ``_total`` behind counters: ``ctmr_cases`` is scraped as ``ray_ctmr_cases_total``. A node serves
its metrics only where ``ray[default]`` is installed (the extra ``cluster``); elsewhere counting costs nothing and goes nowhere.
Ray sends the values every ten seconds, so the last ones of an actor that is killed can be missing: outcomes are counted by
the driver, which lives as long as the run.
"""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import psutil

from pipelines.factory.tally import Progress

#: Seconds: from a coarse head (half a second) to a 512^3 body on a slow core (half an hour).
STAGE_BOUNDARIES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)


@dataclass(frozen=True)
class MetricSpec:
    """One metric: its name without Ray's prefix, what it means, and the tags its values carry besides ``dataset``."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    description: str
    tags: tuple[str, ...] = ()
    boundaries: tuple[float, ...] = ()

    @property
    def exported_names(self) -> tuple[str, ...]:
        """The names under which Prometheus scrapes it."""
        if self.kind == "counter":
            return (f"ray_{self.name}_total",)
        if self.kind == "gauge":
            return (f"ray_{self.name}",)
        return tuple(f"ray_{self.name}_{part}" for part in ("bucket", "count", "sum"))


METRICS = (
    MetricSpec("ctmr_cases", "counter", "Cases that got their outcome", ("outcome",)),
    MetricSpec("ctmr_cases_planned", "gauge", "Cases of the manifest, those done by earlier runs included"),
    MetricSpec("ctmr_cases_waiting", "gauge", "Cases without an outcome: the depth of the queue"),
    MetricSpec("ctmr_actors", "gauge", "Actors by what they are doing", ("stage",)),
    MetricSpec("ctmr_efficiency_ratio", "gauge", "Share of the actors' time spent inside cases since the run began"),
    MetricSpec("ctmr_attempts", "counter", "Attempts at cases by how they ended", ("engine", "result")),
    MetricSpec("ctmr_stage_seconds", "histogram", "Seconds per stage of an attempt", ("engine", "stage"), STAGE_BOUNDARIES),
    MetricSpec("ctmr_written_bytes", "counter", "Bytes of committed volumes", ("engine",)),
    MetricSpec("ctmr_actors_lost", "counter", "Actors that died, or were replaced because of their memory", ("cause",)),
    MetricSpec("ctmr_storage_retries", "counter", "Writes that had to be tried again"),
    MetricSpec("ctmr_actor_memory_bytes", "gauge", "Resident memory of an actor after its last stage", ("actor",)),
)
STAGES = ("starting", "idle", "body", "render", "check", "write")


@cache
def _metric(name: str) -> Any:
    """Ray's object behind a metric, made once per process and only when something is counted."""
    from ray.util import metrics

    spec = next(spec for spec in METRICS if spec.name == name)
    tags = ("dataset", *spec.tags)
    if spec.kind == "counter":
        return metrics.Counter(spec.name, spec.description, tags)
    if spec.kind == "gauge":
        return metrics.Gauge(spec.name, spec.description, tags)
    return metrics.Histogram(spec.name, spec.description, list(spec.boundaries), tags)


class ActorMeter:
    """Counts what one actor does."""

    def __init__(self, dataset: str, actor: str) -> None:
        self._dataset, self._actor = {"dataset": dataset}, actor
        self._process = psutil.Process()

    def stage(self, engine: str, stage: str, seconds: float) -> None:
        _metric("ctmr_stage_seconds").observe(seconds, {**self._dataset, "engine": engine, "stage": stage})
        memory = self._process.memory_info().rss
        _metric("ctmr_actor_memory_bytes").set(memory, {**self._dataset, "actor": self._actor})

    def attempt(self, engine: str, result: str) -> None:
        _metric("ctmr_attempts").inc(1, {**self._dataset, "engine": engine, "result": result})

    def written(self, engine: str, size: int) -> None:
        if size > 0:
            _metric("ctmr_written_bytes").inc(size, {**self._dataset, "engine": engine})

    def storage_retry(self) -> None:
        _metric("ctmr_storage_retries").inc(1, self._dataset)


class RunMeter:
    """An observer of a run's ``Progress``: counts outcomes once each and keeps the gauges up to date."""

    def __init__(self, dataset: str) -> None:
        self._dataset = {"dataset": dataset}
        self._counted: Counts[str] = Counts()
        self._busy_seconds = self._actor_seconds = 0.0
        self._last: float | None = None

    def __call__(self, progress: Progress) -> None:
        """Take the run as it is now."""
        outcomes = ("accepted", "rejected", "failed", "quarantined")
        self._count("ctmr_cases", "outcome", {outcome: getattr(progress, outcome) for outcome in outcomes})
        self._count("ctmr_actors_lost", "cause", {"died": progress.deaths, "replaced": progress.replaced})
        stages = Counts(status.stage for status in progress.actors.values())
        self._set("ctmr_cases_planned", progress.planned)
        self._set("ctmr_cases_waiting", max(0, progress.planned - progress.done))
        for stage in STAGES:
            _metric("ctmr_actors").set(stages[stage], {**self._dataset, "stage": stage})
        self._set("ctmr_efficiency_ratio", self._efficiency(progress, stages))

    def _count(self, metric: str, tag: str, counts: Mapping[str, int]) -> None:
        """Add what is new. A death can take back what an actor had reported, so a count may fall for a moment."""
        for value, count in counts.items():
            new = count - self._counted[value]
            if new > 0:
                _metric(metric).inc(new, {**self._dataset, tag: value})
                self._counted[value] = count

    def _efficiency(self, progress: Progress, stages: Mapping[str, int]) -> float:
        if self._last is not None:
            step = max(0.0, progress.seconds - self._last)
            actors = sum(stages.values())
            self._actor_seconds += step * actors
            self._busy_seconds += step * (actors - stages["idle"] - stages["starting"])
        self._last = progress.seconds
        return self._busy_seconds / self._actor_seconds if self._actor_seconds else 0.0

    def _set(self, name: str, value: float) -> None:
        _metric(name).set(value, self._dataset)
