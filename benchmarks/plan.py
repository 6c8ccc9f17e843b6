"""Time and memory of planning, writing, reading, summarising and keying a large manifest.

python benchmarks/plan.py [CASES]          default 1,000,000
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ctmr_core.cases.manifest import read_manifest
from ctmr_core.cases.planner import plan
from ctmr_core.cases.recipe import load_recipe

T = TypeVar("T")
RECIPE = Path(__file__).resolve().parent.parent / "manifests" / "demo.yaml"


def timed(what: str, work: Callable[[], T]) -> T:
    start = time.perf_counter()
    result = work()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{what:<28}{time.perf_counter() - start:8.2f} s   peak so far {peak:5.2f} GB")
    return result


def main() -> None:
    cases = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    recipe = load_recipe(RECIPE).scaled_to(cases)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "manifest.parquet"
        manifest = timed(f"plan {cases:,} cases", lambda: plan(recipe))
        timed("write Parquet", lambda: manifest.write(path))
        print(f"{'':28}{path.stat().st_size / 1e6:8.1f} MB")
        manifest = timed("read and validate", lambda: read_manifest(path))
        timed("summary", manifest.summary)
        keys = timed("case keys", manifest.case_keys)
        timed("first 10,000 as cases", lambda: list(manifest.iter_cases(0, 10_000)))
        print(f"{len(set(keys)):,} different keys")


if __name__ == "__main__":
    main()
