"""Prefect's server for the length of one run: ``python -m pipelines.flows.local_server SOCKET PARENT``.

It serves the listening socket it inherits as file descriptor SOCKET, and ends with the process PARENT, whatever ended that:
Prefect's own ephemeral server stays behind when its parent is killed.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time

WATCH_SECONDS = 0.5


def main(descriptor: int, parent: int) -> None:
    """Serve until the parent ends or asks (SIGTERM)."""
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    import uvicorn
    from prefect.server.api.server import create_app

    server = uvicorn.Server(uvicorn.Config(create_app, factory=True, log_level="error", lifespan="on"))
    server.run(sockets=[socket.socket(fileno=descriptor)])


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(WATCH_SECONDS)
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
