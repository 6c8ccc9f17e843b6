"""Whether the newer of two sets still looks like the older one: every score, label volume and kind of case compared.

Population stability index (PSI) over the deciles of the older set, with the customary marks: below 0.1 the same, above 0.25
another distribution (Siddiqi, Credit Risk Scorecards, 2006). Of small sets the index is large by chance, so a move must be
one that chance does not make too, at a level shared by everything compared: of numbers by the Kolmogorov-Smirnov test, of kinds
by the index itself, which is about chi-square distributed, scaled by 1/n + 1/m (Yurdakul 2018).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import stats

from ctmr_core.assessment.catalog_summary import CatalogSummary, summarise
from ctmr_core.store import Dataset

MOVED = 0.1
DRIFTED = 0.25
BINS = 10
LEVEL = 0.01  # chance that any of the numbers of two sets alike is said to have moved
_EXACT = 500  # values up to which the test is exact and still quick
_OFTEN = 0.05  # a value that so many cases of the older set share is a bin of its own
_FEWEST = 10  # values on both sides, to compare them at all


def drift(before: Dataset, after: Dataset) -> dict[str, Any]:
    """Everything compared, JSON-able: cases of both, ``moved`` (worst first), ``categories`` and ``numbers``.

    Each entry: psi, p (how often chance does as much), state ("same", "moved", "drifted"; "few" with less than 10 values);
    numbers also ks, wasserstein (in sd of the older set) and the medians; categories the shares of both.
    """
    return compare(summarise(before), summarise(after))


def compare(a: CatalogSummary, b: CatalogSummary) -> dict[str, Any]:
    """:func:`drift` of two summaries."""
    names = sorted({*a.moments, *b.moments})
    whats = sorted({*a.categories, *b.categories})
    level = LEVEL / max(len(names) + len(whats), 1)
    numbers = {name: _number(a.samples.get(name), b.samples.get(name), level) for name in names}
    categories = {what: _category(a.categories.get(what, {}), b.categories.get(what, {}), level) for what in whats}
    both = {**{f"number {name}": entry for name, entry in numbers.items()}, **{f"kind {n}": e for n, e in categories.items()}}
    moved = sorted(
        (name for name, entry in both.items() if entry["state"] in ("moved", "drifted")), key=lambda n: -both[n]["psi"]
    )
    return {
        "cases": {"before": a.cases, "after": b.cases},
        "thresholds": {"moved": MOVED, "drifted": DRIFTED, "bins": BINS, "level": LEVEL},
        "moved": [{"what": name, "psi": both[name]["psi"], "state": both[name]["state"]} for name in moved],
        "categories": categories,
        "numbers": numbers,
        "passed": not any(both[name]["state"] == "drifted" for name in moved),
    }


def _number(a: np.ndarray | None, b: np.ndarray | None, level: float) -> dict[str, Any]:
    a, b = np.empty(0) if a is None else a, np.empty(0) if b is None else b
    counts = {"before": len(a), "after": len(b)}
    if min(len(a), len(b)) < _FEWEST:
        return {"state": "few", "psi": 0.0, "values": counts}
    edges = _edges(a)
    before, after = (np.bincount(np.searchsorted(edges, values), minlength=len(edges) + 1) for values in (a, b))
    far = stats.ks_2samp(a, b, method="exact" if max(len(a), len(b)) <= _EXACT else "asymp")
    entry = _judged(stability_index(before, after), float(far.pvalue), level)
    spread = float(a.std())
    off = float(stats.wasserstein_distance(a, b))
    return entry | {
        "ks": float(far.statistic),
        "wasserstein": off / spread if spread > 0 else (0.0 if off == 0 else off),
        "median": {"before": float(np.median(a)), "after": float(np.median(b))},
        "values": counts,
    }


def _edges(values: np.ndarray) -> np.ndarray:
    """Upper ends of the bins: the deciles, and both ends of every frequent value."""
    distinct, counts = np.unique(values, return_counts=True)
    often = distinct[counts >= _OFTEN * len(values)]
    return np.unique(np.concatenate([np.quantile(values, np.arange(1, BINS) / BINS), often, np.nextafter(often, -np.inf)]))


def _category(a: dict[str, int], b: dict[str, int], level: float) -> dict[str, Any]:
    names = sorted({*a, *b})
    before, after = (np.array([counts.get(name, 0) for name in names]) for counts in (a, b))
    if min(before.sum(), after.sum()) < _FEWEST:
        return {"state": "few", "psi": 0.0, "shares": {}}
    index = stability_index(before, after)
    scaled = index / (1 / before.sum() + 1 / after.sum())
    chance = float(stats.chi2.sf(scaled, len(names) - 1)) if len(names) > 1 else 1.0
    entry = _judged(index, chance, level)
    pairs = zip(names, before / before.sum(), after / after.sum(), strict=True)
    return entry | {"shares": {name: {"before": float(x), "after": float(y)} for name, x, y in pairs}}


def _judged(index: float, chance: float, level: float) -> dict[str, Any]:
    state = "same" if index < MOVED or chance > level else "moved" if index < DRIFTED else "drifted"
    return {"psi": index, "p": chance, "state": state}


def stability_index(before: np.ndarray, after: np.ndarray) -> float:
    """Population stability index of two lists of counts: sum of (q - p) * ln(q / p) over their shares p and q.

    An empty bin counts as half a case: the index stays finite. Bins empty in both are left out.
    """
    used = (before + after) > 0
    before, after = before[used], after[used]
    p, q = (np.maximum(counts, 0.5) / counts.sum() for counts in (before, after))
    return float(((q - p) * np.log(q / p)).sum())
