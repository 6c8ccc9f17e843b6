"""The live picture of a training on a terminal, and plain lines where there is none."""

from __future__ import annotations

import time
from collections.abc import Mapping

from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ctmr_core.learning.training.loop import Report
from pipelines.cli.live import LiveView, duration

_PACE_REPORTS = 20  # the pace is that of the last so many reports


class LiveTraining(LiveView):
    """An observer of reports that draws them."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._began = time.monotonic()
        self._steps: list[tuple[float, int]] = []
        self._values: dict[str, float] = {}
        self._scores: dict[str, float] = {}
        self._scored_at = 0
        self._note = ""

    def __call__(self, report: Report) -> None:
        """Show the training as it is now."""
        self._take(report)
        if self._live or report.kind in ("train", "validation"):
            self._show(lambda: self._picture(report), lambda: self._line(report), now=report.kind == "validation")

    def _take(self, report: Report) -> None:
        if self._steps and report.step < self._steps[-1][1]:
            self._steps = []  # workers were lost: it goes on from the last checkpoint
            self._note = f"began again at step {report.step}, from the last checkpoint"
        self._steps = [*self._steps[-_PACE_REPORTS:], (time.monotonic(), report.step)]
        if report.kind == "train":
            self._values = dict(report.values)
        elif report.kind == "validation":
            self._scores, self._scored_at = dict(report.values), report.step

    def _steps_per_second(self) -> float | None:
        (t0, s0), (t1, s1) = self._steps[0], self._steps[-1]
        return (s1 - s0) / (t1 - t0) if s1 > s0 and t1 > t0 else None

    def _line(self, report: Report) -> Text:
        head = f"step {report.step}/{report.steps}   "
        values = report.values if report.kind == "validation" else self._values
        return Text.assemble((head, "bold"), f"{report.kind} " if report.kind == "validation" else "", _told(values))

    def _picture(self, report: Report) -> RenderableType:
        pace = self._steps_per_second()
        bar = Table.grid(padding=(0, 2), expand=False)
        bar.add_row(
            Text(f"{report.step}/{report.steps} steps", "bold"),
            ProgressBar(total=max(report.steps, 1), completed=report.step, width=36),
            Text(f"{60 * pace:.1f} steps/min" if pace else "? steps/min"),
            Text(f"ETA {duration((report.steps - report.step) / pace if pace else None)}"),
            Text(f"elapsed {duration(time.monotonic() - self._began)}", "dim"),
        )
        parts: list[RenderableType] = [bar, _told(self._values)]
        if self._scores:
            parts.append(Text.assemble((f"validation at step {self._scored_at}   ", "dim"), _told(self._scores)))
        if self._note:
            parts.append(Text(self._note, "bold yellow"))
        return Group(*parts)


def _told(values: Mapping[str, float]) -> Text:
    """``loss 0.412   learning_rate 0.001``, names dim."""
    text = Text()
    for name, value in values.items():
        text.append(f"{name} ", "dim")
        text.append(f"{value:.4g}   ", "bold")
    return text
