"""Networks trained on generated volumes only, scored on real scans (docs/usefulness.md): one command each.

    python benchmarks/usefulness.py brain --data DIR --out runs/proof-brain
    python benchmarks/usefulness.py torso --data DIR --out runs/proof-torso --runs main bodies-4 bodies-16
    python benchmarks/usefulness.py torso-mr --data DIR --out runs/proof-torso-mr

DIR holds ``t1_brain``, ``flair_tumor`` and ``brain_label_maps``; or ``ct_abdomen``, ``ct_contrast_chest`` and ``ct_lung``; or
``mr_abdomen``. Plans and generates the datasets of ``manifests/usefulness``, keeps nested snapshots of 4, 16 and all bodies,
trains one network after the other, each on one thread, and scores it on the real scan on the scan's own grid, with baselines
that learn nothing beside, and on further real scans with few labels. No real image is trained on, and the last weights are
scored, not those that happen to be best on the scan. Writes ``results.json``, ``results.md`` and ``figure.png`` into ``--out``,
and pictures of the scans into ``--out/runs``; what is there is not made again, so the same command goes on where it was stopped.
``--quick``: two bodies and a few updates, to see that everything runs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pandas as pd
import torch
from ruamel.yaml import YAML
from usefulness_baselines import baselines
from usefulness_further import scored_further
from usefulness_pictures import draw_scan, draw_unlabelled
from usefulness_results import draw, tables
from usefulness_runs import ALL, BF16, CHANGES, DATASETS, LONG, MORE_STEPS, NESTED, RUNS, SHORT_PATCH, STEPS, UNLABELLED

from ctmr_core.learning.segmentation.config import SegmentationConfig
from ctmr_core.learning.segmentation.predict import load_segmenter
from ctmr_core.learning.segmentation.trainer import SUMMARY, TrainingSummary, train
from ctmr_core.learning.segmentation.validation import validation_sets
from ctmr_core.learning.training.config_file import parse_config
from ctmr_core.learning.training.loop import LAST
from ctmr_core.store import Dataset
from ctmr_core.store.snapshots import create_snapshot, list_snapshots

MANIFESTS = Path(__file__).parent.parent / "manifests" / "usefulness"
CTMR = (sys.executable, "-c", "from pipelines.cli.main import main; main()")


def ctmr(*words: object, env: Mapping[str, str] | None = None) -> None:
    subprocess.run([*CTMR, *map(str, words)], check=True, env={**os.environ, **(env or {})})


class Proof:
    """One proof in one folder."""

    def __init__(self, name: str, data: Path, out: Path, *, quick: bool) -> None:
        self.name, self.data, self.out, self.quick = name, data.resolve(), out.resolve(), quick
        self.library = self.out / "templates"
        self.results_path = self.out / "results.json"
        self.results: dict[str, Any] = json.loads(self.results_path.read_text()) if self.results_path.exists() else {}
        self.out.mkdir(parents=True, exist_ok=True)

    def generate(self, wanted: set[str]) -> None:
        """The datasets named ``wanted``, with their snapshots."""
        if self.name == "brain":
            self._import_templates()
        for name, limit in DATASETS[self.name].items():
            if name in wanted and not self._has_snapshot(name):
                manifest, recipe = self.out / f"{name}.parquet", MANIFESTS / f"{name}.yaml"
                library = ["--library", self.library] if self.name == "brain" else []
                ctmr("plan", recipe, *library, "--out", manifest)
                few = 2 if self.quick else limit
                ctmr("generate", manifest, *library, "--out", self.out / name, *(["--limit", few] if few else []))
                self._snapshots(name)

    def _import_templates(self) -> None:
        if not (self.library / "index.parquet").exists():
            maps = sorted((self.data / "brain_label_maps").glob("*.nii.gz"))[: 2 if self.quick else None]
            said = ("--source", "SynthSeg training label maps", "--licence", "Apache-2.0")
            ctmr("templates", "import", *maps, "--mapping", "freesurfer", *said, env={"CTMR_TEMPLATES": str(self.library)})

    def _has_snapshot(self, name: str) -> bool:
        folder = self.out / name
        return folder.exists() and ALL in {snapshot.name for snapshot in list_snapshots(Dataset.open(folder).storage)}

    def _snapshots(self, name: str) -> None:
        """``bodies-4`` in ``bodies-16`` in ``all``, in the order of the case ids."""
        dataset = Dataset.open(self.out / name)
        cases = sorted(dataset.to_pandas(columns=["case_id"]).case_id)
        for count in NESTED:
            create_snapshot(dataset, f"bodies-{count}", cases=cases[:count])
        create_snapshot(dataset, ALL)

    def config(self, run: str, steps: int) -> SegmentationConfig:
        """Validated on the scan of the proof first, then on further ones."""
        file = MANIFESTS / f"{self.name.replace('-', '_')}_training.yaml"
        document = YAML(typ="safe").load(file.read_text())
        document["sources"] = [self._located(one) for one in RUNS[self.name][run]]
        for scan in [scan for one in document["validation"] for scan in one["scans"]]:
            scan.update({key: str(self.data / path) for key, path in scan.items()})
        document["training"]["steps"] = steps
        if self.name in BF16 and getattr(torch.cpu, "get_capabilities", dict)().get("amx_bf16"):
            document["training"]["precision"] = "bf16"
        if run not in LONG:
            document["patch"] = SHORT_PATCH.get(self.name, document["patch"])
        for section, changes in CHANGES.get(run, {}).items():
            document[section].update(changes)
        if self.quick:
            document["training"]["schedule"]["warmup"] = 2
            document["inference"]["overlap"] = 0.0
        return parse_config(document, SegmentationConfig, run)

    def _located(self, one: dict[str, Any]) -> dict[str, Any]:
        if "dataset" in one:
            return {**one, "dataset": str(self.out / one["dataset"])}
        library = {"library": str(self.library)} if self.name == "brain" else {}
        return {**one, "recipe": str(MANIFESTS / f"{one['recipe']}.yaml"), **library}

    def train(self, run: str, steps: int) -> None:
        folder = self.out / "runs" / run
        if not (folder / SUMMARY).exists() or run not in self.results.get("runs", {}):
            print(f"{run}: {steps} updates", flush=True)
            clock, processor = time.perf_counter(), time.process_time()
            config = self.config(run, steps)
            summary = train(config.model_copy(update={"validation": config.validation[:1]}), folder)
            spent = {"minutes": (time.perf_counter() - clock) / 60, "cpu_minutes": (time.process_time() - processor) / 60}
            self._keep("runs", run, {**spent, **self._scores(summary, folder)})
        print(f"{run}: mean Dice {self.results['runs'][run]['mean']:.3f}", flush=True)

    def score_further(self, run: str) -> None:
        """A finished network on the further scans."""
        sets, folder = validation_sets(self.config(run, 1))[1:], self.out / "runs" / run
        if sets and run not in self.results.get("further", {}):
            segmenter = load_segmenter(folder / LAST, "cpu")
            self._keep("further", run, scored_further(segmenter, sets, folder / "further"))

    def draw_scan(self, run: str) -> None:
        """``scan.png`` of a finished network: for ``main`` the scan of the proof, for a few others one without labels."""
        folder = self.out / "runs" / run
        picture = folder / "scan.png"
        if picture.exists() or (run != "main" and run not in UNLABELLED):
            return
        segmenter = load_segmenter(folder / LAST, "cpu")
        if run in UNLABELLED:
            scan, sequence = UNLABELLED[run]
            draw_unlabelled(segmenter, self.data / scan, sequence, picture)
        else:
            draw_scan(segmenter, validation_sets(self.config(run, 1))[0].volume(0), picture)

    def _scores(self, summary: TrainingSummary, folder: Path) -> dict[str, Any]:
        frame = pd.read_parquet(sorted((folder / "validation").glob("step-*.parquet"))[-1])
        frame = frame[(frame.dataset == "real") & (frame.truth_ml > 0)]
        classes = {row.label: {"dice": row.dice, "hd95": row.hd95, "ml": row.truth_ml} for row in frame.itertuples()}
        cases = [one.get("cases") for one in summary.sources]
        return {"steps": summary.steps, "cases": cases, "mean": float(frame.dice.mean()), "classes": classes}

    def baselines(self) -> None:
        if "baselines" not in self.results:
            maps = self.out / next(iter(DATASETS[self.name]))
            for name, scores in baselines(self.name, self.config("main", 1), maps).items():
                self._keep("baselines", name, scores)

    def _keep(self, part: str, name: str, value: dict[str, Any]) -> None:
        self.results.setdefault(part, {})[name] = value
        self.results_path.write_text(json.dumps(self.results, indent=1) + "\n")

    def report(self) -> str:
        results = {part: found for part, found in self.results.items() if part == "baselines"}
        for part in ("runs", "further"):  # in their own order, whichever was made first
            if part in self.results:
                results[part] = {run: self.results[part][run] for run in RUNS[self.name] if run in self.results[part]}
        text = tables(results)
        (self.out / "results.md").write_text(text)
        draw(results, self.out / "figure.png", self.name)
        return text


def steps_of(run: str, options: argparse.Namespace) -> int:
    """Updates of a run: what was asked for, or the defaults of the proof."""
    long, short = (8, 4) if options.quick else STEPS[options.proof]
    if run in LONG:
        return int(options.steps or long)
    return int(options.short_steps or (short if options.quick else MORE_STEPS.get(run, short)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("proof", choices=RUNS)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--runs", nargs="+", help="default: all; with --quick `main`")
    parser.add_argument("--steps", type=int, help="updates of long runs")
    parser.add_argument("--short-steps", type=int, help="updates of short runs")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    runs = options.runs or (["main"] if options.quick else list(RUNS[options.proof]))
    if unknown := set(runs) - set(RUNS[options.proof]):
        parser.error(f"no such run: {', '.join(sorted(unknown))}; there are {', '.join(RUNS[options.proof])}")
    proof = Proof(options.proof, options.data, options.out, quick=options.quick)
    first = next(iter(DATASETS[options.proof]))  # the baselines are made from it
    proof.generate({first, *(one["dataset"] for run in runs for one in RUNS[options.proof][run] if "dataset" in one)})
    for run in runs:
        proof.train(run, steps_of(run, options))
        proof.score_further(run)
        proof.draw_scan(run)
    proof.baselines()
    print(proof.report())


if __name__ == "__main__":
    main()
