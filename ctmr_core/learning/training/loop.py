"""The loop: updates, validation, checkpoints; stopped and resumed at any step with the same result."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from ctmr_core.errors import LearningError
from ctmr_core.learning.training import ranks
from ctmr_core.learning.training.board import Board, refuse_without_tensorboard
from ctmr_core.learning.training.checkpoints import Checkpoint, load_checkpoint, refuse_differences, save_checkpoint
from ctmr_core.learning.training.holding import FolderLock
from ctmr_core.learning.training.optimizing import Average, Player, Precision
from ctmr_core.learning.training.settings import TrainingSettings
from ctmr_core.learning.training.task import Step, Task

LAST = Path("checkpoints", "last.pt")
BEST = Path("checkpoints", "best.pt")
Reason = Literal["finished", "out of time", "stopped"]
_SKIPPED_IN_A_ROW = 10
_VALIDATION_PART = 1 << 16  # beyond any part of a batch


@dataclass(frozen=True)
class Report:
    """Something to tell, on every rank: ``train`` (means of loss and its parts since the last one), ``validation`` (scores) or
    ``checkpoint`` (its path, which only rank 0 wrote; values are the scores of the last validation)."""

    kind: Literal["train", "validation", "checkpoint"]
    step: int
    steps: int
    values: Mapping[str, float] = field(default_factory=dict)
    checkpoint: Path | None = None


@dataclass(frozen=True)
class FitResult:
    """How a training ended. reason: all steps done, ``minutes`` used up, or asked to stop. step: updates done in all.

    scores: of the last validation. best_score, best_step: None without validation. last, best: checkpoints.
    """

    reason: Reason
    step: int
    scores: dict[str, float]
    best_score: float | None
    best_step: int | None
    last: Path
    best: Path | None


def fit(
    task: Task,
    settings: TrainingSettings,
    folder: Path | str,
    *,
    seed: int = 0,
    resume: bool = True,
    should_stop: Callable[[], bool] | None = None,
    on_report: Callable[[Report], None] | None = None,
) -> FitResult:
    """Train ``task`` in ``folder``: ``checkpoints/last.pt`` and ``best.pt``, ``metrics.jsonl``, ``tensorboard/``.

    Goes on from ``checkpoints/last.pt`` where there is one (``resume``), with the batches and random numbers it would have had;
    without ``resume`` such a folder is refused. should_stop is asked after every step, on every rank; when any says yes a
    checkpoint is written and the training ends. on_report is called on every rank. In a process group all ranks call this with
    the same arguments and a folder they share.

    Raises ``LearningError`` for a checkpoint of another training and for a loss that is not finite.
    """
    loop = _Loop(task, settings, Path(folder), seed, should_stop or (lambda: False), on_report or (lambda _: None))
    try:
        loop.restore(resume)
        return loop.run()
    finally:
        loop.close()


class _Loop:
    def __init__(
        self,
        task: Task,
        settings: TrainingSettings,
        folder: Path,
        seed: int,
        should_stop: Callable[[], bool],
        on_report: Callable[[Report], None],
    ) -> None:
        self.task, self.settings, self.folder, self.seed = task, settings, folder, seed
        self.should_stop, self.on_report = should_stop, on_report
        self.device = ranks.device_of(settings.device)
        owned = {name for names in task.players.values() for name in names}
        for name, module in task.modules.items():
            module.to(self.device)
            if name not in owned:
                module.requires_grad_(False)
        self.trained = {name: task.modules[name] for name in task.modules if name in owned}
        self.networks = {name: ranks.wrapped(module, self.device) for name, module in task.modules.items()}
        self.precision = Precision(settings.precision, self.device)
        self.players = {
            name: Player(name, [task.modules[one] for one in names], settings, self.precision)
            for name, names in task.players.items()
        }
        self.averages = {name: Average(module, settings.ema) for name, module in self.trained.items()} if settings.ema else {}
        self.step = 0
        self.scores: dict[str, float] = {}
        self.best: tuple[float, int] | None = None
        self.validated_at = -1
        self.skipped = 0
        self.seconds = 0.0
        self.started = time.monotonic()
        self.sums: dict[str, torch.Tensor] = {}
        self.counted = 0
        self.board: Board | None = None
        self.lock: FolderLock | None = None

    # ---- checkpoints

    def restore(self, resume: bool) -> None:
        path = self.folder / LAST
        if self.settings.logging.tensorboard:
            refuse_without_tensorboard()
        self.lock = FolderLock(self.folder, self.device)
        if path.is_file():
            if not resume:
                raise LearningError(
                    "there is a training in this folder", where=str(path), fix="resume it, or train into another folder"
                )
            checkpoint = load_checkpoint(path)
            refuse_differences(path, checkpoint, self.task.name, self.task.identity)
            self._take_over(checkpoint)
        ranks.barrier()
        if ranks.rank() == 0:
            self.board = Board(self.folder, self.step, self.settings.logging.tensorboard)

    def _take_over(self, checkpoint: Checkpoint) -> None:
        state = checkpoint.training
        if state is None:
            raise LearningError("the checkpoint holds weights alone", where=str(self.folder / LAST), fix="resume from last.pt")
        for name, module in self.trained.items():
            module.load_state_dict(checkpoint.weights[name] if state["modules"] is None else state["modules"][name])
        for name, average in self.averages.items():
            average.load_state_dict(state["averages"][name])
        for name, player in self.players.items():
            player.load_state_dict(state["players"][name])
        self.task.batches.load_state_dict(state["batches"])
        self.step, self.scores, self.seconds = checkpoint.step, dict(checkpoint.scores), float(state["seconds"])
        self.best = None if state["best"] is None else (float(state["best"][0]), int(state["best"][1]))
        self.validated_at, self.skipped = int(state["validated_at"]), int(state["skipped"])
        self.counted = int(state["counted"])
        self.sums = {name: torch.tensor(value, dtype=torch.float64, device=self.device) for name, value in state["sums"].items()}

    def _weights(self) -> dict[str, dict[str, Any]]:
        modules = {name: average.module for name, average in self.averages.items()} or self.trained
        return {name: module.state_dict() for name, module in modules.items()}

    def _save(self) -> None:
        path = self.folder / LAST
        sums = ranks.averaged({name: value.item() for name, value in self.sums.items()}, self.device)
        if ranks.rank() == 0:
            training = {
                "modules": {name: module.state_dict() for name, module in self.trained.items()} if self.averages else None,
                "averages": {name: average.state_dict() for name, average in self.averages.items()},
                "players": {name: player.state_dict() for name, player in self.players.items()},
                "batches": self.task.batches.state_dict(),
                "seconds": self._seconds(),
                "best": None if self.best is None else list(self.best),
                "validated_at": self.validated_at,
                "skipped": self.skipped,
                "counted": self.counted,
                "sums": sums,
            }
            save_checkpoint(path, self._checkpoint(training))
        ranks.barrier()
        self.on_report(Report("checkpoint", self.step, self.settings.steps, self.scores, path))

    def _checkpoint(self, training: dict[str, Any] | None) -> Checkpoint:
        return Checkpoint(
            task=self.task.name,
            step=self.step,
            identity=dict(self.task.identity),
            records=dict(self.task.records),
            weights=self._weights(),
            scores=self.scores,
            training=training,
        )

    # ---- the run

    def run(self) -> FitResult:
        stream = self._stream()
        reason: Reason | None = self._ended()
        if reason is None and self.step and self._validation_is_due(None):
            self._validate()  # the training was stopped before it could
        while reason is None:
            self._update([next(stream) for _ in range(self.settings.accumulate)])
            self.step += 1
            reason = self._ended()
            if reason is None and ranks.on_any(self.should_stop(), self.device):
                reason = "stopped"
            if self.step % self.settings.logging.every == 0:
                self._log()
            if self._validation_is_due(reason):
                self._validate()
            if reason is not None or self.step % self.settings.checkpoint_every == 0:
                self._save()
        return FitResult(
            reason=reason,
            step=self.step,
            scores=self.scores,
            best_score=self.best[0] if self.best else None,
            best_step=self.best[1] if self.best else None,
            last=self.folder / LAST,
            best=self.folder / BEST if self.best else None,
        )

    def close(self) -> None:
        if self.board is not None:
            self.board.close()
        if self.lock is not None:
            self.lock.release()

    def _stream(self) -> Iterator[Any]:
        while True:
            yield from self.task.batches

    def _ended(self) -> Reason | None:
        if self.step >= self.settings.steps:
            return "finished"
        minutes = self.settings.minutes
        if minutes is not None and self.step and ranks.on_any(self._seconds() > 60 * minutes, self.device):
            return "out of time"
        return None

    def _seconds(self) -> float:
        return self.seconds + time.monotonic() - self.started

    def _validation_is_due(self, reason: Reason | None) -> bool:
        every = self.settings.validate_every
        is_its_turn = bool(every and self.step % every == 0)
        return reason != "stopped" and self.validated_at != self.step and (reason is not None or is_its_turn)

    # ---- one update

    def _update(self, batches: list[Any]) -> None:
        self._set_modes(training=True)
        factor = self.settings.schedule.factor(self.step, self.settings.steps)
        for player in self.players.values():
            player.begin(factor)
            finite = True
            for part, batch in enumerate(batches):
                finite = self._backward(player, batch, part, part == len(batches) - 1) and finite
            # a skipped step leaves nothing behind; with loss scaling the scaler itself skips what overflowed
            norm_is_finite = player.finish(skip=not finite)
            if finite and not norm_is_finite:
                self._meet_nonfinite("gradient", [name for batch in batches for name in self.task.items_of(batch)])
            elif finite:
                self.skipped = 0
        for average in self.averages.values():
            average.update()
        self.counted += 1

    def _backward(self, player: Player, batch: Any, part: int, is_last: bool) -> bool:
        with self._drawing(part) as rng, ExitStack() as stack:
            if not is_last:
                for network in self.networks.values():
                    stack.enter_context(ranks.unsynchronized(network))
            with self.precision.autocast():
                step = Step(self.step, player.name, self.device, rng, self.folder)
                total, parts = self.task.loss(batch, self.networks, step)
            finite = not ranks.on_any(not bool(torch.isfinite(total.detach()).all()), self.device)
            if not finite:
                self._meet_nonfinite("loss", self.task.items_of(batch))
                return False
            player.backward(total / self.settings.accumulate)
        prefix = "" if len(self.players) == 1 else f"{player.name}/"
        for name, value in {"loss": total, **parts}.items():
            share = value.detach().as_subclass(torch.Tensor).double() / self.settings.accumulate
            self.sums[prefix + name] = self.sums.get(prefix + name, torch.zeros_like(share)) + share
        return True

    def _meet_nonfinite(self, what: str, items: list[str]) -> None:
        self.skipped += 1
        if self.settings.nonfinite == "skip" and self.skipped < _SKIPPED_IN_A_ROW:
            return
        raise LearningError(
            f"the {what} is not finite",
            where=f"step {self.step + 1}",
            found=items or None,
            fix="look at these items, lower the learning rate, or train in float32; "
            f"{LAST} holds the state of the last checkpoint",
        )

    @contextmanager
    def _drawing(self, part: int) -> Iterator[torch.Generator]:
        """Random numbers that depend on where the training is, not on what was drawn before."""
        sequence = np.random.SeedSequence([self.seed, self.step, part, ranks.rank()])
        own, global_ = (int(value) for value in sequence.generate_state(2, np.uint64) >> np.uint64(1))
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(global_)
            yield torch.Generator().manual_seed(own)

    def _set_modes(self, *, training: bool) -> None:
        for name, network in self.networks.items():
            network.train(training and name in self.trained)

    # ---- telling

    def _log(self) -> None:
        if not self.counted:
            return
        values = ranks.averaged({name: value.item() / self.counted for name, value in self.sums.items()}, self.device)
        first = next(iter(self.players.values()))
        values["learning_rate"] = first.learning_rate
        self.sums, self.counted = {}, 0
        self._tell("train", values)

    def _validate(self) -> None:
        self._set_modes(training=False)
        averaged = {name: average.module.eval() for name, average in self.averages.items()}
        networks = {**self.task.modules, **averaged}
        with self._drawing(_VALIDATION_PART) as rng, torch.inference_mode(), self.precision.autocast():
            self.scores = dict(
                self.task.validate(networks, Step(self.step, "validation", self.device, rng, self.folder, self._show))
            )
        self.validated_at = self.step
        if self.scores:
            self._tell("validation", self.scores)
        score = self.scores.get(self.task.best_by) if self.task.best_by else None
        if score is not None and np.isfinite(score) and self._is_better(score):
            self.best = (score, self.step)
            if ranks.rank() == 0:
                save_checkpoint(self.folder / BEST, self._checkpoint(None))

    def _show(self, name: str, pixels: np.ndarray) -> None:
        if self.board is not None:
            self.board.picture(f"validation/{name}", self.step, pixels)

    def _is_better(self, score: float) -> bool:
        return self.best is None or (score > self.best[0] if self.task.higher_is_better else score < self.best[0])

    def _tell(self, kind: Literal["train", "validation"], values: dict[str, float]) -> None:
        if self.board is not None:
            self.board.write(kind, self.step, values)
        self.on_report(Report(kind, self.step, self.settings.steps, values))
