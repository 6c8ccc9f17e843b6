"""The figures of the report, as inline SVG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from ctmr_core.report.margins import Spread

STYLE: Any = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "ctmr",
}
COLOUR = "#3a6ea5"
LINE_COLOUR = "#b23b3b"


def histogram(values: Sequence[float], title: str, unit: str) -> str:
    """A histogram with up to 20 bins; SVG text."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(2.9, 1.7), layout="constrained")
        axes = figure.subplots()
        axes.hist(values, bins=min(20, max(3, len(set(values)))), color=COLOUR)
        axes.set_title(title, fontsize=9)
        axes.set_xlabel(unit)
        axes.set_ylabel("cases")
        return _svg(figure)


def spread_figure(spread: Spread) -> str:
    """A histogram of a score with the thresholds of its check in red, where they are near enough to be drawn; SVG text."""
    values = spread.values
    low, high = float(values.min()), float(values.max())
    reach = 3 * max(high - low, 0.05 * max(abs(low), abs(high)), 1e-9)
    lines = [line for line in (spread.low, spread.high) if line is not None and low - reach <= line <= high + reach]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(2.9, 1.6), layout="constrained")
        axes = figure.subplots()
        edges = np.linspace(min([low, *lines]), max([high, *lines]) + 1e-9, 31)
        axes.hist(values, bins=edges.tolist(), color=COLOUR)
        for line in lines:
            axes.axvline(line, color=LINE_COLOUR, linewidth=1.2)
        check, _, score = spread.name.partition("/")
        axes.set_title(f"{check}: {score}" if len(spread.name) < 44 else f"{check}\n{score}", fontsize=8)
        axes.set_ylabel("cases")
        axes.locator_params(axis="x", nbins=5)
        return _svg(figure)


def bars(names: Sequence[str], values: Sequence[float], title: str, unit: str) -> str:
    """Horizontal bars, the first name on top; SVG text."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(2.9, 0.55 + 0.22 * len(names)), layout="constrained")
        axes = figure.subplots()
        axes.barh(range(len(names)), values, color=COLOUR)
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.set_title(title, fontsize=9)
        axes.set_xlabel(unit)
        return _svg(figure)


def _svg(figure: Figure) -> str:
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None})
    text = stream.getvalue()
    return text[text.index("<svg") :]
