"""What a training writes while it runs: ``metrics.jsonl`` always, event files for TensorBoard when asked."""

from __future__ import annotations

import importlib.util
import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ctmr_core.errors import LearningError

METRICS = "metrics.jsonl"
EVENTS = "tensorboard"


class Board:
    """Appends to ``metrics.jsonl`` in ``folder``, and to ``tensorboard/`` if asked.

    step: where the training goes on; what an interrupted one had written beyond is dropped.
    """

    def __init__(self, folder: Path, step: int, tensorboard: bool) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / METRICS
        _keep_until(self._path, step)
        self._stream = self._path.open("a", encoding="utf-8")
        self._writer = _writer(folder / EVENTS, step) if tensorboard else None

    def write(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        """One line: kind (``train``, ``validation``), step, seconds since the epoch and the values; NaN becomes null."""
        plain = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._stream.write(json.dumps({"kind": kind, "step": step, "time": round(time.time(), 3), **plain}) + "\n")
        self._stream.flush()
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(f"{kind}/{name}", value, step)

    def picture(self, name: str, step: int, pixels: np.ndarray) -> None:
        """uint8 [height, width, 3], in TensorBoard."""
        if self._writer is not None:
            self._writer.add_image(name, pixels, step, dataformats="HWC")

    def close(self) -> None:
        self._stream.close()
        if self._writer is not None:
            self._writer.close()


def refuse_without_tensorboard() -> None:
    """``LearningError`` that says how to install it, or to do without."""
    if importlib.util.find_spec("tensorboard") is None:
        raise LearningError(
            "TensorBoard is not installed",
            where="field training.logging.tensorboard",
            fix="`pip install 'ctmr-factory[train]'`, or set it to false; metrics.jsonl is written anyway",
        )


def read_metrics(folder: Path, kind: str | None = None) -> list[dict[str, Any]]:
    """The lines of a training's ``metrics.jsonl``, of one kind or all."""
    path = Path(folder) / METRICS
    if not path.is_file():
        raise LearningError("there is no training here", where=str(path))
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
    return [line for line in lines if kind is None or line["kind"] == kind]


def _keep_until(path: Path, step: int) -> None:
    if not path.is_file():
        return
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
    kept = [line for line in lines if json.loads(line)["step"] <= step]
    beside = path.with_suffix(".tmp")
    beside.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
    beside.replace(path)


def _writer(folder: Path, step: int) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=step + 1 if step else None)  # type: ignore[no-untyped-call]
