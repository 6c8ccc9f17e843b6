"""A Ray cluster for the length of a run: one that is there already, or a local one started and stopped with it."""

from __future__ import annotations

import contextlib
import logging
import math
import os
from collections.abc import Iterator

import ray

from pipelines.factory.driver import FactoryError

#: Only kilobytes pass through the object store (actors write volumes themselves), so a local one can stay small.
OBJECT_STORE_BYTES = 128 * 1024 * 1024


@contextlib.contextmanager
def ray_cluster(address: str | None, cpus: float, gpus: float = 0.0) -> Iterator[None]:
    """Connect to ``address`` (``"auto"``, ``"host:port"``), or start a local cluster with room for ``cpus`` and ``gpus``.

    A Ray that is initialised already (a test, a notebook, a Ray job) is used as it is and left running.
    Ray Client (``ray://``) is refused: the driver belongs into the cluster, submit it as a Ray job.
    """
    if ray.is_initialized():
        yield
        return
    if address and address.startswith("ray://"):
        raise FactoryError(
            "the driver does not run over Ray Client",
            found=address,
            allowed='"auto" or "host:port" from inside the cluster',
            fix="submit the command with `ray job submit -- ctmr generate ...`",
        )
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    options = {"address": address} if address else _local_options(cpus, gpus)
    try:
        ray.init(log_to_driver=False, logging_level=logging.ERROR, configure_logging=False, **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise FactoryError("no Ray cluster", where=address or "local", found=str(error), fix="check --address") from error
    try:
        yield
    finally:
        ray.shutdown()


def _local_options(cpus: float, gpus: float) -> dict[str, object]:
    return {
        "address": "local",  # without it Ray joins a cluster that someone else has started on this machine
        "num_cpus": max(math.ceil(cpus), os.cpu_count() or 1),
        "num_gpus": math.ceil(gpus) or None,
        "include_dashboard": False,
        "object_store_memory": OBJECT_STORE_BYTES,
    }
