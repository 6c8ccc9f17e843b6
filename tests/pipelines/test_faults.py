"""What happens when cases raise, kill their process, hang or fill the disk: a table of drills on a real cluster."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ctmr_core.store import Dataset, read_failures, verify
from pipelines.factory.cluster import ray_cluster
from pipelines.flows.generate_dataset import run_generate_dataset
from tests.pipelines.conftest import Write, options
from tests.soak.cases import named_case

Drill = Callable[[dict[str, dict[str, object]]], None]
NAMES = [f"case-{i}" for i in range(5)]


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The drill file that every worker of this module's cluster reads."""
    path = tmp_path_factory.mktemp("drill") / "faults.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CTMR_FAULTS", str(path))
        path.write_text("{}", encoding="utf-8")
        with ray_cluster(None, cpus=2):
            yield path


@pytest.fixture
def drilled_cluster(plan: Path) -> Drill:
    """A cluster whose workers inherit the drill that a test writes."""

    def write(faults: dict[str, dict[str, object]]) -> None:
        for mark in plan.parent.glob("*.struck"):
            mark.unlink()
        plan.write_text(json.dumps(faults), encoding="utf-8")

    write({})
    return write


@pytest.mark.parametrize(
    ("fault", "accepted", "failed", "quarantined"),
    [
        pytest.param({"0": "raise"}, 5, 0, 0, id="an exception is retried with the next attempt"),
        pytest.param({"*": "raise"}, 4, 1, 0, id="a case that always raises fails alone"),
        pytest.param({"*": "exit"}, 4, 0, 1, id="a case that ends its process is quarantined alone"),
        pytest.param({"*": "segfault"}, 4, 0, 1, id="a case that crashes its process is quarantined alone"),
        pytest.param({"*": "memory"}, 4, 1, 0, id="a case that finds no memory fails alone"),
        pytest.param({"*": "kill"}, 4, 0, 1, id="a case whose process is always killed is quarantined", marks=pytest.mark.slow),
        pytest.param({"*": "kill", "once": True}, 5, 0, 0, id="a process killed once loses nothing"),
        pytest.param({"*": "kill@commit", "once": True}, 5, 0, 0, id="killed with the volume made and no commit"),
        pytest.param({"*": "kill@committed", "once": True}, 5, 0, 0, id="killed after the commit and before the report"),
    ],
)
def test_a_bad_case_never_touches_its_neighbours(
    drilled_cluster: Drill,
    write_manifest: Write,
    tmp_path: Path,
    fault: dict[str, object],
    accepted: int,
    failed: int,
    quarantined: int,
) -> None:
    drilled_cluster({"case-2": fault})
    manifest = write_manifest([named_case(name) for name in NAMES])
    summary = run_generate_dataset(options(manifest, tmp_path / "out", unit_size=3))
    assert (summary.accepted, summary.failed, summary.quarantined) == (accepted, failed, quarantined)
    dataset = Dataset.open(tmp_path / "out")
    assert set(NAMES) - set(dataset) <= {"case-2"}
    assert not verify(dataset).problems
    if failed or quarantined:
        (record,) = read_failures(dataset.storage)
        assert record.case_id == "case-2"
        assert record.reason
        assert record.environment["versions"]["torch"]
        assert ("drill" in record.traceback) == bool(failed)
    else:
        assert dataset.row("case-2")["attempt"] == (1 if fault == {"0": "raise"} else 0)


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param("hang", id="asleep"),
        pytest.param("spin", id="busy", marks=pytest.mark.slow),
        pytest.param("seize", id="in a call that lets no other thread run", marks=pytest.mark.slow),
        pytest.param("freeze", id="a process that stands still", marks=pytest.mark.slow),
    ],
)
def test_a_hanging_case_is_ended_and_quarantined(
    fault: str, drilled_cluster: Drill, write_manifest: Write, tmp_path: Path
) -> None:
    drilled_cluster({"case-1": {"*": fault}})
    manifest = write_manifest([named_case(name) for name in NAMES[:3]])
    summary = run_generate_dataset(options(manifest, tmp_path / "out", unit_size=1, case_timeout=5.0))
    assert (summary.accepted, summary.quarantined) == (2, 1)
    assert "no result" in summary.problems[0]["reason"]


def test_failed_cases_are_tried_again_by_the_next_run(drilled_cluster: Drill, write_manifest: Write, tmp_path: Path) -> None:
    drilled_cluster({"case-0": {"*": "raise"}})
    manifest = write_manifest([named_case(name) for name in NAMES[:2]])
    assert run_generate_dataset(options(manifest, tmp_path / "out")).failed == 1
    drilled_cluster({})
    summary = run_generate_dataset(options(manifest, tmp_path / "out"))
    assert summary.reasons == {"failed": 1}
    assert (summary.accepted, summary.done_before) == (1, 1)
    assert not read_failures(Dataset.open(tmp_path / "out").storage)


def test_a_full_disk_stops_the_run_with_advice_and_the_next_run_finishes_it(
    drilled_cluster: Drill, write_manifest: Write, tmp_path: Path
) -> None:
    drilled_cluster({"case-1": {"*": "disk_full@commit", "once": True}})
    manifest = write_manifest([named_case(name) for name in NAMES])
    summary = run_generate_dataset(options(manifest, tmp_path / "out", workers=1, unit_size=1))
    assert summary.halt
    assert "free space" in summary.halt
    assert not summary.complete
    assert summary.accepted < len(NAMES)
    rest = run_generate_dataset(options(manifest, tmp_path / "out"))
    assert rest.done_before + rest.accepted == len(NAMES)
    assert not verify(Dataset.open(tmp_path / "out")).problems
