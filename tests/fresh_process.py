"""Programs of tests that must not run inside pytest's own process.

Code that forks is one: pytest's process holds threads (servers, tensorstore, torch), and a child forked while one of them holds a
lock may wait for ever.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

#: Seconds. Importing nnU-Net takes three on a quiet machine.
PATIENCE = 300


def run_fresh(program: str, *arguments: object) -> str:
    """What ``program`` prints, run by a new Python with ``arguments`` in the repository's folder; fails with its errors."""
    ended = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert ended.returncode == 0, f"exit {ended.returncode}\n{ended.stdout}\n{ended.stderr}"
    return ended.stdout
