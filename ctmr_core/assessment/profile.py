"""What is in a set, and whether it is what was asked for: from the catalog alone, without a voxel."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import stats

from ctmr_core.assessment.catalog_summary import CatalogSummary, summarise
from ctmr_core.cases.targets import NumberTarget, Targets
from ctmr_core.store import Dataset

#: A difference that chance makes once in a hundred sets is no reason to fail one.
CHANCE = 0.01
_GRID = (np.arange(1000) + 0.5) / 1000  # probabilities at which a distribution is compared with its target


def profile(dataset: Dataset, targets: Targets | None = None) -> dict[str, Any]:
    """Kinds and numbers of a set, JSON-able; with ``targets`` one finding for each (see ``set_measures``)."""
    return describe(summarise(dataset), targets)


def describe(summary: CatalogSummary, targets: Targets | None = None) -> dict[str, Any]:
    """:func:`profile` of a summary that was already taken."""
    return {
        "cases": summary.cases,
        "bodies": summary.bodies,
        "exact": summary.exact,
        "categories": summary.categories,
        "numbers": {name: summary.statistics(name) for name in summary.moments},
        "targets": compare(summary, targets) if targets else [],
    }


def compare(summary: CatalogSummary, targets: Targets) -> list[dict[str, Any]]:
    """One finding per target: target, passed, line, distance and what else was computed."""
    found = [_shares(summary, what, wanted, targets.tolerance) for what, wanted in targets.shares.items()]
    return found + [_number(summary, name, target) for name, target in targets.numbers.items()]


def _shares(summary: CatalogSummary, what: str, wanted: dict[str, float], tolerance: float) -> dict[str, Any]:
    """Total variation distance and the chi-square test. Values that no target names count as one more kind, wanted never."""
    counts = summary.categories.get(what, {})
    total = sum(counts.values())
    if not total:
        return _nothing(what)
    whole = sum(wanted.values())
    names = [*wanted, *sorted(set(counts) - set(wanted))]
    expected = np.array([wanted.get(name, 0.0) / whole for name in names])
    shares = np.array([counts.get(name, 0) for name in names]) / total
    distance = float(np.abs(shares - expected).sum() / 2)
    possible = expected > 0
    chance = 0.0
    if not shares[~possible].any():
        chi_square = total * float(((shares - expected)[possible] ** 2 / expected[possible]).sum())
        chance = float(stats.chi2.sf(chi_square, possible.sum() - 1)) if possible.sum() > 1 else 1.0
    worst = int(np.abs(shares - expected).argmax())
    passed = distance <= tolerance or chance >= CHANCE
    line = f"{what}: {names[worst]} {shares[worst]:.1%}, wanted {expected[worst]:.1%}; off by {distance:.3f} in all"
    return {
        "target": what,
        "passed": passed,
        "line": line,
        "distance": distance,
        "chance": chance,
        "found": {name: float(share) for name, share in zip(names, shares, strict=True)},
        "wanted": {name: float(share) for name, share in zip(names, expected, strict=True)},
    }


def _number(summary: CatalogSummary, name: str, target: NumberTarget) -> dict[str, Any]:
    values = summary.samples.get(name, np.empty(0))
    if not len(values):
        return _nothing(name)
    if target.low is not None or target.high is not None:
        low = -np.inf if target.low is None else target.low
        high = np.inf if target.high is None else target.high
        inside = float(((values >= low) & (values <= high)).mean())
        line = f"{name}: {inside:.1%} of the cases in {low:g}..{high:g}, wanted {target.share:.1%}"
        median = float(np.median(values))
        return {"target": name, "passed": inside >= target.share, "line": line, "share": inside, "median": median}
    wanted = _wanted_quantiles(target)
    distance = float(np.abs(np.quantile(values, _GRID) - wanted).mean() / max(wanted.std(), 1e-12))
    line = f"{name}: median {np.median(values):.4g}, wanted {np.median(wanted):.4g}; Wasserstein distance {distance:.2f} sd"
    return {"target": name, "passed": distance <= target.distance, "line": line, "distance": distance}


def _wanted_quantiles(target: NumberTarget) -> np.ndarray:
    if target.quantiles is not None:
        percents = sorted(target.quantiles)
        return np.interp(100 * _GRID, percents, [target.quantiles[percent] for percent in percents])
    return np.asarray(stats.norm.ppf(_GRID, target.mean, target.sd))


def _nothing(name: str) -> dict[str, Any]:
    return {"target": name, "passed": False, "line": f"{name}: no case has it"}
