"""What a run will take, and whether it fits: arithmetic on known figures, and a calibration of real cases."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from ctmr_core.cases.manifest import Manifest
from ctmr_core.store import Dataset
from ctmr_core.store.runs import CaseCost, RunRecord, WorkerRecord, write_run
from pipelines.cli.main import app
from pipelines.factory.calibration import choose_cases
from pipelines.factory.estimate import EstimateError, Kind, Measured, Measurements, count, estimate, from_runs, kinds_of
from pipelines.flows import feasible
from pipelines.flows.feasible import InfeasibleError, outlook, refuse_impossible
from pipelines.flows.options import GenerateOptions
from pipelines.flows.waves import waves_of
from tests.pipelines.conftest import Write, options, small_case

ONE = Measured(
    4, seconds=10.0, spread=0.2, attempts=1.5, accepted=0.5, bytes=1e9, objects=10, stages={"body": 2.0, "render": 8.0}
)
KNOWN = Measurements("tests", {Kind("tissue", 2**20, "head mri_t1"): ONE}, peak_bytes=2_000_000_000, largest=2**20)


def test_totals_are_sums_over_kinds() -> None:
    found = estimate({Kind("tissue", 2**20, "head mri_t1"): 100}, KNOWN, workers=4)
    assert (found.cases, found.attempts, found.accepted) == (100, 150.0, 50.0)
    assert found.bytes == 50e9
    assert found.objects == 50 * 10 + 100  # a commit record for each case
    assert found.worker_seconds == 1000.0
    assert found.hours == pytest.approx(1000 / 4 / 3600, rel=1e-2)
    assert found.stages["render"] == 800.0
    assert 0.16 < found.uncertainty < 0.4


def test_more_workers_than_cores_save_no_time() -> None:
    kinds = {Kind("tissue", 2**20, "head mri_t1"): 100}
    assert estimate(kinds, KNOWN, workers=8, at_once=2).hours == estimate(kinds, KNOWN, workers=2).hours


@given(st.integers(10, 28), st.integers(1, 10_000))
def test_another_size_costs_by_its_voxels_and_is_less_certain(power: int, cases: int) -> None:
    found = estimate({Kind("tissue", 2**power, "head mri_t1"): cases}, KNOWN, workers=1)
    assert found.worker_seconds == pytest.approx(10.0 * cases * 2 ** (power - 20), rel=1e-3, abs=0.06)
    known = estimate({Kind("tissue", 2**20, "head mri_t1"): cases}, KNOWN, workers=1)
    assert found.uncertainty >= known.uncertainty
    assert found.memory_bytes >= KNOWN.peak_bytes
    assert (found.memory_bytes > KNOWN.peak_bytes) == (power > 20)


def test_an_engine_that_nobody_measured_is_refused() -> None:
    with pytest.raises(EstimateError, match="rflow-ct"):
        estimate({Kind("rflow-ct", 2**20): 1}, KNOWN, workers=1)


def test_the_same_body_and_sequences_count_before_a_nearer_size() -> None:
    other = Measured(1, 99.0, 0.2, 1, 1, 1, 1)
    measured = Measurements("tests", {**KNOWN.kinds, Kind("tissue", 2**24, "torso ct"): other})
    assert measured.of(Kind("tissue", 2**23, "head mri_t1")).seconds == 80.0
    assert measured.of(Kind("tissue", 2**24, "torso ct")) is other


def test_kinds_tell_bodies_sequences_and_sizes_apart() -> None:
    cases = [
        small_case("a"),
        small_case("b", body_seed=9),
        small_case("c", sequences=("mri_t1", "mri_t2")),
        small_case("d", size=(96, 112, 96)),
        small_case("e", body="parametric:torso", sequences=("ct",)),
    ]
    kinds, which = kinds_of(Manifest.from_cases(cases).table)
    assert count(kinds, which) == {
        Kind("tissue", 2**17, "head mri_t1"): 2,
        Kind("tissue", 2**18, "head mri_t1+mri_t2"): 1,
        Kind("tissue", 2**20, "head mri_t1"): 1,
        Kind("tissue", 2**17, "torso ct"): 1,
    }
    rows = choose_cases(kinds, which, per_kind=1)
    assert [kinds[which[row]].voxels for row in rows] == sorted(kind.voxels for kind in kinds)
    assert len(choose_cases(kinds, which, per_kind=2)) == 5


def record(**changes: object) -> RunRecord:
    cost = CaseCost(
        engine="tissue", size_bucket=2**20, cases=10, accepted=8, attempts=12, busy_seconds=120.0, cpu_wait_seconds=20.0,
        finish_seconds=30.0, bytes=8_000_000_000, objects=80,
    )  # fmt: skip
    fields: dict[str, object] = {
        "accepted": 8,
        "rejected": 2,
        "efficiency": 0.8,
        "stages": {"body": 20.0, "render": 60.0, "wait": 999.0, "check": 20.0},
        "costs": (cost,),
        "fleet": (WorkerRecord(host="a", peak_bytes=3_000_000_000),),
    }
    return RunRecord.model_validate(fields | changes)


def test_records_of_runs_are_measurements() -> None:
    found = from_runs([record(), record()], "cpu", "somewhere")
    assert found is not None
    one = found.of(Kind("tissue", 2**20, "head mri_t1"))
    assert (one.cases, one.seconds, one.attempts, one.accepted, one.bytes, one.objects) == (20, 10.0, 1.2, 0.8, 1e9, 10)
    assert one.stages == pytest.approx({"body": 2.0, "render": 6.0, "check": 2.0, "write": 0.0, "commit": 0.0})
    assert (found.peak_bytes, found.efficiency) == (3_000_000_000, 0.8)
    assert from_runs([record()], "cuda", "somewhere") is None


def test_a_run_that_fits_has_no_shortages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feasible, "memory_of_machine", lambda: 64 * 10**9)
    found = outlook({Kind("tissue", 2**10): 3}, KNOWN, options(tmp_path / "m", tmp_path / "absent" / "d", workers=2))
    assert found.shortages == []
    assert not found.refused


class Usage(NamedTuple):
    free: int


@pytest.mark.parametrize(("cases", "certain"), [(1000, True), (110, False), (50, None)])
def test_a_full_disk_is_certain_only_beyond_the_uncertainty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cases: int, certain: bool | None
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(50 * 10**9))
    kinds = {Kind("tissue", 2**20, "head mri_t1"): cases}
    found = outlook(kinds, KNOWN, options(tmp_path / "m", tmp_path / "absent" / "d", workers=1, memory_per_worker=4))
    disk = [shortage for shortage in found.shortages if shortage.what == "free disk"]
    assert [shortage.certain for shortage in disk] == ([] if certain is None else [certain])


def test_a_bucket_has_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(0))
    found = outlook({Kind("tissue", 2**20): 1}, KNOWN, GenerateOptions(manifest="m", dataset="s3://b/d", workers=1))
    assert "free disk" not in [shortage.what for shortage in found.shortages]


@pytest.mark.parametrize(
    ("changes", "what", "advice"),
    [
        ({"workers": 3}, "memory", "--workers 2"),
        ({"memory_per_worker": 1.5}, "memory of a worker", "more memory"),
        ({"gpus_per_worker": 1.0}, "GPUs", "leave --gpus-per-worker out"),
    ],
)
def test_shortages_say_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object], what: str, advice: str
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(feasible, "memory_of_machine", lambda: 5 * 10**9)
    kinds = {Kind("tissue", 2**20, "head mri_t1"): 10}
    found = outlook(kinds, KNOWN, options(tmp_path / "m", tmp_path / "d", **({"workers": 1} | changes)))
    (shortage,) = found.shortages
    assert (shortage.what, shortage.certain) == (what, True)
    assert advice in shortage.fix
    assert found.refused


def test_a_run_is_refused_by_what_the_last_one_took(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = Dataset.create(tmp_path / "d")
    table = Manifest.from_cases([small_case(f"c{i}", size=(128, 128, 64)) for i in range(4)]).table
    settings = options(tmp_path / "m", tmp_path / "d", workers=2)
    monkeypatch.setattr(feasible, "memory_of_machine", lambda: 5 * 10**9)
    refuse_impossible(table, dataset.storage, settings)  # nothing is known yet
    write_run(dataset.storage, record())
    with pytest.raises(InfeasibleError, match=r"2 workers of 3\.0 GB") as refusal:
        refuse_impossible(table, dataset.storage, settings)
    assert "--workers 1, or --force" in str(refusal.value)
    refuse_impossible(table, dataset.storage, settings.model_copy(update={"force": True}))
    refuse_impossible(table[:0], dataset.storage, settings)


def test_what_no_compression_makes_fit_is_refused_without_a_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = Dataset.create(tmp_path / "d")
    table = Manifest.from_cases([small_case("c", size=(128, 128, 64))]).table
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(100_000))
    with pytest.raises(InfeasibleError, match="free disk"):
        refuse_impossible(table, dataset.storage, options(tmp_path / "m", tmp_path / "d", workers=1))


@given(st.integers(1, 2_000_000), st.integers(1, 100))
def test_waves_cover_every_case_once(cases: int, most: int) -> None:
    found = list(waves_of(cases, most))
    assert sum(wave for wave, _ in found) == cases
    assert len(found) <= most
    assert found[-1][1] == 0


@pytest.fixture
def cli() -> Callable[..., object]:
    def run(*arguments: object, code: int = 0) -> object:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert result.exit_code == code, result.output
        return result

    return run


def test_a_dry_run_calibrates_and_writes_nothing(cli: Callable[..., object], write_manifest: Write, tmp_path: Path) -> None:
    manifest = write_manifest([small_case(f"case-{i}", seed=i, checks={"truncation": False}) for i in range(12)])
    arguments = ("generate", manifest, "--out", tmp_path / "d", "--dry-run", "--workers", 1, "--json")
    found = json.loads(cli(*arguments).stdout)  # type: ignore[attr-defined]
    assert not (tmp_path / "d").exists()
    assert (found["cases"], found["refused"], found["source"]) == (12, False, "a calibration with 1 case(s)")
    assert found["worker_seconds"] > 0
    assert found["objects"] > 12
    assert found["memory_bytes"] > 1e8
    assert Counter(found["stages"]).keys() == {"body", "render", "check", "write", "commit"}
    dense = 12 * 48 * 56 * 48 * 2
    assert 0.05 * dense < found["bytes"] < 2 * dense


def test_a_dry_run_goes_by_earlier_runs_and_refuses(
    cli: Callable[..., object], write_manifest: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = write_manifest([small_case("case-0"), small_case("case-1", body_seed=1)])
    dataset = Dataset.create(tmp_path / "d")
    write_run(dataset.storage, record())
    arguments = ("generate", manifest, "--out", tmp_path / "d", "--dry-run", "--json")
    found = json.loads(cli(*arguments, "--limit", 1).stdout)  # type: ignore[attr-defined]
    assert (found["cases"], found["kinds"][0]["measured_cases"]) == (1, 0)
    assert "earlier run" in found["source"]
    assert json.loads(cli(*arguments).stdout)["cases"] == 2  # type: ignore[attr-defined]
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(1))
    assert json.loads(cli(*arguments, code=1).stdout)["refused"]  # type: ignore[attr-defined]
    cli(*arguments, "--force")


def test_a_recipe_can_be_estimated_while_it_is_planned(cli: Callable[..., object], tmp_path: Path) -> None:
    dataset = Dataset.create(tmp_path / "d")
    write_run(dataset.storage, record())
    recipe = Path(__file__).resolve().parents[2] / "manifests" / "quick.yaml"
    arguments = ("plan", recipe, "--out", tmp_path / "m.parquet", "--estimate", "--dataset", tmp_path / "d", "--workers", 1)
    found = json.loads(cli(*arguments, "--json").stdout)  # type: ignore[attr-defined]
    assert found["cases"] == 8
    assert found["kinds"]
    assert "too little" not in cli(*arguments).output  # type: ignore[attr-defined]
