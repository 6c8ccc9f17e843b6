"""One training at a time in a folder, on one machine."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import IO

import torch

from ctmr_core.errors import LearningError
from ctmr_core.learning.training import ranks

LOCK = ".lock"


class FolderLock:
    """Held by rank 0 until it is released or its process ends, however it ends; every rank raises when somebody else holds it."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        self._stream: IO[str] | None = None
        taken = False
        if ranks.rank() == 0:
            folder.mkdir(parents=True, exist_ok=True)
            self._stream = (folder / LOCK).open("a", encoding="utf-8")
            try:
                fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                taken = True
        if ranks.on_any(taken, device):
            self.release()
            raise LearningError(
                "another training runs in this folder", where=str(folder), fix="stop it, or choose another folder"
            )

    def release(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None
