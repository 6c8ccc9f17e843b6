"""Prefect's settings and server for the factory.

A server that is configured (``PREFECT_API_URL``, a profile) is used. Without one, :func:`prefect_server` starts a server on
this machine for the length of the process. Telemetry is off in every server and client the project starts.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from pipelines.factory.driver import FactoryError

STARTUP_SECONDS = 180.0
_DEFAULTS = {
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": str(int(STARTUP_SECONDS)),
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_INTERNAL_LEVEL": "CRITICAL",  # its background threads tell a lost server in pages
    "PREFECT_LOGGING_TO_API_ENABLED": "false",
    "PREFECT_CLIENT_MAX_RETRIES": "3",  # pauses of 2, 4 and 8 s: a restart of the server is waited for, its loss is not
}
_ALWAYS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
    "PREFECT_TELEMETRY_ENABLE_RESOURCE_METRICS": "false",
    "DO_NOT_TRACK": "1",
}
_server_lock = threading.Lock()
_server: PrefectServer | None = None


def prepare_prefect() -> None:
    """Set what the factory needs; what the user has set stays, but for telemetry. To be called before Prefect is imported."""
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    os.environ.update(_ALWAYS)


@contextlib.contextmanager
def prefect_server() -> Iterator[None]:
    """Prefect's calls inside go to the configured server, or to one of this process, started when first needed."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    if PREFECT_API_URL.value():
        yield
        return
    with temporary_settings({PREFECT_API_URL: _local_server().url}):
        yield


def _local_server() -> PrefectServer:
    global _server  # noqa: PLW0603 - one per process, as Prefect's own
    with _server_lock:
        if _server is None or not _server.runs:
            _server = PrefectServer()
        return _server


class PrefectServer:
    """A child process with Prefect's server, on a free port of this machine only."""

    def __init__(self) -> None:
        listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listening.getsockname()[1]}/api"
        with listening:
            self._process = subprocess.Popen(  # noqa: S603 - this package, with numbers for arguments
                [sys.executable, "-m", "pipelines.flows.local_server", str(listening.fileno()), str(os.getpid())],
                pass_fds=[listening.fileno()],
                env={**os.environ, "PREFECT_UI_ENABLED": "0", "PYTHONPATH": _search_path()},
                stdin=subprocess.DEVNULL,
            )
        atexit.register(self.stop)
        self._wait_until_it_answers()

    @property
    def runs(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> None:
        """End the server."""
        atexit.unregister(self.stop)
        self._process.terminate()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + STARTUP_SECONDS
        while self.runs and time.monotonic() < deadline:
            with contextlib.suppress(urllib.error.URLError, OSError):
                urllib.request.urlopen(f"{self.url}/health", timeout=5).close()  # noqa: S310 - http on this machine
                return
            time.sleep(0.1)
        found = "no answer" if self.runs else f"its process ended with code {self._process.returncode}"
        self.stop()
        raise FactoryError(
            "Prefect's server did not start",
            where=self.url,
            found=f"{found} within {STARTUP_SECONDS:.0f} s",
            fix="look at its messages above; or start one with `prefect server start` and set PREFECT_API_URL",
        )


def _search_path() -> str:
    """PYTHONPATH that lets the child find this package, installed or not."""
    here = str(Path(__file__).resolve().parents[2])
    return os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH", "")]))
