"""``python -m tests.soak --minutes 10 --seed 1``: storms for so long, each followed by a run that must finish the dataset.

Every storm has a number; ``--seed S --only N`` repeats one. Exit code 1 when a dataset came out different.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from tests.soak import child
from tests.soak.cases import write_manifest
from tests.soak.evidence import Evidence, difference, evidence
from tests.soak.storms import STORMS, Scene, Storm

CASES = 12
CASE_SECONDS = 0.2


@dataclass(frozen=True)
class Weather:
    """What came of one storm; ``differences`` is empty when the dataset is the calm run's."""

    number: int
    storm: Storm
    what: str
    seconds: float
    differences: list[str]


class Soak:
    """Storms over one manifest in a folder. Rejected, failed and quarantined cases count as differences."""

    def __init__(self, folder: Path, seed: int, cases: int = CASES) -> None:
        self._folder, self._seed, self._cases = folder, seed, cases
        self._manifest = write_manifest(folder / "cases.parquet", cases, CASE_SECONDS)
        self._calm = self._make_calm()

    def _make_calm(self) -> Evidence:
        if child.run(self._manifest, self._folder / "calm") != 0:
            raise RuntimeError(child.error_of(self._manifest))
        calm = evidence(self._folder / "calm")
        if calm.faults or len(calm.objects) != self._cases:
            raise RuntimeError(f"the calm run is no measure: {len(calm.objects)} volumes; {calm.faults}")
        return calm

    def storm(self, number: int, *, whole: bool | None = None) -> Weather:
        """Storm ``number`` of this seed: break a run, run the line until it is finished, compare. whole: only of that kind."""
        random = np.random.default_rng([self._seed, number])
        kinds = [storm for storm in STORMS if whole is None or storm.whole == whole]
        storm = kinds[int(random.integers(len(kinds)))]
        dataset = self._folder / f"storm-{number}"
        begin = time.monotonic()
        what = storm.break_run(Scene(self._manifest, dataset, random, self._cases))
        if child.run(self._manifest, dataset) == 0:
            found = difference(self._calm, evidence(dataset))
        else:
            found = [child.error_of(self._manifest).strip().splitlines()[-1]]
        if not found:
            shutil.rmtree(dataset)
        return Weather(number, storm, what, time.monotonic() - begin, found)


def report(weathers: list[Weather]) -> Table:
    """A line per storm."""
    table = Table("storm", "kind", "what happened", "seconds", "dataset")
    for weather in weathers:
        outcome = "the same" if not weather.differences else "; ".join(weather.differences)
        table.add_row(str(weather.number), weather.storm.name, weather.what, f"{weather.seconds:.1f}", outcome)
    return table


def main() -> int:
    """Run storms until the time is over."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=int(time.time()) % 100_000)
    parser.add_argument("--only", type=int, help="repeat this storm of the seed")
    parser.add_argument("--quick", action="store_true", help="only storms of one process, without Ray and Prefect")
    arguments = parser.parse_args()
    console = Console()
    console.print(f"seed {arguments.seed}")
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        os.environ["PREFECT_HOME"] = f"{folder}/prefect"
        os.environ.pop("PREFECT_API_URL", None)
        soak = Soak(Path(folder), arguments.seed)
        whole = False if arguments.quick else None
        weathers: list[Weather] = []
        end = time.monotonic() + 60 * arguments.minutes
        numbers = iter([arguments.only]) if arguments.only is not None else iter(range(1, 1_000_000))
        while (number := next(numbers, None)) is not None:
            weathers.append(soak.storm(number, whole=whole))
            last = weathers[-1]
            console.print(f"{number:4d}  {last.what}: {'; '.join(last.differences) or 'the same'}", soft_wrap=True)
            if time.monotonic() > end:
                break
    console.print(report(weathers))
    broken = [weather for weather in weathers if weather.differences]
    console.print(f"{len(weathers)} storms, {len(broken)} datasets came out different; seed {arguments.seed}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
