"""Settings of a Prefect server that belongs to the project."""

from __future__ import annotations

import os
from pathlib import Path

from pipelines.flows.environment import prepare_prefect


def server_environment(home: Path | None = None) -> dict[str, str]:
    """Environment variables for ``prefect server start``.

    Leases of running nights are kept on disk, so that a restart of the server does not end them: the default keeps them in
    memory, and a run whose lease is gone is stopped.
    """
    level = os.environ.get("PREFECT_LOGGING_LEVEL", "WARNING")
    prepare_prefect()
    settings = {
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        "PREFECT_LOGGING_LEVEL": level,
        "DO_NOT_TRACK": "1",
    }
    if home is not None:
        settings["PREFECT_HOME"] = str(home.expanduser().resolve())
    return settings
