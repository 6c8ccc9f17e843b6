"""The files under ``infra/``, the tools that judge them, and free ports."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

REPOSITORY = Path(__file__).resolve().parents[2]
INFRA = REPOSITORY / "infra"

Tool = Callable[..., subprocess.CompletedProcess[str]]


def documents(path: Path) -> list[Any]:
    """Every document of a YAML file, anchors and merges resolved."""
    return list(YAML(typ="safe").load_all(path.read_text(encoding="utf-8")))


@pytest.fixture
def tool() -> Tool:
    """Run a tool of the development environment; the test is skipped, with the reason, where it is not installed."""

    def run(name: str, *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
        beside = Path(sys.executable).with_name(name)
        command = str(beside) if beside.exists() else shutil.which(name)
        if command is None:
            pytest.skip(f"{name} is not installed")
        return subprocess.run(
            [command, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=120, **options
        )

    return run


def free_ports(count: int) -> list[int]:
    """TCP ports nobody listens on."""
    holders = [socket.socket() for _ in range(count)]
    try:
        for holder in holders:
            holder.bind(("127.0.0.1", 0))
        return [holder.getsockname()[1] for holder in holders]
    finally:
        for holder in holders:
            holder.close()
