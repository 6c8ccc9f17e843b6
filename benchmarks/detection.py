"""How many injected defects the checks detect, kind by kind, and how many clean volumes they refuse.

    python benchmarks/detection.py --bodies 8
    python benchmarks/detection.py --bodies 4 --real-data DIR --json

Clean volumes: parametric torsos in CT (half of them with a lesion) and heads in T1 and T2, rendered by the tissue engine
at coarse voxels. Every kind of defect (``benchmarks/defects.py`` says what each severity is) is made in every body that can
have it, and judged under the default policy. ``--real-data``: a folder with ``ct_abdomen``, ``t1_brain`` and
``brain_label_maps``, whose volumes must be accepted; they are not defects.
"""

from __future__ import annotations

import argparse
import json
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from defects import DEFECTS, SEVERITIES, Body

from ctmr_core.cases.case import Case, Lesion
from ctmr_core.cases.label_maps import build_label_map
from ctmr_core.engines import load_engine
from ctmr_core.quality.base import Candidate, Verdict
from ctmr_core.quality.judge import judge

LESIONS = ("hepatic tumor", "left kidney cyst")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bodies", type=int, default=8, help="clean volumes: half torsos, half heads")
    parser.add_argument("--first", type=int, default=1, help="seed of the first body")
    parser.add_argument("--kinds", nargs="*", default=list(DEFECTS), choices=list(DEFECTS), metavar="KIND")
    parser.add_argument("--clean", type=int, default=0, help="more clean volumes, for the rate of false alarms alone")
    parser.add_argument("--real-data", type=Path)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    bodies = [made(i, options.first) for i in range(options.bodies)]
    result = {"clean": [judged(body.name, as_is(body)) for body in bodies], "defects": table_of(bodies, options.kinds)}
    for i in range(options.bodies, options.bodies + options.clean):
        body = made(i, options.first)
        result["clean"].append(judged(body.name, as_is(body)))
    result["real"] = [judged(name, candidate) for name, candidate in real(options.real_data)] if options.real_data else []
    print(json.dumps(result, indent=2) if options.json else markdown(result))


def made(number: int, first: int) -> Body:
    """A torso (even numbers) or a head, rendered."""
    seed = first + number // 2
    fields: dict[str, Any] = {"case_id": f"body-{number}", "body_seed": seed}
    if number % 2 == 0:
        center, mm = ("abdomen", "chest")[seed % 2 if seed % 4 > 1 else 0], 4.0
        fields |= {"body": "parametric:torso", "center": center, "sequences": ("ct",), "size": (104, 80, 80)}
        if center == "abdomen" and seed % 2:
            fields["lesions"] = (Lesion(label=LESIONS[seed // 2 % 2], diameter=28.0),)
    else:
        mm = 3.0
        fields |= {"body": "parametric:head", "center": "head", "sequences": ("mri_t1", "mri_t2"), "size": (72, 88, 80)}
        if seed % 2 == 0:
            fields["lesions"] = (Lesion(label="enhancing brain tumor", diameter=28.0),)
    case = Case.model_validate({**fields, "spacing": (mm, mm, mm)})
    label_map = build_label_map(case, None, 0)[0]
    engine = load_engine("tissue")
    spare = case.model_copy(update={"sequences": ("mri_t1", "mri_t2")})
    images = engine.render(case, label_map, 0)
    others = engine.render(spare, label_map, 0) if number % 2 == 0 else {}
    return Body(f"{case.body} {seed}", case, label_map, images, others)


def as_is(body: Body) -> Candidate:
    return Candidate(body.case, body.label_map, body.images)


def judged(name: str, candidate: Candidate) -> dict[str, Any]:
    verdict = judge(candidate)
    return {"name": name, "accepted": verdict.accepted, "reasons": list(verdict.reasons)}


def table_of(bodies: list[Body], kinds: list[str]) -> dict[str, Any]:
    """kind -> severity -> made, detected, the checks that did, the bodies in which it was missed."""
    table: dict[str, Any] = {}
    for kind in kinds:
        for severity, word in enumerate(SEVERITIES):
            entry: dict[str, Any] = {"made": 0, "detected": 0, "checks": Counter(), "missed": []}
            for body in bodies:
                rng = np.random.default_rng([zlib.crc32(kind.encode()), severity, zlib.crc32(body.name.encode())])
                candidate = DEFECTS[kind](body, severity, rng)
                if candidate is None:
                    continue
                verdict: Verdict = judge(candidate)
                entry["made"] += 1
                entry["detected"] += not verdict.accepted
                entry["checks"].update({result.check for result in verdict.results if not result.passed})
                if verdict.accepted:
                    entry["missed"].append(body.name)
            table.setdefault(kind, {})[word] = entry
    return table


def real(folder: Path) -> Iterator[tuple[str, Candidate]]:
    """The volumes of ``folder``, as the candidates of template cases."""
    from real_volumes import volumes

    yield from volumes(folder)


def markdown(result: dict[str, Any]) -> str:
    lines = ["| defect | " + " | ".join(SEVERITIES) + " | found by |", "|---|" + "---:|" * len(SEVERITIES) + "---|"]
    for kind, row in result["defects"].items():
        cells = [f"{entry['detected']}/{entry['made']}" if entry["made"] else "" for entry in row.values()]
        found: Counter[str] = Counter()
        for entry in row.values():
            found.update(entry["checks"])
        lines.append(f"| {kind} | {' | '.join(cells)} | {', '.join(f'`{name}`' for name, _ in found.most_common(3))} |")
    entries = [entry for row in result["defects"].values() for entry in row.values()]
    lines.append("")
    for severity in SEVERITIES:
        rows = [row[severity] for row in result["defects"].values()]
        share = sum(entry["detected"] for entry in rows) / max(sum(entry["made"] for entry in rows), 1)
        lines.append(f"{severity}: {share:.1%} of {sum(entry['made'] for entry in rows)} detected.")
    lines.append(f"{sum(entry['made'] for entry in entries)} defects in all.")
    for what in ("clean", "real"):
        refused = [entry for entry in result[what] if not entry["accepted"]]
        if result[what]:
            lines += ["", f"{what}: {len(refused)} of {len(result[what])} volumes refused."]
        lines += [f"- {entry['name']}: {'; '.join(entry['reasons'][:4])}" for entry in refused]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
