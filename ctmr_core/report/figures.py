"""The figures of the report, as inline SVG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

STYLE: Any = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "ctmr",
}
COLOUR = "#3a6ea5"


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
