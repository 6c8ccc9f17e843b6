"""What the driver does about stragglers, memory and deaths among many cases, on a real cluster."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ctmr_core.store import Dataset, read_failures
from ctmr_core.store.runs import read_runs
from pipelines.factory.cluster import ray_cluster
from pipelines.factory.tally import Progress
from pipelines.flows.generate_dataset import run_generate_dataset
from tests.pipelines.blocks import blocks_case, digest_of, undisturbed_digest
from tests.pipelines.conftest import Write, options

Drill = Callable[[dict[str, dict[str, object]]], None]


def test_a_straggler_is_made_again_elsewhere_and_counted_once(drill: Drill, write_manifest: Write, tmp_path: Path) -> None:
    manifest = write_manifest([blocks_case(i) for i in range(12)])
    drill({"case-005": {"*": "hang", "once": True}})
    with ray_cluster(None, cpus=2):
        summary = run_generate_dataset(options(manifest, tmp_path / "out", unit_size=2))
    assert (summary.accepted, summary.failed, summary.quarantined) == (12, 0, 0)
    assert (summary.second_copies, summary.deaths) == (1, 0)
    drill({})
    assert digest_of(tmp_path / "out") == undisturbed_digest(manifest, tmp_path / "calm")


def test_actors_that_hold_too_much_memory_are_replaced_after_their_unit(write_manifest: Write, tmp_path: Path) -> None:
    manifest = write_manifest([blocks_case(i, seconds=0.3) for i in range(12)])
    seen: list[Progress] = []
    with ray_cluster(None, cpus=2):
        settings = options(manifest, tmp_path / "out", workers=1, unit_size=2, memory_per_worker=0.05)
        summary = run_generate_dataset(settings, seen.append)
    assert (summary.accepted, summary.deaths) == (12, 0)
    assert summary.replaced >= 1
    assert max(status.rss_bytes for progress in seen for status in progress.actors.values()) > 50_000_000
    (record,) = read_runs(Dataset.open(tmp_path / "out").storage)
    assert len(record.fleet) >= 2
    assert sum(worker.cases for worker in record.fleet) == 12
    assert record.fleet[0].peak_bytes > 50_000_000


def test_a_death_accuses_only_the_cases_in_hand_and_waves_flow_into_each_other(
    drill: Drill, write_manifest: Write, tmp_path: Path
) -> None:
    manifest = write_manifest([blocks_case(i) for i in range(300)])
    drill({"case-100": {"*": "exit"}, "case-270": {"*": "kill", "once": True}})
    with ray_cluster(None, cpus=2):
        summary = run_generate_dataset(options(manifest, tmp_path / "out", unit_size=60, waves=2))
    assert (summary.accepted, summary.quarantined) == (299, 1)
    # 100 kills its worker in company, twice alone; 270 once. Nothing else was suspected often enough to be run apart.
    assert summary.deaths == 4
    (record,) = read_runs(Dataset.open(tmp_path / "out").storage)
    assert (record.waves, record.quarantined, record.made) == (2, 1, 300)
    (failure,) = read_failures(Dataset.open(tmp_path / "out").storage)
    assert failure.case_id == "case-100"


@pytest.mark.slow
def test_an_actor_that_answers_nothing_is_ended_and_its_case_found(drill: Drill, write_manifest: Write, tmp_path: Path) -> None:
    """``seize`` holds the interpreter's lock, so that not even the status is told."""
    manifest = write_manifest([blocks_case(i) for i in range(8)])
    drill({"case-003": {"*": "seize"}})
    with ray_cluster(None, cpus=2):
        summary = run_generate_dataset(options(manifest, tmp_path / "out", workers=1, unit_size=8, case_timeout=20.0))
    assert (summary.accepted, summary.quarantined) == (7, 1)
    assert "no sign of life" in summary.problems[0]["reason"]
