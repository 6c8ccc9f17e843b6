"""Tables and figure of ``usefulness.py``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ctmr_core.report.figures import COLOUR, LINE_COLOUR, STYLE

_GREY = "#b8b8b8"


def tables(results: dict[str, Any]) -> str:
    """Markdown: per class of the long run beside the baselines, then every run, then further scans."""
    runs, others = results.get("runs", {}), results.get("baselines", {})
    parts = []
    if "main" in runs:
        parts.append(_per_class(runs["main"], others))
    lines = ["| trained on | cases | updates | CPU minutes | mean Dice |", "|---|---|---|---|---|"]
    for name, run in runs.items():
        cases = "+".join("rendered" if count is None else str(count) for count in run["cases"])
        lines.append(f"| {name} | {cases} | {run['steps']} | {run['cpu_minutes']:.1f} | {run['mean']:.3f} |")
    lines += [f"| {name}, nothing learned | | | | {one['mean']:.3f} |" for name, one in others.items()]
    parts.append("\n".join(lines))
    if "further" in results:
        parts.append(_further(results["further"]))
    return "\n\n".join(parts) + "\n"


def _further(runs: dict[str, Any]) -> str:
    lines = ["| trained on | scan | class | ml | Dice | HD95 mm | recall |", "|---|---|---|---|---|---|---|"]
    for run, scans in runs.items():
        for scan, classes in scans.items():
            for name, one in classes.items():
                figures = f"{one['ml']:.0f} | {one['dice']:.3f} | {one['hd95']:.1f} | {one['recall']:.3f}"
                lines.append(f"| {run} | {scan} | {name} | {figures} |")
    return "\n".join(lines)


def _per_class(run: dict[str, Any], others: dict[str, Any]) -> str:
    head = ["class", "ml", "Dice", "HD95 mm", *(f"{name}: Dice" for name in others)]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for name, score in run["classes"].items():
        beside = [one["classes"].get(name, {}).get("dice", 0.0) for one in others.values()]
        cells = [name, f"{score['ml']:.0f}", f"{score['dice']:.3f}", f"{score['hd95']:.1f}", *(f"{dice:.3f}" for dice in beside)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(results: dict[str, Any], path: Path, title: str) -> None:
    """Left: Dice per class of the long run, the atlas behind. Right, if there are other runs: mean Dice of each."""
    runs, others = results.get("runs", {}), results.get("baselines", {})
    if "main" not in runs:
        return
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(8.6, 3.8), layout="constrained")
        short = {name: run for name, run in runs.items() if name != "main"}
        left, *right = figure.subplots(1, 2, width_ratios=[1.5, 1]) if short else [figure.subplots()]
        classes = runs["main"]["classes"]
        place = np.arange(len(classes))
        if "atlas" in others:
            dice = [others["atlas"]["classes"].get(name, {}).get("dice", 0.0) for name in classes]
            left.barh(place + 0.2, dice, 0.4, color=_GREY, label="label maps laid over the scan")
        left.barh(place - 0.2, [one["dice"] for one in classes.values()], 0.4, color=COLOUR, label="network")
        left.set_yticks(place, list(classes))
        left.invert_yaxis()
        left.set_xlim(0, 1)
        left.set_xlabel("Dice on the real scan")
        left.set_title(f"{title}: trained on generated volumes only, {runs['main']['steps']} updates", fontsize=9)
        left.legend(loc="upper left", bbox_to_anchor=(0.0, -0.12), ncols=2, fontsize=7, frameon=False)
        for axes in right:
            _draw_means(axes, short, runs["main"]["mean"])
        figure.savefig(path, dpi=120)


def _draw_means(axes: Axes, runs: dict[str, Any], long_run: float) -> None:
    spots = np.arange(len(runs))
    axes.barh(spots, [run["mean"] for run in runs.values()], 0.6, color=COLOUR)
    axes.set_yticks(spots, [f"{name} ({run['steps']})" for name, run in runs.items()])
    axes.invert_yaxis()
    axes.axvline(long_run, color=LINE_COLOUR, lw=1)
    axes.set_xlim(0, 1)
    axes.set_xlabel("mean Dice on the real scan (red: main)")
    axes.set_title("trained on (updates)", fontsize=9)
