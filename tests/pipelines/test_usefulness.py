"""The proofs of docs/usefulness.md run from recipes to tables."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from ctmr_core.cases.recipe import load_recipe
from ctmr_core.learning.datasets.classes import Classes
from ctmr_core.learning.segmentation.config import IntensitySettings, ValidationSettings
from ctmr_core.learning.segmentation.validation import ScanVolumes
from tests.conftest import REPOSITORY

MANIFESTS = REPOSITORY / "manifests" / "usefulness"


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """The files of the program by name."""
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    return importlib.import_module


@pytest.mark.parametrize("name", ["brain", "torso", "torso-mr"])
def test_every_run_of_a_proof_is_a_valid_training_on_datasets_that_have_recipes(
    name: str, program: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    usefulness = program("usefulness")
    proof = usefulness.Proof(name, tmp_path / "data", tmp_path / "out", quick=False)

    configs = {run: proof.config(run, 7) for run in usefulness.RUNS[name]}

    datasets = {Path(one.dataset).name for config in configs.values() for one in config.sources if one.dataset}
    assert datasets == set(usefulness.DATASETS[name])
    assert all(load_recipe(MANIFESTS / f"{dataset}.yaml").cases > 0 for dataset in datasets)
    scans = [scan for one in configs["main"].validation for scan in one.scans]
    assert all(str(path).startswith(str(tmp_path / "data")) for scan in scans for path in (*scan.images, scan.label))
    assert len({config.digest for config in configs.values()}) >= len(configs) - 1  # `main` and `bodies-all` may be alike


def test_a_run_changes_what_it_is_named_after_and_nothing_else(program: Callable[[str], ModuleType], tmp_path: Path) -> None:
    proof = program("usefulness").Proof("brain", tmp_path, tmp_path, quick=False)

    plain, inverted = (proof.config(run, 7) for run in ("no-t1", "no-t1-inverted"))

    assert {one.sequences for one in plain.sources} == {("mri_t2_skull_stripped",), ("mri_flair_skull_stripped",)}
    assert (plain.augmentation.invert, inverted.augmentation.invert) == (0.0, 0.5)
    back = inverted.augmentation.model_copy(update={"invert": 0.0})
    assert inverted.model_copy(update={"augmentation": back, "name": plain.name}) == plain


def test_a_mask_of_a_part_of_a_class_is_scored_by_what_was_found_of_it(
    program: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    part, whole = (np.zeros((16, 16, 16), np.uint8) for _ in range(2))
    part[4:8, 4:8, 4:8] = 1
    whole[4:8, 4:8, 2:16] = 2  # the number of vertebrae among the classes
    whole[4:8, 4:8, 5] = 0
    for name, voxels in (("image", part.astype(np.int16)), ("label", part)):
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / f"{name}.nii.gz")
    settings = ValidationSettings(
        name="part", scans=[{"image": tmp_path / "image.nii.gz", "label": tmp_path / "label.nii.gz"}], labels={"vertebrae": 1}
    )
    classes = Classes({"aorta": "aorta", "vertebrae": "vertebrae L1"})
    network = SimpleNamespace(
        segment=lambda images, spacing, sequences: whole,
        classes=classes.names,
        config=SimpleNamespace(intensity=IntensitySettings()),
    )

    scores = program("usefulness_further").scored_further(network, [ScanVolumes(settings, ("ct",), classes)], tmp_path / "seen")

    assert scores["part"].keys() == {"vertebrae"}
    assert scores["part"]["vertebrae"]["recall"] == pytest.approx(0.75)
    assert scores["part"]["vertebrae"]["dice"] == pytest.approx(2 * 48 / (64 + 208))
    assert (tmp_path / "seen" / "part.png").is_file()


def test_a_slab_is_laid_where_it_was_cut_out(program: Callable[[str], ModuleType]) -> None:
    volume = ndimage.gaussian_filter(np.random.default_rng(4).random((40, 32, 48)), 2) * 100
    volume[:4] = volume[-4:] = volume[:, :4] = volume[:, -4:] = 0.0
    slab = np.pad(volume[..., 17:29], ((3, 5), (2, 0), (0, 0)))

    matrix, offset = program("usefulness_baselines").place_of_slab(volume, np.full(3, 3.0), slab, np.full(3, 3.0))

    assert np.diag(matrix) == pytest.approx([1, 1, 1], abs=0.05)
    assert offset == pytest.approx([-3, -2, 17], abs=0.6)


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.parametrize(
    ("proof", "classes", "baselines", "further"),
    [
        ("brain", 14, {"atlas", "threshold", "ceiling"}, set()),
        ("torso", 21, {"atlas", "threshold"}, {"angiography", "angiography-t12", "chest"}),
        ("torso-mr", 14, {"atlas"}, set()),
    ],
)
def test_a_quick_proof_makes_its_sets_trains_and_scores_every_class(
    proof: str, classes: int, baselines: set[str], further: set[str], real_data: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "benchmarks/usefulness.py", proof, "--data", str(real_data), "--out", str(tmp_path), "--quick"]

    subprocess.run(command, cwd=REPOSITORY, check=True, timeout=560)

    results = json.loads((tmp_path / "results.json").read_text())
    assert len(results["runs"]["main"]["classes"]) == classes
    assert results["runs"]["main"]["steps"] == 8
    assert set(results["baselines"]) == baselines
    assert results["baselines"]["atlas"]["mean"] > results["baselines"].get("threshold", {"mean": 0.05})["mean"] > 0
    assert set(results.get("further", {}).get("main", {})) == further
    assert (tmp_path / "results.md").read_text().count("\n|") > classes
    assert (tmp_path / "figure.png").stat().st_size > 10_000
