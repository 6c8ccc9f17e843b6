"""Prefect's settings for the factory, made before Prefect is imported.

A server that is configured (``PREFECT_API_URL``, a profile) is used. Without one, Prefect starts its ephemeral server on
this machine for the length of the run. Telemetry is off in every server and client the project starts.
"""

from __future__ import annotations

import os

_DEFAULTS = {
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_TO_API_ENABLED": "false",
}
_ALWAYS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
    "PREFECT_TELEMETRY_ENABLE_RESOURCE_METRICS": "false",
    "DO_NOT_TRACK": "1",
}


def prepare_prefect() -> None:
    """Set what the factory needs; what the user has set stays, but for telemetry."""
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    os.environ.update(_ALWAYS)
