"""The proofs of docs/usefulness.md run from recipes to tables."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

pytestmark = [pytest.mark.slow, pytest.mark.real_data]


@pytest.mark.parametrize(("proof", "classes", "same_spacing"), [("brain", 14, False), ("torso", 21, True)])
def test_a_quick_proof_makes_its_sets_trains_and_scores_every_class(
    proof: str, classes: int, same_spacing: bool, real_data: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "benchmarks/usefulness.py", proof, "--data", str(real_data), "--out", str(tmp_path), "--quick"]

    subprocess.run(command, cwd=REPOSITORY, check=True, timeout=560)

    results = json.loads((tmp_path / "results.json").read_text())
    assert len(results["runs"]["main"]["classes"]) == classes
    assert results["runs"]["main"]["steps"] == 8
    assert ("ceiling" not in results["baselines"]) == same_spacing
    assert results["baselines"]["atlas"]["mean"] > results["baselines"]["threshold"]["mean"] > 0
    assert (tmp_path / "results.md").read_text().count("\n|") > classes
    assert (tmp_path / "figure.png").stat().st_size > 10_000
