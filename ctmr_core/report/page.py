"""``report.html``: everything a person asks of a dataset first, on one self-contained page."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from PIL import Image

from ctmr_core import __version__
from ctmr_core.anatomy.vocabulary import load_vocabulary
from ctmr_core.report.figures import bars, histogram
from ctmr_core.report.judgement import (
    drift_lines,
    judged_cases,
    nearest_cases,
    score_figures,
    set_lines,
    target_lines,
    verdicts_by_check,
)
from ctmr_core.report.margins import Borderline
from ctmr_core.report.montage import planes_of, row_of
from ctmr_core.report.sample import spread
from ctmr_core.store import Dataset
from ctmr_core.store.commits import read_failures
from ctmr_core.store.progress import status

PICTURE_HEIGHT = 260
LEGEND_LABELS = 14
LISTED_SCORES = 60
BORDERLINE = 4  # borderline cases shown in pictures
BORDERLINE_HEIGHT = 160
TILES = (("planned", ""), ("accepted", "good"), ("rejected", "warn"), ("failed", "bad"), ("quarantined", "bad"))


def write_report(dataset: Dataset, path: Path, *, sample: int = 12) -> Path:
    """Write the page for ``dataset`` with slices of up to ``sample`` accepted cases, spread over bodies and sequences."""
    rows = dataset.ledger.to_table().to_pandas(maps_as_pydicts="strict").sort_values("case_id", ignore_index=True)
    accepted = rows[rows["status"] == "accepted"]
    counts = status(dataset)
    judged = judged_cases(dataset)
    nearest = nearest_cases(judged)
    page = (
        _environment()
        .get_template("report.html")
        .render(
            title=f"Dataset {Path(dataset.uri).name}",
            subtitle=f"{dataset.uri} · made and checked by ctmr-factory {__version__}",
            tiles=_tiles(counts, accepted),
            reasons=_reasons(dataset, rows),
            verdicts=verdicts_by_check(rows),
            score_figures=score_figures(judged),
            judged=len(judged),
            borderline=[_borderline(dataset, entry, shown=number < BORDERLINE) for number, entry in enumerate(nearest)],
            targets=target_lines(dataset),
            whole_set=set_lines(dataset),
            drift=drift_lines(dataset),
            groups=_groups(accepted),
            figures=_figures(accepted),
            rarest=_rarest(accepted),
            timings=_timings(accepted),
            checks=_scores(rows),
            cases=[_case(dataset, case_id) for case_id in spread(accepted, sample)],
            provenance=_provenance(accepted),
        )
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path


def _environment() -> jinja2.Environment:
    loader = jinja2.PackageLoader("ctmr_core.report", "templates")
    return jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)


def _tiles(counts: dict[str, int], accepted: pd.DataFrame) -> list[dict[str, Any]]:
    tiles = [{"name": name, "value": f"{counts[name]:,}", "tone": tone if counts[name] else ""} for name, tone in TILES]
    images = int(accepted["sequences"].map(len).sum()) if len(accepted) else 0
    tiles.append({"name": "images", "value": f"{images:,}", "tone": ""})
    tiles.append({"name": "bodies", "value": f"{accepted['body_identity'].nunique():,}", "tone": ""})
    tiles.append({"name": "stored", "value": _bytes(float(accepted["bytes"].sum())), "tone": ""})
    return tiles


def _bytes(number: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if number >= 10 or unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def _reasons(dataset: Dataset, rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Rejections and failures by reason; numbers inside a reason don't make it another one."""
    counted: Counter[tuple[str, str]] = Counter()
    examples: dict[tuple[str, str], str] = {}
    rejected = rows[rows["status"] == "rejected"]
    found = [
        ("rejected", reason, case_id)
        for case_id, reasons in zip(rejected["case_id"], rejected["reasons"], strict=True)
        for reason in reasons
    ]
    found += [(failure.status, failure.reason, failure.case_id) for failure in read_failures(dataset.storage)]
    for kind, reason, case_id in found:
        key = (kind, reason.split(";")[0].replace(case_id, "<case>"))
        counted[key] += 1
        examples.setdefault(key, case_id)
    return [
        {"status": key[0], "reason": key[1], "count": count, "example": examples[key]} for key, count in counted.most_common(40)
    ]


def _groups(accepted: pd.DataFrame) -> dict[str, Any]:
    """Cases by body, sequences, size and spacing."""
    columns = ["body", "sequences", "size", "spacing", "split", "cases"]
    keys = Counter(
        (
            row.body,
            ", ".join(row.sequences),
            " x ".join(str(n) for n in row.size),
            " x ".join(f"{mm:g}" for mm in row.spacing) + " mm",
            row.split,
        )
        for row in accepted[["body", "sequences", "size", "spacing", "split"]].itertuples(index=False)
    )
    return {"columns": columns, "rows": [[*key, count] for key, count in sorted(keys.items())[:60]]}


