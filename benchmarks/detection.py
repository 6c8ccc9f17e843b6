"""How many injected defects the checks detect, kind by kind, and how many clean volumes they refuse.

    python benchmarks/detection.py --bodies 8 --clean 400 --keep found.jsonl
    python benchmarks/detection.py --bodies 4 --real-data DIR --json

Clean volumes: parametric torsos in CT (some with a lesion) and heads in MR, rendered by the tissue engine at coarse voxels. Every
kind of defect (``benchmarks/defects.py`` says what each severity is) is made in every one of ``--bodies`` that can have it, and
judged under the default policy. ``--clean``: volumes judged as the recipes make them (``benchmarks/clean_volumes.py``), for the
rate of false alarms. ``--real-data``: a folder of real scans (``benchmarks/real_volumes.py``), judged too; recipes with a library
draw from its label maps. ``--keep``: every judgement is a line of this file at once; the same command goes on where it was
stopped.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from clean_volumes import SEED, clean_volumes, real_library
from defects import DEFECTS, SEVERITIES, Body
from scipy import stats

from ctmr_core.cases.case import Case, Lesion
from ctmr_core.cases.label_maps import build_label_map
from ctmr_core.engines import load_engine
from ctmr_core.quality.base import Candidate, Verdict
from ctmr_core.quality.judge import judge

LESIONS = ("hepatic tumor", "left kidney cyst")
TORSO = {"body": "parametric:torso", "size": (104, 80, 80), "spacing": (4.0, 4.0, 4.0)}
HEAD = {"body": "parametric:head", "center": "head", "size": (72, 88, 80), "spacing": (3.0, 3.0, 3.0)}


@dataclass
class Found:
    """Judgements, one dictionary each, kept in a file as they come: {what, name, [kind, severity], accepted, reasons, checks}."""

    file: Path | None = None
    lines: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.file is not None and self.file.exists():
            text = self.file.read_text(encoding="utf-8")
            whole = text[: text.rfind("\n") + 1]
            self.file.write_text(whole, encoding="utf-8")  # a line that was cut off is judged again
            self.lines = [json.loads(line) for line in whole.splitlines()]

    def has(self, **of: Any) -> bool:
        return any(of.items() <= line.items() for line in self.lines)

    def keep(self, verdict: Verdict | None, **of: Any) -> None:
        """One judgement; None where a body can't have the defect."""
        failed = [] if verdict is None else [result.check for result in verdict.results if not result.passed]
        accepted = None if verdict is None else verdict.accepted
        reasons = [] if verdict is None else list(verdict.reasons[:4])
        line = {**of, "accepted": accepted, "reasons": reasons, "checks": failed}
        self.lines.append(line)
        if self.file is not None:
            with self.file.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(line) + "\n")

    def of(self, what: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["what"] == what and line["accepted"] is not None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bodies", type=int, default=8, help="bodies that get defects: half torsos, half heads")
    parser.add_argument("--first", type=int, default=1, help="seed of the first body")
    parser.add_argument("--kinds", nargs="*", default=list(DEFECTS), choices=list(DEFECTS), metavar="KIND")
    parser.add_argument("--clean", type=int, default=0, help="volumes of the recipes, for the rate of false alarms")
    parser.add_argument("--clean-seed", type=int, default=SEED, help="of these volumes; another seed draws other people")
    parser.add_argument("--real-data", type=Path)
    parser.add_argument("--keep", type=Path, help="file of judgements (JSON Lines), to go on from")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = Found(options.keep)
    for number in range(options.bodies):
        judge_defects(found, number, options.first, options.kinds)
    if options.clean:
        judge_clean(found, options.clean, options.clean_seed, options.real_data)
    if options.real_data:
        judge_real(found, options.real_data)
    print(json.dumps(found.lines, indent=2) if options.json else markdown(found, options.kinds))


def judge_defects(found: Found, number: int, first: int, kinds: Iterable[str]) -> None:
    """One body as it is, and with every defect it can have."""
    name = f"{('torso', 'head')[number % 2]} {first + number // 2}"
    asked = [(kind, severity) for kind in kinds for severity in SEVERITIES]
    todo = [(kind, word) for kind, word in asked if not found.has(what="defect", name=name, kind=kind, severity=word)]
    if not todo and found.has(what="clean", name=name):
        return
    body = made(number, first)
    if not found.has(what="clean", name=name):
        found.keep(judge(Candidate(body.case, body.label_map, body.images)), what="clean", name=name)
    for kind, word in todo:
        severity = SEVERITIES.index(word)
        rng = np.random.default_rng([zlib.crc32(kind.encode()), severity, zlib.crc32(body.name.encode())])
        candidate = DEFECTS[kind](body, severity, rng)
        found.keep(None if candidate is None else judge(candidate), what="defect", name=name, kind=kind, severity=word)


def judge_clean(found: Found, number: int, seed: int, real_data: Path | None) -> None:
    """So many volumes of the recipes as they are."""
    with tempfile.TemporaryDirectory() as work:
        library = real_library(Path(work), real_data) if real_data else None
        for name, candidate in islice(clean_volumes(library, seed), number):
            if not found.has(what="clean", name=name):
                found.keep(judge(candidate()), what="clean", name=name)


def judge_real(found: Found, folder: Path) -> None:
    """The volumes of ``folder``, as the candidates of template cases."""
    from real_volumes import volumes

    for name, candidate in volumes(folder):
        if not found.has(what="real", name=name):
            found.keep(judge(candidate()), what="real", name=name)


def made(number: int, first: int) -> Body:
    """A torso (even numbers) or a head, rendered."""
    seed = first + number // 2
    torso = number % 2 == 0
    fields: dict[str, Any] = {**(TORSO if torso else HEAD), "case_id": f"body-{number}", "body_seed": seed}
    if torso:
        fields |= {"center": ("abdomen", "chest")[seed % 2 if seed % 4 > 1 else 0], "sequences": ("ct",)}
        if fields["center"] == "abdomen" and seed % 2:
            fields["lesions"] = (Lesion(label=LESIONS[seed // 2 % 2], diameter=28.0),)
    else:
        fields["sequences"] = ("mri_t1", "mri_t2")
        if seed % 2 == 0:
            fields["lesions"] = (Lesion(label="enhancing brain tumor", diameter=28.0),)
    case = Case.model_validate(fields)
    label_map = build_label_map(case, None, 0)[0]
    engine = load_engine("tissue")
    spare = case.model_copy(update={"sequences": ("mri_t1", "mri_t2")})
    others = engine.render(spare, label_map, 0) if torso else {}
    return Body(f"{case.body} {seed}", case, label_map, engine.render(case, label_map, 0), others)


def markdown(found: Found, kinds: Iterable[str]) -> str:
    lines = ["| defect | " + " | ".join(SEVERITIES) + " | found by |", "|---|" + "---:|" * len(SEVERITIES) + "---|"]
    defects = found.of("defect")
    for kind in kinds:
        rows = [row for row in defects if row["kind"] == kind]
        cells = [_detected([row for row in rows if row["severity"] == severity]) for severity in SEVERITIES]
        checks = Counter(check for row in rows for check in row["checks"])
        lines.append(f"| {kind} | {' | '.join(cells)} | {', '.join(f'`{name}`' for name, _ in checks.most_common(3))} |")
    lines.append("")
    for severity in SEVERITIES:
        rows = [row for row in defects if row["severity"] == severity]
        share = sum(not row["accepted"] for row in rows) / max(len(rows), 1)
        lines.append(f"{severity}: {share:.1%} of {len(rows)} detected.")
    lines.append(f"{len(defects)} defects in all.")
    for what in ("clean", "real"):
        judged = found.of(what)
        refused = [row for row in judged if not row["accepted"]]
        if judged:
            low, high = stats.binomtest(len(refused), len(judged)).proportion_ci(0.95, "exact")
            rate = f"{len(refused) / len(judged):.2%}, 95 % interval (Clopper-Pearson) {low:.2%} to {high:.2%}"
            lines += ["", f"{what}: {len(refused)} of {len(judged)} volumes refused, {rate}."]
        lines += [f"- {row['name']}: {'; '.join(row['reasons'])}" for row in refused]
    missed = Counter((row["kind"], row["severity"]) for row in defects if row["accepted"])
    if missed:
        lines += ["", "Missed:", *(f"- {kind}, {severity}: {_names(defects, kind, severity)}" for kind, severity in missed)]
    return "\n".join(lines)


def _detected(rows: list[dict[str, Any]]) -> str:
    return f"{sum(not row['accepted'] for row in rows)}/{len(rows)}" if rows else ""


def _names(defects: list[dict[str, Any]], kind: str, severity: str) -> str:
    missed = (row["name"] for row in defects if row["accepted"] and (row["kind"], row["severity"]) == (kind, severity))
    return ", ".join(missed)


if __name__ == "__main__":
    main()
