"""The live picture of a run on a terminal, and plain lines where there is none."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pipelines.factory.tally import Progress

MOST_ACTORS = 32  # rows of the live picture; a cluster has more
PLAIN_SECONDS = 10.0  # one line this often when the output is not a terminal


def duration(seconds: float | None) -> str:
    """``"1 h 02 min"``, ``"3 min 20 s"``, ``"12 s"``; ``"?"`` for None."""
    if seconds is None:
        return "?"
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    if whole >= 60:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole} s"


def counts(progress: Progress) -> Text:
    """``accepted 3  rejected 0  failed 1 ...`` in colours, zeros dim."""
    parts = [
        ("accepted", progress.accepted, "green"),
        ("rejected", progress.rejected, "yellow"),
        ("failed", progress.failed, "red"),
        ("quarantined", progress.quarantined, "magenta"),
    ]
    text = Text()
    for name, number, colour in parts:
        text.append(f"{name} ", "dim")
        text.append(f"{number}   ", f"bold {colour}" if number else "dim")
    return text


class LiveView:
    """A picture that is drawn again and again on a terminal, or a line now and then; use as a context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, refresh_per_second=4, transient=True) if console.is_terminal else None
        self._last_line = float("-inf")

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live:
            self._live.stop()

    def _show(self, picture: Callable[[], RenderableType], line: Callable[[], Text], *, now: bool = False) -> None:
        """The picture; without a terminal the line, if it is ``now`` to be told or the last one is old enough."""
        if self._live:
            self._live.update(picture())
        elif now or time.monotonic() - self._last_line >= PLAIN_SECONDS:
            self._last_line = time.monotonic()
            self._console.print(line(), soft_wrap=True, highlight=False)


class LiveRun(LiveView):
    """An observer of ``Progress`` that draws it."""

    def __call__(self, progress: Progress) -> None:
        """Show the run as it is now."""
        self._show(lambda: self._picture(progress), lambda: self._line(progress))

    @staticmethod
    def _line(progress: Progress) -> Text:
        head = f"{progress.done}/{progress.planned} cases   "
        tail = f"{progress.per_minute:.1f} volumes/min   ETA {duration(progress.eta_seconds)}"
        return Text.assemble((head, "bold"), counts(progress), tail)

    def _picture(self, progress: Progress) -> Group:
        bar = Table.grid(padding=(0, 2), expand=False)
        bar.add_row(
            Text(f"{progress.done}/{progress.planned} cases", "bold"),
            ProgressBar(total=max(progress.planned, 1), completed=progress.done, width=36),
            Text(f"{progress.per_minute:.1f} volumes/min"),
            Text(f"ETA {duration(progress.eta_seconds)}"),
            Text(f"elapsed {duration(progress.seconds)}", "dim"),
        )
        actors = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
        for title in ("actor", "case", "stage", "attempt", "for", "memory"):
            actors.add_column(title)
        shown = sorted(progress.actors.items())
        for index, status in shown[:MOST_ACTORS]:
            busy = bool(status.case_id)
            actors.add_row(
                str(index),
                status.case_id or "-",
                Text(status.stage, "" if busy else "dim"),
                str(status.attempt + 1) if busy else "-",
                duration(status.seconds) if busy else "-",
                Text(f"{status.rss_bytes / 1e9:.1f} GB" if status.rss_bytes else "-", "dim"),
            )
        parts: list[Text | Table] = [bar, counts(progress), actors]
        if len(shown) > MOST_ACTORS:
            parts.append(Text(f"and {len(shown) - MOST_ACTORS} more actors, on {progress.nodes} nodes", "dim"))
        if progress.message:
            parts.append(Text(progress.message, "bold yellow"))
        return Group(*parts)
