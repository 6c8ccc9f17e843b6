"""Prefect's picture of a run. The run never depends on it: when its server is lost, the work goes on without."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from pipelines.factory.driver import FactoryError

LOG = logging.getLogger(__name__)
Value = TypeVar("Value")


class Tracking:
    """Runs the steps of a flow as Prefect tasks for as long as Prefect's server answers.

    ``lost``: why it is no longer asked, one line; "" while all is well.
    """

    def __init__(self) -> None:
        self.lost = ""

    def step(self, name: str, work: Callable[[], Value], run_name: str | None = None) -> Value:
        """What ``work`` returns or raises, done exactly once, as the task ``name`` if Prefect can be reached."""
        from prefect import task
        from prefect.cache_policies import NO_CACHE

        if self.lost:
            return work()
        results: list[Value] = []
        errors: list[Exception] = []

        def once() -> None:
            try:
                results.append(work())
            except Exception as error:
                errors.append(error)
                raise

        try:
            task(name=name, task_run_name=run_name, cache_policy=NO_CACHE, persist_result=False)(once)()
        except Exception as error:
            if errors:
                raise
            self.give_up(error)
        if not results:
            results.append(work())
        return results[0]

    def tell(self, report: Callable[[], object]) -> None:
        """Tell Prefect something that nobody waits for."""
        if self.lost:
            return
        try:
            report()
        except Exception as error:  # noqa: BLE001 - whatever a client of a lost server raises must not touch the run
            self.give_up(error)

    def give_up(self, error: Exception) -> None:
        """Ask Prefect's server no more."""
        if not self.lost:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            self.lost = f"Prefect's server does not answer any more ({reason}); the run went on without it"
            LOG.warning("%s", self.lost)


def unreachable(error: Exception) -> FactoryError:
    """The refusal of a run whose server can't be asked at all."""
    from prefect.settings import PREFECT_API_URL

    return FactoryError(
        "Prefect's server does not answer",
        where=PREFECT_API_URL.value() or "started by this run",
        found=(str(error) or type(error).__name__).splitlines()[0],
        fix="check PREFECT_API_URL and the server; without the variable and without a profile a server is started for the run",
    )