def _figures(accepted: pd.DataFrame) -> list[str]:
    if not len(accepted):
        return []
    sequences = Counter(sequence for row in accepted["sequences"] for sequence in row)
    names = sorted(sequences)
    figures = [bars(names, [sequences[name] for name in names], "Sequences", "images")]
    splits = Counter(accepted["split"])
    figures.append(bars(sorted(splits), [splits[name] for name in sorted(splits)], "Splits", "cases"))
    figures.append(histogram([float(np.prod(mm)) ** (1 / 3) for mm in accepted["spacing"]], "Spacing (geometric mean)", "mm"))
    extent = [float(n[2] * mm[2]) for n, mm in zip(accepted["size"], accepted["spacing"], strict=True)]
    figures.append(histogram(extent, "Field of view along z", "mm"))
    lesions = Counter(lesion["label"] for row in accepted["lesions"] for lesion in row)
    if lesions:
        names = sorted(lesions)
        figures.append(bars(names, [lesions[name] for name in names], "Lesions asked for", "lesions"))
        diameters = [lesion["diameter"] for row in accepted["lesions"] for lesion in row]
        figures.append(histogram(diameters, "Lesion diameter", "mm"))
    attempts = Counter(str(attempt + 1) for attempt in accepted["attempt"])
    figures.append(bars(sorted(attempts), [attempts[name] for name in sorted(attempts)], "Accepted at attempt", "cases"))
    return figures


def _rarest(accepted: pd.DataFrame, shown: int = 16) -> list[tuple[str, int]]:
    """The ``shown`` labels that fewest cases have, and in how many cases each is."""
    counts = Counter(
        load_vocabulary(vocabulary).by_id[int(label)].name
        for vocabulary, labels in zip(accepted["vocabulary"], accepted["label_ids"], strict=True)
        for label in labels
        if int(label) in load_vocabulary(vocabulary)
    )
    return sorted(counts.items(), key=lambda item: (item[1], item[0]))[:shown]


def _timings(accepted: pd.DataFrame) -> list[dict[str, str]]:
    if not len(accepted):
        return []
    table = pd.DataFrame(list(accepted["timings"]))
    total = float(table.sum().sum()) or 1.0
    return [
        {
            "stage": str(stage),
            "median": f"{table[stage].median():.2f}",
            "p95": f"{table[stage].quantile(0.95):.2f}",
            "share": f"{table[stage].sum() / total:.0%}",
        }
        for stage in table.columns
    ]


def _scores(rows: pd.DataFrame) -> list[dict[str, Any]]:
    if not len(rows):
        return []
    table = pd.DataFrame(list(rows["scores"]))
    return [
        {
            "name": name,
            "count": int(table[name].count()),
            "low": f"{table[name].min():.4g}",
            "median": f"{table[name].median():.4g}",
            "high": f"{table[name].max():.4g}",
        }
        for name in sorted(table.columns)[:LISTED_SCORES]
    ]


def _case(dataset: Dataset, case_id: str) -> dict[str, Any]:
    volume, row = dataset[case_id], dataset.row(case_id)
    vocabulary = volume.vocabulary
    pictures = []
    for number, sequence in enumerate(volume.sequences):
        plain = planes_of(volume, sequence, PICTURE_HEIGHT, with_labels=False)
        if number == 0:
            plain.append(planes_of(volume, sequence, PICTURE_HEIGHT, with_labels=True)[0])
        pictures.append({"alt": f"{case_id} {sequence}: axial, coronal, sagittal", "data": _png(row_of(plain, sequence))})
    largest = sorted(zip(row["label_voxels"], row["label_ids"], strict=True), reverse=True)
    lesions = [label for _, label in largest if vocabulary.label(int(label)).group == "lesion"]
    others = [label for _, label in largest if label not in lesions]
    legend = [vocabulary.label(int(label)) for label in [*lesions, *others][:LEGEND_LABELS]]
    size = " x ".join(str(n) for n in row["size"])
    spacing = " x ".join(f"{mm:g}" for mm in row["spacing"])
    return {
        "case_id": case_id,
        "caption": f"{row['body_identity']} · {size} voxels of {spacing} mm · {row['split']} · attempt {row['attempt'] + 1}",
        "pictures": pictures,
        "legend": [{"name": label.name, "color": label.color} for label in legend],
    }


def _borderline(dataset: Dataset, entry: Borderline, *, shown: bool) -> dict[str, Any]:
    pictures = []
    if shown:
        volume = dataset[entry.case_id]
        named = [sequence for sequence in volume.sequences if sequence in entry.reason] or list(volume.sequences)
        row = row_of(planes_of(volume, named[0], BORDERLINE_HEIGHT, with_labels=False), named[0])
        pictures = [{"alt": f"{entry.case_id} {named[0]}", "data": _png(row)}]
    where = f"{entry.check}.{entry.threshold}"
    return {"case_id": entry.case_id, "share": f"{entry.share:.0%}", "where": where, "reason": entry.reason, "pictures": pictures}


def _png(picture: Image.Image) -> str:
    stream = io.BytesIO()
    picture.save(stream, "PNG", optimize=True)
    return base64.b64encode(stream.getvalue()).decode()


def _provenance(accepted: pd.DataFrame) -> Sequence[tuple[str, str]]:
    if not len(accepted):
        return []
    versions: dict[str, set[str]] = {}
    for entry in accepted["versions"]:
        for name, value in entry.items():
            versions.setdefault(name, set()).add(value)
    lines = [("engine", ", ".join(sorted(set(accepted["engine_identity"]))))]
    lines += [(name, ", ".join(sorted(values))) for name, values in sorted(versions.items())]
    licences = sorted({licence for row in accepted["licences"] for licence in row})
    lines.append(("licences of weights and templates", ", ".join(licences) or "none: no weights, no templates"))
    return lines
