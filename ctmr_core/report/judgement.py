"""What the report says of the quality of a dataset: verdicts, scores near their thresholds, borderline cases, the whole set."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pandas as pd
import pyarrow.compute as pc
import pyarrow.dataset as pads

from ctmr_core.assessment.catalog_summary import summarise
from ctmr_core.assessment.drift import drift
from ctmr_core.assessment.profile import compare
from ctmr_core.assessment.set_measures import read_documents, set_digest
from ctmr_core.assessment.stored_scores import READ, stored_rows, validated_case
from ctmr_core.assessment.targets import targets_of
from ctmr_core.cases.case import Case
from ctmr_core.quality.base import versioned
from ctmr_core.quality.registry import load_checks
from ctmr_core.report.figures import spread_figure
from ctmr_core.report.margins import Borderline, Scores, borderline, spreads
from ctmr_core.store import Dataset, list_snapshots

ASKED = 500  # accepted cases whose margins are looked at, in the order of their keys, which are random
HISTOGRAMS = 12
LISTED = 12
MOVED = 15


def judged_cases(dataset: Dataset) -> list[tuple[Case, Scores]]:
    """Up to :data:`ASKED` accepted cases by key, with the scores that the installed versions of the checks measured."""
    keys = dataset.catalog.to_table(columns=["case_key"])["case_key"].combine_chunks()
    kept = keys.take(pc.sort_indices(keys)[:ASKED])
    rows = dataset.catalog.to_table(columns=list(READ), filter=pads.field("case_key").isin(kept)).sort_by("case_key")
    current = {versioned(check): check.name for check in load_checks()}
    found: list[tuple[Case, Scores]] = []
    for row, stored in stored_rows(rows):
        names = {current[name] for name in stored.measured if name in current}
        found.append((validated_case(row), {name: own for name, own in stored.scores.items() if name in names}))
    return found


def verdicts_by_check(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """check -> rejected cases that failed it, and those that failed nothing else."""
    failed: Counter[str] = Counter()
    alone: Counter[str] = Counter()
    for reasons in rows.loc[rows["status"] == "rejected", "reasons"]:
        checks = {reason.partition(":")[0] for reason in (reasons if reasons is not None else ())}
        failed.update(checks)
        if len(checks) == 1:
            alone.update(checks)
    total = max(len(rows), 1)
    return [
        {"check": name, "count": count, "alone": alone[name], "share": f"{count / total:.1%}"}
        for name, count in failed.most_common()
    ]


def nearest_cases(cases: list[tuple[Case, Scores]]) -> list[Borderline]:
    """The accepted cases nearest to a threshold."""
    return borderline(cases)[:LISTED]


def score_figures(cases: list[tuple[Case, Scores]]) -> list[str]:
    """Histograms (SVG) of the scores that come nearest to their thresholds, the thresholds drawn in."""
    return [spread_figure(spread) for spread in spreads(cases, HISTOGRAMS)]


def set_lines(dataset: Dataset) -> dict[str, Any] | None:
    """The newest measures of the set as rows (measure, what, value); None when it was never measured."""
    documents = read_documents(dataset)
    if not documents:
        return None
    digest = set_digest(dataset)
    document = next((each for each in documents if each.get("cases_digest") == digest), documents[0])
    measures = document.get("measures", {})
    rows: list[tuple[str, str, str]] = []
    found = measures.get("duplicates", {})
    rows += [("near-duplicates", kind, f"{count:,} pairs") for kind, count in found.get("counts", {}).items()]
    for sequence, entry in measures.get("frechet", {}).items():
        if isinstance(entry, dict) and "distance" in entry:
            rows.append(("Frechet distance", sequence, _with_interval(entry["distance"], entry)))
            ends = entry.get("intervals", {})
            shares = [name for name in ("precision", "recall", "coverage") if name in entry]
            rows += [(name, sequence, _with_interval(entry[name], ends.get(name, {}))) for name in shares]
    for sequence, entry in measures.get("diversity", {}).items():
        similarity = entry.get("ms_ssim", {}) if isinstance(entry, dict) else {}
        if similarity.get("mean") is not None:
            rows.append(("MS-SSIM between cases", sequence, _number(similarity["mean"])))
    return {
        "rows": rows,
        "lines": document.get("verdict", {}).get("lines", []),
        "passed": bool(document.get("verdict", {}).get("passed", True)),
        "made_at": str(document.get("made_at", ""))[:19],
        "current": document.get("cases_digest") == digest,
        "cases": document.get("cases", 0),
    }


def target_lines(dataset: Dataset) -> list[dict[str, Any]]:
    """One finding (target, passed, line) for every target that the dataset's recipe named; none when it named none."""
    targets = targets_of(dataset)
    return [] if targets is None or not len(dataset) else compare(summarise(dataset), targets)


def drift_lines(dataset: Dataset) -> dict[str, Any] | None:
    """What moved since the last snapshot of other cases; None when there is none."""
    digest = set_digest(dataset)
    before = [snapshot for snapshot in list_snapshots(dataset.storage) if snapshot.digest != digest]
    if dataset.snapshot is not None:
        before = [snapshot for snapshot in before if snapshot.created < dataset.snapshot.created]
    if not before or not len(dataset):
        return None
    last = before[-1]
    compared = drift(Dataset.open(dataset.uri, snapshot=last.name), dataset)
    moved = [{**entry, "psi": f"{entry['psi']:.2f}"} for entry in compared["moved"][:MOVED]]
    return {"name": last.name, "cases": compared["cases"], "moved": moved, "more": max(len(compared["moved"]) - MOVED, 0)}


def _with_interval(value: float, ends: dict[str, Any]) -> str:
    between = f" ({_number(ends['low'])} to {_number(ends['high'])})" if ends.get("low") is not None else ""
    return f"{_number(value)}{between}"


def _number(value: float | None) -> str:
    return "not told" if value is None else f"{value:.3g}"
